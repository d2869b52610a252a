"""What can be asked of serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from goldpath.core.errors import SpecError
from goldpath.core.spec import NAME, NAME_SAID, Spec, fields_for, matching
from goldpath.serving.cluster_cache import ClusterWarmSpec
from goldpath.serving.cluster_deploy import check_cluster


class CacheSpec(Spec):
    """A model to have at hand before it is served."""

    from_pipeline: ClassVar[frozenset[str]] = frozenset({"uri", "model_digest"})
    uri: str
    """`file://`, `s3://`, `gs://`, `hf://` or a path: a folder of safetensors with tokenizer and config."""
    model_digest: Annotated[str, matching(r"^([0-9a-f]{64})?$", "64 hexadecimal digits, or nothing")] = ""
    """Digest of the model's file manifest, as it was registered: another model is refused. Empty: any."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 2
    cluster: ClusterWarmSpec = ClusterWarmSpec()
    """Copies on the nodes of a cluster, for the backend `kubernetes`; nothing of it counts on this machine."""

    @classmethod
    def from_form(cls, *, uri: str, model_digest: str, overrides: Mapping[str, Any]) -> Self:
        """What the form asks of warm_cache, for the model that was registered.

        Raises:
            SpecError: a field is wrong.
        """
        return cls.parse(
            {"uri": uri, "model_digest": model_digest}, fields_for("warm_cache", overrides), "warm_cache"
        )


class ServeSpec(Spec):
    """An OpenAI-compatible endpoint."""

    from_pipeline: ClassVar[frozenset[str]] = frozenset({"model_uri", "model_version", "model_digest"})
    name: Annotated[
        str,
        matching(
            f"^{NAME}$",
            NAME_SAID,
        ),
    ] = "champion"
    model_uri: str
    """Folder of a warmed model, as a path or URI; for a cluster, a URI that its nodes read."""
    model_version: str = ""
    """Its version in the registry, shown beside its name; empty where it has none."""
    model_digest: str = ""
    """Of its file manifest, where the cluster is not asked to look."""
    model_name: Annotated[
        str,
        matching(
            r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,94}[A-Za-z0-9])?$",
            "at most 96 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
        ),
    ] = "goldpath"
    """The name that clients send as `model`."""
    engine: Literal["transformers"] = "transformers"
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """0: the endpoint's last port if free, else any free one."""
    cache_blocks: Annotated[int, Field(ge=16, le=1_000_000)] = 512
    """KV-cache blocks of the engine's pool."""
    block_tokens: Annotated[int, Field(ge=4, le=4_096)] = 32
    """Tokens in a block: a repeated context is reused in whole blocks."""
    device: Annotated[
        str,
        matching(r"^(auto|cpu|cuda|mps)(:\d{1,2})?$", "auto, cpu, cuda or mps, or one by its number: cuda:1"),
    ] = "auto"
    """`auto`: a GPU if there is one, else the CPU."""
    ready_seconds: Annotated[int, Field(ge=1, le=3_600)] = 120
    """Give up if it is not ready by then."""
    cluster: dict[str, Any] = Field(default_factory=dict)
    """Fields of `ClusterServeSpec`, for the backend `kubernetes`: of the others only `name`, `model_name` and what the
    pipeline sets count there, and of these none here."""

    @field_validator("cluster")
    @classmethod
    def _cluster(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if canary := check_cluster(fields):
            try:
                ProbeSpec.parse(canary.probe)
            except SpecError as error:
                raise SpecError(f"cluster.canary.probe.{error.message}", error.remedy) from None
        return fields

    @classmethod
    def from_form(
        cls,
        *,
        name: str,
        engine: str,
        model_uri: str,
        overrides: Mapping[str, Any],
        model_version: str = "",
        model_digest: str = "",
    ) -> Self:
        """What the form asks of deploy: clients call the model as the endpoint is called.

        Raises:
            SpecError: a field is wrong.
        """
        fields = fields_for("deploy", overrides)
        asked = {"name": name, "engine": engine, "model_uri": model_uri, "model_version": model_version}
        asked |= {"model_digest": model_digest}
        if "name" not in fields:
            cls.parse({"name": name, "model_uri": model_uri})  # as the model's name it would be told twice
        try:
            return cls.parse({**asked, "model_name": name}, fields, "deploy")
        except SpecError as error:
            if error.message.startswith("cluster."):
                raise SpecError(f"overrides.deploy.{error.message}", error.remedy) from None
            raise


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
