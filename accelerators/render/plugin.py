"""The device plugin's paths, and DRA behind names that look like the plugin's: container limits.

A container gets devices of one kind from the plugin: each kind sets NVIDIA_VISIBLE_DEVICES for itself, and the kubelet
keeps one of them.
"""

from __future__ import annotations

from typing import Any

from goldpath.accelerators import products
from goldpath.accelerators.placement import GPU, IMPLICIT, ClusterPaths, Path, Placement
from goldpath.accelerators.render.claims import two_drivers
from goldpath.accelerators.requests import GpuRequest
from goldpath.accelerators.terms import Term

SLICES_LABEL = "nvidia.com/gpu.slices.gi"
"""Only on nodes whose slices pass for GPUs (MIG strategy `single`)."""
_SHARING = {
    Path.SHARED: ("time", "time-slicing"),
    Path.SHARED_RENAMED: ("time", "time-slicing"),
    Path.MPS: ("mps", "mps"),
    Path.MPS_RENAMED: ("mps", "mps"),
}
_RENAMED = (Path.SHARED_RENAMED, Path.MPS_RENAMED)


def refusal(request: GpuRequest, path: Path, cluster: ClusterPaths) -> str:
    """Why this path cannot serve the request; empty where it can."""
    if request.same:
        return "it cannot make devices match (same=)"
    if request.share:
        return "it does not let you say who shares a device (share=)"
    if path is Path.EXTENDED and two_drivers(request.terms):
        return "it cannot keep a GPU for CUDA and one for vfio-pci apart"
    if path is Path.EXTENDED:
        return next(filter(None, (_extended_refusal(term, cluster) for term in request.terms)), "")
    if len(request.terms) > 1:
        return "the device plugin gives a container devices of one kind"
    return _plugin_refusal(request, request.terms[0], path, cluster)


def _extended_refusal(term: Term, cluster: ClusterPaths) -> str:
    if term.sharing:
        return "a claim that the scheduler makes is never shared"
    if term.selectors or term.capacity or term.product:
        return "an extended resource chooses by class alone"
    if term.kind == "dra":
        known = not cluster.classes or term.device_class in cluster.classes
        return "" if known else f"there is no DeviceClass {term.device_class}"
    name = _resource(term)
    return "" if name in cluster.extended.values() else f"no DeviceClass has the extendedResourceName {name}"


def _plugin_refusal(request: GpuRequest, term: Term, path: Path, cluster: ClusterPaths) -> str:
    sliced = path is Path.MIG_MIXED or (path in _SHARING and Path.MIG_MIXED in cluster.paths)
    if term.kind == "dra":
        reason = "the device plugin knows no device classes"
    elif term.sharing != _SHARING.get(path, ("", ""))[0]:
        turns = {"time": "in turns", "mps": "at once (MPS)"}.get(term.sharing)
        reason = (
            f"the device plugin shares no GPU {turns}" if turns else "the device plugin hands out shares only"
        )
    elif request.interval or term.percent is not None or term.memory:
        reason = "the device plugin sets turns and limits by node, not by request"
    elif term.kind == "mig" and (term.sharing == "mps" or not (sliced or path is Path.MIG_SINGLE)):
        reason = f"the device plugin has no {'MPS on MIG' if term.sharing == 'mps' else 'MIG slices'}"
    elif term.kind == "whole" and path in (Path.MIG_SINGLE, Path.MIG_MIXED):
        reason = "the device plugin has MIG slices only"
    else:
        reason = _missing(term, path, cluster)
    return reason


def _missing(term: Term, path: Path, cluster: ClusterPaths) -> str:
    """What no node of the cluster has; empty where nothing is missing or nothing is known."""
    name = _limit(term, path)
    if cluster.resources and name not in cluster.resources:
        return f"no node offers {name}"
    if (term.product or path is Path.MIG_SINGLE) and not _labels(term, path, cluster):
        wanted = term.product or f"GPUs cut into {term.profile}"
        known = f", they are {', '.join(cluster.products)}" if cluster.products else ""
        return f"no node label {products.PRODUCT_LABEL} says {wanted}{known}"
    return ""


def placement(request: GpuRequest, path: Path, cluster: ClusterPaths) -> Placement:
    """Limits and the nodes to run on; `refusal` has said that the path can do it."""
    if path is Path.EXTENDED:
        names = [_resource(term, cluster) for term in request.terms]
        counts = dict.fromkeys(names, 0)
        for name, term in zip(names, request.terms, strict=True):
            counts[name] += term.count
        expressions = [one for term in request.terms for one in _nodes(term, path, cluster)[1]]
        return Placement(
            request=request,
            path=path,
            limits={name: str(count) for name, count in counts.items()},
            node_expressions=tuple(one for at, one in enumerate(expressions) if one not in expressions[:at]),
        )
    term = request.terms[0]
    selector, expressions = _nodes(term, path, cluster)
    return Placement(
        request=request,
        path=path,
        limits={_limit(term, path): str(term.count)},
        node_selector=selector,
        node_expressions=tuple(expressions),
    )


def _resource(term: Term, cluster: ClusterPaths | None = None) -> str:
    """The name of the devices, where each is handed out to one user."""
    if term.kind == "dra":
        named = cluster.extended.get(term.device_class) if cluster else None
        return named or IMPLICIT + term.device_class
    return f"nvidia.com/mig-{term.profile}" if term.kind == "mig" else GPU


def _limit(term: Term, path: Path) -> str:
    if path is Path.MIG_SINGLE:
        return GPU
    return _resource(term) + (".shared" if path in _RENAMED else "")


def _labels(term: Term, path: Path, cluster: ClusterPaths) -> tuple[str, ...]:
    if path is Path.MIG_SINGLE:
        return products.slice_labels(term.profile, cluster.products)
    suffix = "-SHARED" if path in (Path.SHARED, Path.MPS) else ""
    return products.labels(term.product, cluster.products, suffix)


def _nodes(term: Term, path: Path, cluster: ClusterPaths) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """A node selector and further expressions, as few as tell the right nodes from the cluster's others."""
    selector: dict[str, str] = {}
    expressions: list[dict[str, Any]] = []
    if term.kind == "dra":
        return selector, expressions
    if term.product or path is Path.MIG_SINGLE:
        values = _labels(term, path, cluster)
        if len(values) == 1:
            selector[products.PRODUCT_LABEL] = values[0]
        else:
            expressions.append({"key": products.PRODUCT_LABEL, "operator": "In", "values": list(values)})
    strategy = f"{_limit(term, path).removesuffix('.shared')}.sharing-strategy"
    # Both ways of sharing use the same names, and so do whole devices unless the shared ones are renamed.
    if path in (Path.SHARED, Path.MPS) or (path in _RENAMED and set(_RENAMED) <= set(cluster.paths)):
        selector[strategy] = _SHARING[path][1]
    elif path not in _SHARING and {Path.SHARED, Path.MPS} & set(cluster.paths):
        expressions.append({"key": strategy, "operator": "NotIn", "values": ["mps", "time-slicing"]})
    if term.kind == "whole" and Path.MIG_SINGLE in cluster.paths:
        expressions.append({"key": SLICES_LABEL, "operator": "DoesNotExist"})
    return selector, expressions
