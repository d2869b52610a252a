"""What serving hands back."""

from __future__ import annotations

from pathlib import Path

from goldpath.core.spec import Result


class CachedModel(Result):
    """A model in the cache."""

    source: str
    path: str
    """Absolute folder, ready to load; on a cluster the URI by which KServe finds the copies on its nodes."""
    digest: str
    """Digest of the file manifest: the cache key."""
    files: int
    bytes: int
    bytes_fetched: int
    """0 on a second warm-up."""
    seconds: float
    note: str = ""
    """Why nothing is at hand, where a cluster has no place for copies."""

    @property
    def uri(self) -> str:
        """Where the next step finds the model."""
        return self.path if "://" in self.path else Path(self.path).as_uri()

    @property
    def said(self) -> str:
        """What happened, in a few words."""
        return self.note or f"{self.bytes / 1e6:,.0f} MB ready, {self.bytes_fetched / 1e6:,.0f} MB fetched"


class Endpoint(Result):
    """A live endpoint."""

    name: str
    url: str
    """Base URL of the OpenAI API: `http://127.0.0.1:PORT/v1`, or what the cluster's service answers at."""
    model: str
    """What clients send as `model`."""
    model_version: str = ""
    """In the registry; empty where it has none."""
    model_path: str
    """Folder, or on a cluster the URI."""
    model_digest: str
    engine: str
    pid: int
    """The supervisor's; 0 on a cluster."""
    pid_started: float
    ready_seconds: float
    """Start to first health answer; 0 where a running endpoint was adopted."""
    adopted: bool
    log: str
    """The engine's log, or the command that shows it."""
    status: str = "ready"
    """ready, restarting (after a crash), failed (crashed too often) or dead (its supervisor was killed); on a cluster
    ready, starting or failed."""


class Timing(Result):
    """Time to first token of one kind of prompt, in seconds."""

    name: str
    """cold, repeated, retrieved-cold, retrieved-repeated."""
    prompt_tokens: int
    ttft_seconds: list[float]
    """One a repeat; the median is what is quoted."""


class ProbeResult(Result):
    """What a real client saw."""

    model: str
    answers: list[dict[str, str]]
    """question, answer."""
    streamed_chunks: int
    tokens_per_second: float
    timings: list[Timing]
    repeat_speedup: float
    """Median cold TTFT over median repeated TTFT."""
    retrieval_examples: list[dict[str, str]]
    """question, chunks, answer."""
