"""What a cluster can serve: a pure function from its nodes, ResourceSlices and DeviceClasses to a report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from goldpath.accelerators.devices import Found
from goldpath.accelerators.placement import GPU, ClusterPaths, Path, Placement
from goldpath.accelerators.products import PRODUCT_LABEL
from goldpath.accelerators.profiles import PROFILES
from goldpath.accelerators.render.choose import explain, place
from goldpath.accelerators.render.plugin import SLICES_LABEL
from goldpath.accelerators.requests import GpuRequest, parse
from goldpath.accelerators.supply import MIG, SHARED, Inventory, gpus, in_slices, inventory, on_nodes
from goldpath.core.spec import Result

Object = dict[str, Any]


class Service(Result):
    """Whether and how the cluster serves one request."""

    request: str
    path: Path | None = None
    """None where no path can."""
    devices: int | None = None
    """How many such devices are on the nodes that have the whole request by themselves, busy ones and possible slices
    too; None where that cannot be told."""
    note: str = ""
    """What else it needs; or why no path can serve it."""


class ClusterReport(Result):
    """What a cluster has, and what it can serve."""

    nodes: int
    """Nodes with GPUs."""
    cluster: ClusterPaths
    services: tuple[Service, ...]


def report(
    nodes: list[Object], slices: list[Object], classes: list[Object], wanted: Iterable[str] = ()
) -> ClusterReport:
    """Read a cluster's objects, as its API gives them.

    Args:
        nodes: v1 Nodes.
        slices: resource.k8s.io/v1 ResourceSlices.
        classes: resource.k8s.io/v1 DeviceClasses.
        wanted: requests to look at; by default one of each kind and one for each profile, product and class found.

    Raises:
        SpecError: one of `wanted` is no request.
    """
    stock = inventory(nodes, slices, classes)
    cluster = paths(nodes, slices, classes)
    requests = [parse(text) for text in wanted] or _usual(cluster, stock.found, classes)
    with_gpus = {node["metadata"]["name"] for node in nodes if gpus(node)}
    with_gpus |= {one["spec"]["nodeName"] for one in slices if one["spec"].get("nodeName")}
    return ClusterReport(
        nodes=len(with_gpus),
        cluster=cluster,
        services=tuple(_service(request, cluster, stock) for request in requests),
    )


def paths(nodes: list[Object], slices: list[Object], classes: list[Object]) -> ClusterPaths:
    """The paths of the cluster: DRA behind plain names first, then the device plugin's, then claims."""
    there: set[Path] = set()
    for node in nodes:
        there |= _of_node(gpus(node), node["metadata"].get("labels", {}))
    with_name = {
        one["metadata"]["name"]: one["spec"]["extendedResourceName"]
        for one in classes
        if one.get("spec", {}).get("extendedResourceName")
    }
    if slices and classes:
        there |= {Path.DRA} | ({Path.EXTENDED} if with_name else set())
    labels = [node["metadata"].get("labels", {}).get(PRODUCT_LABEL) for node in nodes]
    taints = {
        taint["key"]
        for node in nodes
        for taint in node.get("spec", {}).get("taints", ())
        if taint["effect"] == "NoSchedule" and "gpu" in taint["key"]
    }
    return ClusterPaths(
        paths=tuple(path for path in Path if path in there),
        products=tuple(sorted({label for label in labels if label})),
        resources=tuple(sorted({name for node in nodes for name in gpus(node)})),
        classes=tuple(sorted(one["metadata"]["name"] for one in classes)),
        extended=dict(sorted(with_name.items())),
        taints=tuple(sorted(taints | {GPU})),
    )


def _of_node(gpus: dict[str, int], labels: dict[str, str]) -> set[Path]:
    there: set[Path] = set()
    for name in gpus:
        plain = name.removesuffix(SHARED)
        strategy = labels.get(f"{plain}.sharing-strategy", "")
        if name.startswith(MIG):
            there.add(Path.MIG_MIXED)
        if name.endswith(SHARED):
            there.add(Path.MPS_RENAMED if strategy == "mps" else Path.SHARED_RENAMED)
        elif strategy in ("mps", "time-slicing"):
            there.add(Path.MPS if strategy == "mps" else Path.SHARED)
        elif name == GPU:
            there.add(Path.MIG_SINGLE if SLICES_LABEL in labels else Path.PLUGIN)
    return there


def _usual(cluster: ClusterPaths, found: list[Found], classes: list[Object]) -> list[GpuRequest]:
    """One request of each kind, and one for each profile and class that is there."""
    in_names = {name.removeprefix(MIG).removesuffix(SHARED) for name in cluster.resources}
    in_labels = {label.partition("-MIG-")[2].removesuffix("-SHARED") for label in cluster.products}
    in_slices = {
        str(one.device["attributes"].get("gpu.nvidia.com", {}).get("profile", "")).replace("+", ".")
        for one in found
    }
    profiles = sorted((in_names | in_labels | in_slices) & PROFILES, key=_by_size) or ["1g.10gb"]
    texts = ["whole", "shared", "mps", "mps:50%", *(f"mig:{profile}" for profile in profiles)]
    texts += [f"mig:{profiles[0]}.shared", f"whole+mig:{profiles[0]}"]
    texts += [f"dra:{one['metadata']['name']}" for one in classes]
    return [parse(text) for text in texts]


def _by_size(profile: str) -> tuple[int, str]:
    return int(profile.partition(".")[2].partition("gb")[0]), profile


def _service(request: GpuRequest, cluster: ClusterPaths, stock: Inventory) -> Service:
    if request.auto or request.none:
        return Service(request=str(request), note="" if request.none else "the planner turns it into another")
    reasons = explain(request, cluster)
    for path in (path for path, reason in reasons.items() if not reason):
        alone = cluster.model_copy(update={"paths": (path, *(one for one in cluster.paths if one != path))})
        made = place(request, alone, name="doctor")
        by_claim = path in (Path.DRA, Path.EXTENDED)
        supply = in_slices(made, stock) if by_claim else on_nodes(made, stock.nodes)
        if supply.devices != 0:
            return Service(request=str(request), path=path, devices=supply.devices, note=_needs(made))
        reasons[path] = supply.lacking
    return Service(request=str(request), note=_each_once(reasons) or "no node and no ResourceSlice has a GPU")


def _each_once(reasons: dict[Path, str]) -> str:
    """Why no path serves it; paths with one reason stand together."""
    alike: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        alike.setdefault(reason, []).append(str(path))
    if len(alike) == 1 < len(reasons):
        return f"on every path: {next(iter(alike))}"
    return "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in alike.items())


def _needs(made: Placement) -> str:
    """What the objects of the API do not show."""
    if made.path is Path.EXTENDED:
        return "the feature gate DRAExtendedResource (on by default from Kubernetes 1.36)"
    configs = [item["spec"].get("devices", {}).get("config", ()) for item in made.objects]
    strategies = {one["opaque"]["parameters"]["sharing"]["strategy"] for config in configs for one in config}
    gates = {"MPS": "MPSSupport", "TimeSlicing": "TimeSlicingSettings"}
    return ", ".join(f"the DRA driver's feature gate {gates[name]}" for name in sorted(strategies))
