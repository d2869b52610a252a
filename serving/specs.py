"""What can be asked of serving."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from goldpath.core.spec import Spec


class CacheSpec(Spec):
    """A model to have at hand before it is served."""

    uri: str
    """`file://`, `s3://`, `gs://`, `hf://` or a path: a folder of safetensors with tokenizer and config."""
    model_digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of the model's file manifest, as it was registered: another model is refused. Empty: any."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 2


class ServeSpec(Spec):
    """An OpenAI-compatible endpoint."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$")] = "champion"
    """A DNS label, so that it can name an InferenceService too."""
    model_uri: str
    """Folder of a warmed model."""
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,94}[A-Za-z0-9])?$")] = "goldpath"
    """The name that clients send as `model`."""
    engine: Literal["transformers"] = "transformers"
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """0: the endpoint's last port if free, else any free one."""
    cache_blocks: Annotated[int, Field(ge=16, le=1_000_000)] = 512
    """KV-cache blocks of the engine's pool."""
    block_tokens: Annotated[int, Field(ge=4, le=4_096)] = 32
    """Tokens in a block: a repeated context is reused in whole blocks."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|mps)(:\d{1,2})?$")] = "auto"
    """`auto`: a GPU if there is one, else the CPU."""
    ready_seconds: Annotated[int, Field(ge=1, le=3_600)] = 120
    """Give up if it is not ready by then."""


class ProbeSpec(Spec):
    """What is measured on a live endpoint."""

    context_tokens: Annotated[int, Field(ge=64, le=1_000_000)] = 2_000
    """Length of the long context, in tokens of the model."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 3
    """Contexts of each kind; the median is quoted."""
    max_new_tokens: Annotated[int, Field(ge=2, le=4_096)] = 48
    """Length of answers, and what the decoding speed is taken over."""
    retrieved_chunks: Annotated[int, Field(ge=0, le=50)] = 4
    """Documents put before a question; 0: no prompts with retrieved context."""
    questions: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What to ask; none: what the caller of `probe` brings, a question of the test split in the pipeline."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3_600)] = 120
    """Of one request."""
