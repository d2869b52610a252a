"""What a cluster offers, and what a request becomes on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from goldpath.accelerators.requests import GpuRequest
from goldpath.core.spec import Result, Spec

GPU = "nvidia.com/gpu"
IMPLICIT = "deviceclass.resource.kubernetes.io/"
"""Before the name of a DeviceClass: the extended resource that each class has without saying so."""


class Path(StrEnum):
    """One way in which a cluster hands out GPUs. A cluster can have several at once, on the same or other nodes."""

    EXTENDED = "dra-extended"
    """DRA under the names of extended resources: ``DeviceClass.spec.extendedResourceName``."""
    PLUGIN = "plugin"
    """Whole GPUs from NVIDIA's device plugin: ``nvidia.com/gpu``."""
    MIG_SINGLE = "plugin-mig-single"
    """The plugin's MIG strategy `single`: all slices of a node are alike and called ``nvidia.com/gpu``."""
    MIG_MIXED = "plugin-mig-mixed"
    """The plugin's MIG strategy `mixed`: ``nvidia.com/mig-1g.10gb``."""
    SHARED = "plugin-time-slicing"
    """The plugin's time-slicing under the names of whole devices."""
    SHARED_RENAMED = "plugin-time-slicing-renamed"
    """The same with `renameByDefault`: ``nvidia.com/gpu.shared``."""
    MPS = "plugin-mps"
    """The plugin's MPS (equal parts of a GPU) under the name of whole GPUs."""
    MPS_RENAMED = "plugin-mps-renamed"
    """The same with `renameByDefault`."""
    DRA = "dra"
    """Dynamic resource allocation: ResourceClaims, resource.k8s.io/v1 (Kubernetes 1.34)."""


class ClusterPaths(Spec):
    """The paths of a cluster, the best first, and what is known of its nodes and classes."""

    paths: tuple[Path, ...]
    products: tuple[str, ...] = ()
    """Values of the node label ``nvidia.com/gpu.product``; none: not known, well-known ones are assumed."""
    resources: tuple[str, ...] = ()
    """Extended resources that nodes offer; none: not known, not checked."""
    classes: tuple[str, ...] = ()
    """Names of the DeviceClasses; none: not known, not checked."""
    extended: dict[str, str] = Field(default_factory=dict)
    """DeviceClass to its `extendedResourceName`, where it has one."""
    taints: tuple[str, ...] = (GPU,)
    """Keys of the taints on nodes with GPUs that pods have to tolerate."""


class Placement(Result):
    """What goes into a pod and what has to exist beside it; everything is empty for the request ``none``."""

    request: GpuRequest
    path: Path | None = None
    limits: dict[str, str] = Field(default_factory=dict)
    """Of the container."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    node_expressions: tuple[dict[str, Any], ...] = ()
    """`matchExpressions` that the node must fulfil, all of them."""
    tolerations: tuple[dict[str, str], ...] = ()
    pod_claims: tuple[dict[str, str], ...] = ()
    """The pod's `resourceClaims`."""
    container_claims: tuple[dict[str, str], ...] = ()
    """The container's `resources.claims`."""
    objects: tuple[dict[str, Any], ...] = ()
    """To be created first: a ResourceClaimTemplate, which belongs to the workload, or a ResourceClaim, which
    belongs to all who share it and is adopted where it exists."""

    @property
    def shares(self) -> bool:
        """Whether its claim outlives the workload, since others use it too."""
        return any(item["kind"] == "ResourceClaim" for item in self.objects)
