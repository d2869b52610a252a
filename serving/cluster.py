"""What can be asked of serving on a cluster: a service of KServe, and what it keeps of prompts it has seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.kv_cache import kv_cache
from goldpath.accelerators.kv_offload import CHUNK, offload
from goldpath.accelerators.quantities import EXAMPLES, is_quantity, value
from goldpath.accelerators.requests import GpuRequest
from goldpath.core.errors import SpecError
from goldpath.core.spec import NAME_SAID, Spec, matching

GIB = 2**30
OUR_RUNTIME = "goldpath-vllm"
"""`deploy/serving`: an image of ours, in which vLLM and LMCache fit each other."""
KSERVE_RUNTIME = "kserve-huggingfaceserver"
"""KServe's own: each release pins its vLLM and LMCache."""
_SERVICE = r"^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$"
_SERVICE_SAID = f"{NAME_SAID}, the first a letter"
_REVISION = r"^([a-z]([-a-z0-9]{0,18}[a-z0-9])?)?$"
_REVISION_SAID = "at most 20 lower-case letters, digits and dashes, the first a letter"
_URI = ("s3", "gs", "hf", "https", "pvc", "oci")
_ENGINE_GIB = 16
"""What the engine itself needs of the host's memory where nobody says more."""

Mode = Literal["none", "prefix", "lmcache-in-process", "lmcache-mp", "offload"]
Positive = Annotated[int, Field(ge=1, le=1_000)]


def storage_uri(uri: str, field: str = "model_uri") -> str:
    """Check that a cluster can read it.

    Raises:
        SpecError: it lies on this machine, or KServe knows no such scheme.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in _URI or not rest or any(char.isspace() for char in uri):
        raise SpecError(
            f"{field} is {uri!r}, which a cluster cannot read",
            f"Put the model where it can, and give that URI: {', '.join(f'{one}://' for one in _URI)}.",
        )
    return uri


def quantity(text: str, field: str) -> str:
    """Check a Kubernetes quantity above 0; nothing is let through.

    Raises:
        SpecError: it is none.
    """
    if text and (not is_quantity(text) or value(text) <= 0):
        raise SpecError(f"{field} is {text!r}, no quantity above 0", f"Examples: {EXAMPLES}.")
    return text


class KvReuse(Spec):
    """What an engine keeps of prompts that it has read.

    ========================  ==================================================================================
    none                      nothing
    prefix                    vLLM's own prefix cache, on the GPU
    lmcache-in-process        LMCache in the engine (`LMCacheConnectorV1`): the images of KServe 0.18 to 0.20
    lmcache-mp                LMCache's server beside the engine (`LMCacheMPConnector`): our image, KServe 0.21 on
    offload                   vLLM's `OffloadingConnector`: what `spec.kvCacheOffloading` stands for
    ========================  ==================================================================================
    """

    mode: Mode = "prefix"
    cpu_gib: Annotated[float, Field(ge=0, le=16_384)] = 0
    """GiB of the host's memory: of each GPU's worker for lmcache-in-process, of the whole pod otherwise."""
    disk_gib: Annotated[float, Field(ge=0, le=1_048_576)] = 0
    """GiB on the node's disk; goes with the pod. As for `cpu_gib`, per worker for lmcache-in-process."""
    remote_url: Annotated[
        str,
        matching(
            r"^((lm|redis|rediss)://[A-Za-z0-9][^\s/]*:\d{1,5}/?)?$", "lm://host:port or redis://host:port"
        ),
    ] = ""
    """A cache that replicas share; for lmcache-in-process."""
    chunk_size: Annotated[int, Field(ge=16, le=65_536)] = CHUNK
    """Tokens: a prompt shorter than a chunk is never reused by LMCache."""
    eviction: Literal["lru", "arc"] = "lru"
    """What `offload` drops first."""

    @model_validator(mode="after")
    def _together(self) -> KvReuse:
        if self.mode in ("none", "prefix"):
            sizes = {"cpu_gib": self.cpu_gib, "disk_gib": self.disk_gib, "remote_url": self.remote_url}
            if given := [name for name, size in sizes.items() if size]:
                raise SpecError(
                    f"{given[0]} is set, but mode {self.mode} keeps nothing outside the GPU",
                    "Take it out, or choose lmcache-mp, lmcache-in-process or offload.",
                )
        elif self.cpu_gib < 0.1:
            raise SpecError(
                f"cpu_gib is {self.cpu_gib:g}, and mode {self.mode} needs room in the host's memory",
                "Give the size; `goldpath kv-cache --model MODEL --reuse-tokens N` says how much N tokens take.",
            )
        if self.remote_url and self.mode != "lmcache-in-process":
            raise SpecError(
                f"remote_url is for lmcache-in-process, not for {self.mode}", "Take it out, or use disk_gib."
            )
        return self

    @property
    def lmcache(self) -> bool:
        """Whether LMCache has a part in it."""
        return self.mode.startswith("lmcache")

    def pod_gib(self, workers: int) -> float:
        """GiB of a pod's memory that it takes."""
        return self.cpu_gib * (workers if self.mode == "lmcache-in-process" else 1)

    @classmethod
    def for_tokens(
        cls, mode: Mode, architecture: Architecture, tokens: int, *, workers: int = 1, disk: bool = False
    ) -> KvReuse:
        """The reuse that keeps so many tokens.

        Args:
            mode: one that keeps something outside the GPU.
            architecture: of the model.
            tokens: over all prompts that share nothing.
            workers: GPUs that share each layer.
            disk: as much again on disk.

        Raises:
            SpecError: the model keeps states, or a number is wrong.
        """
        sizes = offload(architecture, tokens, tensor_parallel=workers)
        size = sizes.max_local_cpu_size if mode == "lmcache-in-process" else sizes.l1_size_gb
        return cls.parse({"mode": mode, "cpu_gib": size, "disk_gib": size if disk else 0})


