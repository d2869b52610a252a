"""What can be asked of serving on a cluster: a service of KServe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.kv_cache import kv_cache
from goldpath.accelerators.quantities import value
from goldpath.accelerators.requests import GpuRequest
from goldpath.core import images, settings
from goldpath.core.errors import SpecError
from goldpath.core.spec import NAME_SAID, Spec, matching
from goldpath.serving.cluster_parts import (
    REVISION,
    REVISION_SAID,
    Canary,
    KvReuse,
    Positive,
    Prefill,
    Scaling,
    quantity,
    storage_uri,
)

GIB = 2**30
OUR_RUNTIME = "goldpath-vllm"
"""`deploy/serving`: an image of ours, in which vLLM and LMCache fit each other."""
KSERVE_RUNTIME = "kserve-huggingfaceserver"
"""KServe's own: each release pins its vLLM and LMCache."""
_SERVICE = r"^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$"
_SERVICE_SAID = f"{NAME_SAID}, the first a letter"
_ENGINE_GIB = 16
"""What the engine itself needs of the host's memory where nobody says more."""


_PARTS: dict[str, type[Spec]] = {"kv": KvReuse, "scaling": Scaling, "canary": Canary, "prefill": Prefill}


class ClusterServeSpec(Spec):
    """An OpenAI-compatible service on a cluster with KServe in Standard mode."""

    kind: Literal["inference-service", "llm-inference-service"] = "inference-service"
    name: Annotated[str, matching(_SERVICE, _SERVICE_SAID)]
    model_uri: str
    """Where the model lies, or where it lay when it was cached: KServe finds the cache by this URI."""
    model_name: Annotated[
        str,
        matching(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,94}[A-Za-z0-9])?)?$", "letters, digits, '-', '_' and '.'"),
    ] = ""
    """The name that clients send as `model`; empty: the service's."""
    architecture: str = ""
    """What `goldpath kv-cache --model` takes, for checks before anything starts; needed for LMCache."""
    revision: Annotated[str, matching(REVISION, REVISION_SAID)] = ""
    """Of the model that serves: the name of the canary that was promoted last."""
    kserve: Annotated[str, matching(r"^0\.(1[89]|[2-9]\d)$", "0.18 or a later release, such as 0.20")] = (
        "0.20"
    )
    runtime: Literal["", "goldpath-vllm", "kserve-huggingfaceserver"] = ""
    """Empty: KServe's for lmcache-in-process, else ours."""
    image: Annotated[
        str, matching(rf"^({images.REFERENCE})?$", "repository:tag or repository@sha256:digest")
    ] = ""
    """Of the engine; empty: the runtime's. Without a GPU, one for CPUs."""
    gpu: GpuRequest = Field(default_factory=GpuRequest)
    min_replicas: Annotated[int, Field(ge=0, le=1_000)] = 1
    """0: none while nobody asks; needs `scaling.wake_query`."""
    max_replicas: Positive = 1
    cpu: str = "4"
    memory: str = ""
    """Empty: 16 GiB and what KV reuse keeps in memory."""
    context_length: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Tokens; 0: what the model allows."""
    kv: KvReuse = Field(default_factory=KvReuse)
    scaling: Scaling = Field(default_factory=Scaling)
    canary: Canary | None = None
    prefill: Prefill | None = None
    node_group: Annotated[
        str, matching(r"^([a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?)?$", "the name of a node group")
    ] = ""
    """Which copy of a cached model to use; empty: the first group of the cache."""
    service_account: str = Field(default_factory=settings.model_account)
    """Whose secrets read the model; GOLDPATH_MODEL_ACCOUNT names one for all."""
    ready_seconds: Annotated[int, Field(ge=60, le=86_400)] = 1_800
    """An engine that does not answer by then is started again; who waits for the service gives up."""

    @field_validator("kv", "scaling", "canary", "prefill", mode="before")
    @classmethod
    def _nested(cls, given: Any, info: ValidationInfo) -> Any:
        """A part of the spec by itself, so that its errors are in words too; they begin with the field's name."""
        part = _PARTS[str(info.field_name)]
        if not isinstance(given, Mapping):
            return given
        try:
            return part.parse(given)
        except SpecError as error:
            raise SpecError(f"{info.field_name}.{error.message}", error.remedy) from None

    @field_validator("cpu", "memory")
    @classmethod
    def _quantities(cls, text: str, info: ValidationInfo) -> str:
        return quantity(text, str(info.field_name))

    @model_validator(mode="after")
    def _together(self) -> ClusterServeSpec:
        storage_uri(self.model_uri)
        for check in (self._check_replicas, self._check_devices, self._check_reuse, self._check_kind):
            check()
        return self

    @property
    def served_name(self) -> str:
        """What clients send as `model`."""
        return self.model_name or self.name

    @property
    def workers(self) -> int:
        """GPUs that share each layer of a replica."""
        return max(1, self.gpu.count)

    @property
    def scales(self) -> bool:
        """Whether the number of replicas follows the load."""
        return self.min_replicas < self.max_replicas

    @property
    def serving_runtime(self) -> str:
        """Name of the ServingRuntime."""
        return self.runtime or (KSERVE_RUNTIME if self.kv.mode == "lmcache-in-process" else OUR_RUNTIME)

    @property
    def pod_memory(self) -> str:
        """Limit of the engine's container."""
        return self.memory or f"{math.ceil(self.kv.pod_gib(self.workers)) + _ENGINE_GIB}Gi"

    def check_model(self, architecture: Architecture | None) -> None:
        """Refuse what this model cannot do.

        Args:
            architecture: of the model; None where nobody read its config.json.

        Raises:
            SpecError: LMCache with a model that keeps states, which it would garble, or with an unknown one; more
                context than the model takes; GPUs that its heads cannot be shared among.
        """
        if architecture is None:
            if self.kv.lmcache:
                raise SpecError(
                    f"kv.mode is {self.kv.mode}, and nothing is known about the layers of {self.model_uri}: LMCache "
                    "garbles models that keep states (Mamba and the like)",
                    "Set `architecture` to what `goldpath kv-cache --model` takes: a name, a path or a URI.",
                )
            return
        states = sum(layer.state is not None for layer in architecture.layers)
        if states and self.kv.lmcache:
            raise SpecError(
                f"kv.mode is {self.kv.mode}, but {architecture.name} has {states} layers that keep a state (Mamba, "
                "linear attention, convolution): LMCache would silently garble its answers",
                "Set kv.mode to prefix for this model.",
            )
        if architecture.max_positions and self.context_length > architecture.max_positions:
            raise SpecError(
                f"context_length is {self.context_length:,}, and {architecture.name} takes "
                f"{architecture.max_positions:,} tokens",
                "Give at most that, or 0.",
            )
        kv_cache(architecture, 1, tensor_parallel=self.workers)

    def _check_replicas(self) -> None:
        if self.min_replicas > self.max_replicas:
            raise SpecError(
                f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}",
                "Swap or raise them.",
            )
        if self.min_replicas == 0 and not self.scaling.wake_query:
            raise SpecError(
                "min_replicas is 0, but nothing would wake the service: with no engine there are no vLLM metrics",
                "Set scaling.wake_query to PromQL of requests at your gateway, or min_replicas to 1.",
            )
        beside = self.canary if self.kind == "inference-service" else None
        if beside and self.min_replicas < beside.replicas:
            raise SpecError(
                f"canary.replicas is {beside.replicas} and min_replicas {self.min_replicas}: KServe refuses a "
                "canary with more replicas than the model beside it",
                f"Set min_replicas to at least {beside.replicas}.",
            )

    def _check_devices(self) -> None:
        for field, request in (
            ("gpu", self.gpu),
            ("prefill.gpu", self.prefill.gpu if self.prefill else None),
        ):
            if request and request.count > 1 and any(term.kind == "mig" for term in request.terms):
                raise SpecError(
                    f"{field} is {request}: an engine cannot share its layers among MIG slices",
                    "Ask for one larger slice, or for whole GPUs.",
                )
        if self.gpu.none and self.kv.mode in ("lmcache-in-process", "offload"):
            raise SpecError(
                f"kv.mode {self.kv.mode} needs a GPU: on a CPU it starts and never finds anything",
                "Choose prefix or lmcache-mp, or give a gpu.",
            )

    def _check_reuse(self) -> None:
        release = int(self.kserve.partition(".")[2])
        if self.kv.mode == "lmcache-in-process" and release > 20:
            raise SpecError(
                f"kv.mode lmcache-in-process does not fit KServe {self.kserve}: its images have the multi-process mode",
                "Choose lmcache-mp. The two cannot be mixed.",
            )
        ours = self.serving_runtime == OUR_RUNTIME or self.kind == "llm-inference-service"
        if self.kv.mode == "lmcache-in-process" and ours:
            raise SpecError(
                "kv.mode lmcache-in-process is for the images of KServe 0.18 to 0.20, as the runtime "
                f"{KSERVE_RUNTIME} starts them",
                "Choose lmcache-mp, or leave kind and runtime away.",
            )
        if self.kv.mode == "lmcache-mp" and not ours and release < 21:
            raise SpecError(
                f"kv.mode lmcache-mp does not fit the image of KServe {self.kserve}",
                "Leave runtime away, so that ours serves, or choose lmcache-in-process.",
            )
        if self.kv.mode == "offload" and release < 20:
            raise SpecError(
                f"kv.mode offload needs KServe 0.20; kserve is {self.kserve}",
                "Choose lmcache-in-process or prefix.",
            )
        pool = self.kv.pod_gib(self.workers) * GIB
        if self.memory and value(self.memory) <= pool:
            raise SpecError(
                f"memory is {self.memory}, but KV reuse alone keeps {pool / GIB:g} GiB",
                f"Leave memory away, or give at least {pool / GIB + _ENGINE_GIB:.0f}Gi.",
            )

    def _check_kind(self) -> None:
        release = int(self.kserve.partition(".")[2])
        if self.kind == "llm-inference-service":
            if release < 20:
                raise SpecError(
                    f"kind llm-inference-service needs KServe 0.20 (v1alpha2); kserve is {self.kserve}",
                    "Use inference-service, or upgrade KServe.",
                )
            if self.runtime:
                raise SpecError(
                    "runtime is for inference-service", "Take it out; image sets the engine's image."
                )
            if self.prefill and self.kv.lmcache:
                raise SpecError(
                    f"prefill and kv.mode {self.kv.mode} both want the engine's one KV connector",
                    "Take one of them out, or choose offload.",
                )
        elif self.prefill:
            raise SpecError("prefill is for llm-inference-service", "Set kind, or take prefill out.")
        if self.canary and release < 20:
            raise SpecError(
                f"canary needs KServe 0.20 in Standard mode; kserve is {self.kserve}",
                "Upgrade KServe, or take it out.",
            )
        if self.canary and self.canary.revision == self.revision:
            raise SpecError(
                f"canary.revision is {self.canary.revision}, which already serves",
                "Give the canary another name.",
            )
        longest = max(len(self.revision), len(self.canary.revision) if self.canary else 0)
        if longest and len(self.name) + longest + len("--predictor") > 63:
            raise SpecError(
                f"name {self.name} and the revision make a Service with more than 63 characters",
                "Shorten one of them.",
            )
