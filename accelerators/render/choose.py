"""Which of a cluster's paths serves a request."""

from __future__ import annotations

from goldpath.accelerators.placement import ClusterPaths, Path, Placement
from goldpath.accelerators.render import claims, plugin
from goldpath.accelerators.requests import GpuRequest
from goldpath.core.errors import SpecError


def explain(request: GpuRequest, cluster: ClusterPaths) -> dict[Path, str]:
    """Each path of the cluster and why it cannot serve the request; empty where it can."""
    return {
        path: claims.refusal(request, cluster) if path is Path.DRA else plugin.refusal(request, path, cluster)
        for path in cluster.paths
    }


def place(request: GpuRequest, cluster: ClusterPaths, *, name: str, namespace: str = "") -> Placement:
    """What the request becomes on the first of the cluster's paths that can serve it.

    Args:
        request: not ``auto``, which the planner turns into one that says what it wants.
        cluster: its paths, the best first.
        name: of the workload; objects that belong to it are named after it.
        namespace: of the workload; empty leaves it to whoever creates the objects.

    Raises:
        SpecError: ``auto``, or no path can serve it: why each cannot.
    """
    if request.auto:
        raise SpecError(
            "auto says nothing that can be rendered", "Let `goldpath plan` choose, or name the GPU."
        )
    if request.none:
        return Placement(request=request)
    reasons = explain(request, cluster)
    path = next((path for path, reason in reasons.items() if not reason), None)
    if path is None:
        told = "; ".join(f"{path}: {reason}" for path, reason in reasons.items()) or "it has no GPUs"
        raise SpecError(
            f"this cluster cannot serve the GPU request {request} ({told})",
            "`goldpath doctor --gpus` lists what it can serve.",
        )
    made = (
        claims.placement(request, name, namespace)
        if path is Path.DRA
        else plugin.placement(request, path, cluster)
    )
    return made.model_copy(update={"tolerations": _tolerations(request, cluster)})


def _tolerations(request: GpuRequest, cluster: ClusterPaths) -> tuple[dict[str, str], ...]:
    nvidia = any(claims.device_class(term).endswith("nvidia.com") for term in request.terms)
    keys = [key for key in cluster.taints if nvidia or not key.startswith("nvidia.com/")]
    return tuple({"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys)