class Scaling(Spec):
    """When replicas are added, by what vLLM tells Prometheus."""

    metric: Literal["waiting", "in-flight", "kv-cache"] = "waiting"
    """Requests that wait; requests that wait or run; percentage of the GPU's KV cache in use."""
    target: Annotated[float, Field(gt=0, le=100_000)] = 4
    """Of the metric, for each replica; for kv-cache a percentage."""
    prometheus: Annotated[str, matching(r"^https?://\S+$", "the http:// address of a Prometheus")] = (
        "http://prometheus-operated.monitoring.svc:9090"
    )
    wake_query: str = ""
    """PromQL of requests that arrive at the gateway: what wakes a service from zero replicas. Its engine is gone by
    then, and with it vLLM's metrics."""
    idle_seconds: Annotated[int, Field(ge=30, le=86_400)] = 300
    """Without requests, before replicas are taken away."""

    @model_validator(mode="after")
    def _percentage(self) -> Scaling:
        if self.metric == "kv-cache" and self.target > 100:
            raise SpecError(f"target is {self.target:g} % of the KV cache", "Give at most 100, such as 80.")
        return self


class Canary(Spec):
    """Another model beside the one that serves, for a part of the requests."""

    revision: Annotated[str, matching(_REVISION, _REVISION_SAID)]
    """Its name; it stays with the pods when the canary is promoted, so they need not start again."""
    model_uri: str
    percent: Annotated[int, Field(ge=0, le=100)] = 10
    """Of the requests; 0: it can be probed and gets none."""
    replicas: Positive = 1

    @model_validator(mode="after")
    def _readable(self) -> Canary:
        if not self.revision:
            raise SpecError("revision is empty", "Name it, for instance v2.")
        storage_uri(self.model_uri)
        return self


class Prefill(Spec):
    """Pods of their own that read prompts, for an LLMInferenceService."""

    replicas: Positive = 1
    gpu: GpuRequest | None = None
    """None: the same as for the pods that answer."""


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
    revision: Annotated[str, matching(_REVISION, _REVISION_SAID)] = ""
    """Of the model that serves: the name of the canary that was promoted last."""
    kserve: Annotated[str, matching(r"^0\.(1[89]|[2-9]\d)$", "0.18 or a later release, such as 0.20")] = (
        "0.20"
    )
    runtime: Literal["", "goldpath-vllm", "kserve-huggingfaceserver"] = ""
    """Empty: KServe's for lmcache-in-process, else ours."""
    image: str = ""
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
    service_account: str = ""
    """Whose secrets read the model."""
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
        if self.canary and self.min_replicas < self.canary.replicas:
            raise SpecError(
                f"canary.replicas is {self.canary.replicas} and min_replicas {self.min_replicas}: KServe refuses a "
                "canary with more replicas than the model beside it",
                f"Set min_replicas to at least {self.canary.replicas}.",
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
