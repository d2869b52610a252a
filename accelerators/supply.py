"""How many devices a cluster's nodes have for a request, each node by itself: a pod runs on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from goldpath.accelerators import allocation
from goldpath.accelerators.allocation import Amounts, Want
from goldpath.accelerators.devices import Found, devices, matches
from goldpath.accelerators.placement import GPU, Placement
from goldpath.accelerators.quantities import value
from goldpath.accelerators.render.claims import device_class, selectors_of
from goldpath.accelerators.requests import GpuRequest
from goldpath.accelerators.terms import NVIDIA, Term

Object = dict[str, Any]
MIG = "nvidia.com/mig-"
SHARED = ".shared"
_NONE = "no device fits"


class Supply(NamedTuple):
    """What there is for one request."""

    devices: int | None
    """On the nodes that have all of it, in use or not; 0: no node has, None: that cannot be told."""
    lacking: str = ""
    """Why no node has."""


class Inventory(NamedTuple):
    """What a cluster has, read once for all requests."""

    nodes: list[Object]
    found: list[Found]
    counters: Amounts
    selectors: dict[str, list[str]]
    """CEL of each DeviceClass."""


def inventory(nodes: list[Object], slices: list[Object], classes: list[Object]) -> Inventory:
    """Read Nodes, ResourceSlices and DeviceClasses."""
    selectors = {
        one["metadata"]["name"]: [
            selector["cel"]["expression"]
            for selector in one.get("spec", {}).get("selectors") or ()
            if "cel" in selector
        ]
        for one in classes
    }
    return Inventory(nodes, devices(slices), allocation.counters(slices), selectors)


def gpus(node: Object) -> dict[str, int]:
    """The extended resources of NVIDIA's device plugin that a node offers, with their counts."""
    offered = node.get("status", {}).get("allocatable", {})
    counts = {name: int(value(str(count))) for name, count in offered.items() if _is_gpu(name)}
    return {name: count for name, count in counts.items() if count > 0}


def _is_gpu(name: str) -> bool:
    return name in (GPU, GPU + SHARED) or name.startswith(MIG)


def on_nodes(made: Placement, nodes: list[Object]) -> Supply:
    """Devices of the device plugin on the nodes that the placement may use and that have enough by themselves."""
    (name, wanted), *_ = made.limits.items()
    counts = [gpus(node).get(name, 0) for node in nodes if _chosen(made, node)]
    enough = sum(count for count in counts if count >= int(wanted))
    return Supply(enough, "" if enough else _few(int(wanted), max(counts, default=0)))


def in_slices(made: Placement, stock: Inventory) -> Supply:
    """Devices of DRA on the nodes that can give the whole request at once."""
    request = made.request
    answers = [_answers(term, stock) for term in request.terms]
    served: dict[str, list[int]] = {}
    unsure: dict[str, list[int]] = {}
    most = [0] * len(answers)
    for name, reached in _reached(made, stock).items():
        here = [[at for at in reached if fits[at] is not False] for fits in answers]
        most = [max(one, len(fitting)) for one, fitting in zip(most, here, strict=True)]
        surely = [[at for at in fitting if fits[at]] for fitting, fits in zip(here, answers, strict=True)]
        answer = _fits(request, reached, surely, stock)
        if answer is False and here != surely:
            answer = None if _fits(request, reached, here, stock) is not False else False
        if answer is not False:
            (served if answer else unsure)[name] = reached
    if not served and not unsure:
        several = any(found.device["allowMultipleAllocations"] for found in stock.found)
        return Supply(0, _lacking(request, most, several))
    there = {at for reached in [*served.values(), *unsure.values()] for at in reached}
    if not served or any(fits[at] is None for fits in answers for at in there):
        return Supply(None)
    given = {at for reached in served.values() for at in reached}
    return Supply(min(sum(1 for at in given if fits[at]) for fits in answers))


