"""What can be asked of serving."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from goldpath.core.spec import Spec


class CacheSpec(Spec):
    """A model to have at hand before it is served."""

    uri: str
    """`file://`, `s3://`, `gs://`, `hf://` or a path: a folder of safetensors with tokenizer and config."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 2


class ServeSpec(Spec):
    """An OpenAI-compatible endpoint."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$")] = "champion"
    """A DNS label, so that it can name an InferenceService too."""
    model_uri: str
    """Folder of a warmed model."""
    model_name: str = "goldpath"
    """The name that clients send as `model`."""
    engine: Literal["transformers"] = "transformers"
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """0: the endpoint's last port if free, else any free one."""
    cache_blocks: Annotated[int, Field(ge=16, le=1_000_000)] = 512
    """KV-cache blocks of the engine's pool."""
    block_tokens: Annotated[int, Field(ge=1, le=4_096)] = 32
    ready_seconds: Annotated[int, Field(ge=5, le=3_600)] = 120
    """Give up if it is not ready by then."""


class ProbeSpec(Spec):
    """What is measured on a live endpoint."""

    context_tokens: Annotated[int, Field(ge=64, le=1_000_000)] = 2_000
    repeats: Annotated[int, Field(ge=1, le=100)] = 3
    max_new_tokens: Annotated[int, Field(ge=2, le=4_096)] = 24
    retrieved_chunks: Annotated[int, Field(ge=0, le=50)] = 4
    questions: tuple[str, ...] = ("What does the field `spec.replicas` of a Deployment mean?",)
    timeout_seconds: Annotated[int, Field(ge=5, le=3_600)] = 120
