"""What the kinds share: names, labels, security, probes."""

from __future__ import annotations

from typing import Any

from goldpath.accelerators.placement import Placement
from goldpath.core.errors import SpecError
from goldpath.serving.cluster import ClusterServeSpec

Manifest = dict[str, Any]
LABELS = {"app.kubernetes.io/managed-by": "goldpath", "app.kubernetes.io/part-of": "goldpath"}
USER = 1000
"""Of our image and of KServe's."""


def metadata(name: str, namespace: str, annotations: dict[str, str] | None = None) -> Manifest:
    """Name, namespace where it is known, our labels, annotations where there are any."""
    where = {"namespace": namespace} if namespace else {}
    return {
        "name": name,
        **where,
        "labels": dict(LABELS),
        **({"annotations": annotations} if annotations else {}),
    }


def check_placement(spec: ClusterServeSpec, placement: Placement) -> None:
    """Refuse a placement of another request: the engine's arguments come from the spec's.

    Raises:
        SpecError: they differ.
    """
    if placement.request != spec.gpu:
        raise SpecError(
            f"the placement is of {placement.request}, the spec asks for {spec.gpu}",
            "Place the request of the spec.",
        )


def pod_security() -> Manifest:
    """Of the pod, as Pod Security "restricted" wants it."""
    return {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def container_security(placement: Placement) -> Manifest:
    """Of the container. The root file system is read-only but where a GPU is put into the container: NVIDIA's CDI hook
    writes the linker's cache there (KServe leaves it writable for the same reason)."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": placement.request.none,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def resources(spec: ClusterServeSpec) -> Manifest:
    """CPU and memory, as much as is asked for and no more."""
    wanted = {"cpu": spec.cpu, "memory": spec.pod_memory}
    return {"requests": dict(wanted), "limits": dict(wanted)}


def probes(spec: ClusterServeSpec, path: str, port: int) -> Manifest:
    """Started within the deadline, then ready while it answers, then alive unless it hangs for long."""
    each = {
        "startupProbe": {"periodSeconds": 10, "failureThreshold": -(-spec.ready_seconds // 10)},
        "readinessProbe": {"periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {"periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 6},
    }
    return {name: {"httpGet": {"path": path, "port": port}, **times} for name, times in each.items()}


def predictor_deployment(name: str, revision: str = "") -> str:
    """The Deployment (and Service) that KServe makes of a predictor."""
    return f"{name}-{revision}-predictor" if revision else f"{name}-predictor"