def _answers(term: Term, stock: Inventory) -> list[bool | None]:
    """Whether each device does for the term; None where its CEL cannot be told."""
    expressions = [*stock.selectors.get(device_class(term), ()), *selectors_of(term)]
    taken = taken_of(term)
    return [allocation.has_room(found, taken) and matches(expressions, found.device) for found in stock.found]


def taken_of(term: Term) -> dict[str, Any]:
    """Capacity that a term takes of each device."""
    return {one.name: value(one.quantity) for one in term.capacity if one.operator == "="}


def _fits(request: GpuRequest, reached: list[int], fitting: list[list[int]], stock: Inventory) -> bool | None:
    wants = [
        Want(term.count, taken_of(term), tuple(reached.index(at) for at in chosen))
        for term, chosen in zip(request.terms, fitting, strict=True)
    ]
    return allocation.fits([stock.found[at] for at in reached], wants, request.same, stock.counters)


def _lacking(request: GpuRequest, most: list[int], several: bool) -> str:
    """Why no node has it; `several`: some devices are for more than one user, so that their number says little."""
    if not all(most):
        return _NONE
    if len(most) == 1 and most[0] < request.count and not several:
        return _few(request.count, most[0])
    together = f"{request.count} of them" if len(most) == 1 else "all of them at once"
    same = ", ".join(name.removeprefix(f"{NVIDIA}/") for name in request.same)
    return f"no node has {together}" + (f" with the same {same}" if same else "")


def _few(wanted: int, most: int) -> str:
    return f"no node has {wanted} of them, the most is {most}" if most else _NONE


def _reached(made: Placement, stock: Inventory) -> dict[str, list[int]]:
    """The devices that each node reaches, of those nodes that the placement may use."""
    known = {node["metadata"]["name"]: node for node in stock.nodes}
    names = dict.fromkeys(
        [*known, *(one.where["nodeName"] for one in stock.found if one.where.get("nodeName"))]
    )
    reached: dict[str, list[int]] = {}
    for name in names or [""]:  # devices that all nodes reach, and no node known
        node = known.get(name, {"metadata": {"name": name}})
        if _chosen(made, node):
            reached[name] = [at for at, found in enumerate(stock.found) if _reaches(node, found.where)]
    return reached


def _reaches(node: Object, where: dict[str, Any]) -> bool:
    if where.get("nodeName"):
        return bool(where["nodeName"] == node["metadata"]["name"])
    terms = (where.get("nodeSelector") or {}).get("nodeSelectorTerms") or ()
    return bool(where.get("allNodes")) or any(_selects(term, node) for term in terms)


def _selects(term: dict[str, Any], node: Object) -> bool:
    labels, name = node["metadata"].get("labels") or {}, {"metadata.name": node["metadata"]["name"]}
    conditions = [(labels, one) for one in term.get("matchExpressions") or ()]
    conditions += [(name, one) for one in term.get("matchFields") or ()]
    return bool(conditions) and all(_fulfils(values, one) for values, one in conditions)


def _chosen(made: Placement, node: Object) -> bool:
    """Whether the placement's selector and expressions let it onto the node."""
    labels = node["metadata"].get("labels") or {}
    fits = all(labels.get(key) == want for key, want in made.node_selector.items())
    return fits and all(_fulfils(labels, one) for one in made.node_expressions)


def _fulfils(labels: dict[str, str], expression: dict[str, Any]) -> bool:
    given, values = labels.get(expression["key"]), list(expression.get("values") or ())
    checks: dict[str, Callable[[], bool]] = {
        "In": lambda: given in values,
        "NotIn": lambda: given not in values,
        "Exists": lambda: given is not None,
        "DoesNotExist": lambda: given is None,
        "Gt": lambda: given is not None and int(given) > int(values[0]),
        "Lt": lambda: given is not None and int(given) < int(values[0]),
    }
    return checks[str(expression["operator"])]()
