"""Engines: what turns a folder with a model into an OpenAI-compatible server.

An engine says how to start it; it starts nothing. The supervisor runs whatever command it is given, so another
engine is another class here and another word in `ServeSpec.engine`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from goldpath.core.errors import SpecError
from goldpath.serving.specs import ServeSpec


class Engine(Protocol):
    """How to run one kind of server."""

    name: str
    health: str
    """Path that answers 200 when the server can take requests (`/health`)."""
    reset: str | None
    """Path that forgets cached prefixes when posted to; None where the server has none."""

    def prepare(self, spec: ServeSpec, model: Path, folder: Path) -> None:
        """Put into `folder`, the generation's own, what the server needs beside the model."""

    def command(self, spec: ServeSpec, model: Path, folder: Path, port: str) -> list[str]:
        """Program and arguments; `port` is put in as it is (the supervisor's placeholder)."""

    def environment(self, spec: ServeSpec, folder: Path) -> dict[str, str]:
        """Variables added to the environment."""


class Transformers:
    """`transformers serve` with continuous batching, whose paged KV cache shares the blocks of equal prefixes.

    - Continuous batching is what makes a repeated context fast; without it there is no reuse.
    - The pool has `cache_blocks * block_tokens` tokens (16,384 by default, 0.38 GB with SmolLM2-135M in bf16);
      left alone it would take most of the memory.
    - The first request fixes the sampling of all: the supervisor's warm-up asks for temperature 0, so answers are
      greedy, and the same question gets the same answer.
    - The server accepts as `model` only the name it was started with, and lists the models of its hub cache: so it
      gets a hub cache of its own in which `model_name` is a link to the model.
    """

    name = "transformers"
    health = "/health"
    reset: str | None = None

    def prepare(self, spec: ServeSpec, model: Path, folder: Path) -> None:
        """A hub cache with one entry: `spec.model_name`."""
        entry = folder / "hub" / f"models--{spec.model_name}"
        revision = "0" * 40
        (entry / "refs").mkdir(parents=True)
        (entry / "refs" / "main").write_text(revision)
        (entry / "snapshots").mkdir()
        (entry / "snapshots" / revision).symlink_to(model, target_is_directory=True)

    def command(self, spec: ServeSpec, model: Path, folder: Path, port: str) -> list[str]:
        """Its own launcher, beside our Python."""
        return [
            str(Path(sys.executable).with_name("transformers")),
            "serve",
            spec.model_name,
            "--continuous-batching",
            "--cb-num-blocks",
            str(spec.cache_blocks),
            "--cb-block-size",
            str(spec.block_tokens),
            "--device",
            spec.device,
            "--host",
            "127.0.0.1",
            "--port",
            port,
        ]

    def environment(self, spec: ServeSpec, folder: Path) -> dict[str, str]:
        """Offline, with its own hub cache."""
        return {
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            # Threads that wait spin briefly, then sleep: as quick as spinning for ever on idle cores, and not many
            # times slower than sleeping on busy ones. `benchmarks/bench_serve_threads.py` measures it.
            "GOMP_SPINCOUNT": "10000",
        }


ENGINES: dict[str, Engine] = {"transformers": Transformers()}


def reset_path(name: str) -> str | None:
    """Path that has an endpoint forget cached prefixes; None where its engine, on a cluster for instance, has none."""
    return ENGINES[name].reset if name in ENGINES else None


def get(name: str) -> Engine:
    """The engine of that name.

    Raises:
        SpecError: there is none.
    """
    if name not in ENGINES:
        raise SpecError(f"engine is {name!r}", f"Choose one of: {', '.join(ENGINES)}.")
    return ENGINES[name]
