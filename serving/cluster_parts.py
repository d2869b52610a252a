"""Parts of what can be asked of serving on a cluster: KV reuse, scaling, a canary, prefill; checks that specs share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.kv_offload import CHUNK, offload
from goldpath.accelerators.quantities import EXAMPLES, is_quantity, value
from goldpath.accelerators.requests import GpuRequest
from goldpath.core.errors import SpecError
from goldpath.core.spec import Spec, matching

REVISION = r"^([a-z]([-a-z0-9]{0,18}[a-z0-9])?)?$"
REVISION_SAID = "at most 20 lower-case letters, digits and dashes, the first a letter"
_URI = ("s3", "gs", "hf", "https", "pvc", "oci")

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
            r"^((lm|redis|rediss)://[A-Za-z0-9][^\s/@]*:\d{1,5}/?)?$",
            "lm://host:port or redis://host:port, without a password: it would stand in a ConfigMap",
        ),
    ] = ""
    """A cache that replicas share; for lmcache-in-process. A network policy says who may use it."""
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

    revision: Annotated[str, matching(REVISION, REVISION_SAID)]
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
