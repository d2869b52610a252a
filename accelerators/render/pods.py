"""Placements in pods: every consumer has a pod's specification in it somewhere."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from goldpath.accelerators.placement import Placement
from goldpath.core.errors import SpecError

Manifest = dict[str, Any]


def pod(manifest: Manifest, placement: Placement, containers: Iterable[str] = ()) -> list[Manifest]:
    """A plain Pod, after the objects that it needs.

    Args:
        manifest: the Pod, without GPUs.
        placement: of its request.
        containers: names of those that get the devices, the first one by default. Several get the same devices, which
            takes claims.

    Raises:
        SpecError: a container is missing, has GPUs already, or the path cannot give devices to several containers.
    """
    made = deepcopy(manifest)
    spec = made["spec"]
    by_name = {container["name"]: container for container in spec["containers"]}
    names = list(containers) or list(by_name)[:1]
    if missing := [name for name in names if name not in by_name]:
        raise SpecError(f"the pod has no container {missing[0]}", f"It has {', '.join(by_name)}.")
    if placement.limits and len(names) > 1:
        raise SpecError(
            f"{placement.path} gives each container devices of its own, so {' and '.join(names)} cannot share them",
            "Name one container, or use DRA (a request such as shared;share=NAME).",
        )
    for name in names:
        give(by_name[name], placement)
    place_pod(spec, placement)
    return [*map(deepcopy, placement.objects), made]


def inside(manifest: Manifest, key: str) -> Manifest:
    """The mapping under `key`, made where it is missing or null: to the API server both are the same."""
    if manifest.get(key) is None:
        manifest[key] = {}
    found: Manifest = manifest[key]
    return found


def give(container: Manifest, placement: Placement) -> None:
    """Add limits and claims to a container, in place.

    Raises:
        SpecError: it asks for GPUs already.
    """
    if not placement.limits and not placement.container_claims:
        return
    resources = inside(container, "resources")
    asked_for = [*(resources.get("limits") or {}), *(resources.get("requests") or {})]
    taken = [name for name in asked_for if _is_gpu(name) or name in placement.limits]
    if taken or resources.get("claims"):
        asked = taken[0] if taken else "a claim"
        raise SpecError(
            f"the container {container.get('name', '')} asks for {asked} itself",
            "Take that out of the manifest: the GPU request says it.",
        )
    if placement.limits:
        inside(resources, "limits").update(placement.limits)
    if placement.container_claims:
        resources["claims"] = [dict(claim) for claim in placement.container_claims]


def place_pod(spec: Manifest, placement: Placement) -> None:
    """Add the pod's claims, node selector, affinity and tolerations to its specification, in place.

    Raises:
        SpecError: it has a claim of that name, or selects other nodes.
    """
    if placement.pod_claims:
        names = {claim["name"] for claim in placement.pod_claims}
        if clash := sorted(names & {claim["name"] for claim in spec.get("resourceClaims") or ()}):
            raise SpecError(f"the pod has a resource claim {clash[0]} of its own", "Rename it.")
        spec["resourceClaims"] = [*(spec.get("resourceClaims") or ()), *map(dict, placement.pod_claims)]
    for key, value in placement.node_selector.items():
        selector = inside(spec, "nodeSelector")
        if selector.setdefault(key, value) != value:
            raise SpecError(
                f"the pod selects nodes with {key}={selector[key]}, the GPU request {placement.request} needs {value}",
                "Take the node selector out of the manifest.",
            )
    _require(spec, placement)
    have = spec.get("tolerations") or []
    if missing := [dict(one) for one in placement.tolerations if one not in have]:
        spec["tolerations"] = [*have, *missing]


def _require(spec: Manifest, placement: Placement) -> None:
    """Require the expressions of a node: terms are alternatives, so each gets all of them."""
    if not placement.node_expressions:
        return
    affinity = inside(inside(spec, "affinity"), "nodeAffinity")
    required = inside(affinity, "requiredDuringSchedulingIgnoredDuringExecution")
    required["nodeSelectorTerms"] = required.get("nodeSelectorTerms") or [{}]
    for term in required["nodeSelectorTerms"]:
        expressions = [deepcopy(one) for one in placement.node_expressions]
        term["matchExpressions"] = [*(term.get("matchExpressions") or ()), *expressions]


def _is_gpu(name: str) -> bool:
    return name.startswith(("nvidia.com/gpu", "nvidia.com/mig-", "deviceclass.resource.kubernetes.io/"))
