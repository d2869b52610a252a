"""Whether the cluster's scheduler gives a pod the devices that it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from goldpath.accelerators import cluster as gpus
from goldpath.accelerators.requests import GpuRequest
from goldpath.core.kubernetes import Ref
from tests.cluster_contract.bench import Bench, Manifest
from tests.cluster_contract.objects import moved

SCHEDULED_S = 30
SOON_S = 3
"""Seconds after which a pod that gets no devices counts as one that will not."""
DRA = "resource.k8s.io/v1"
BUS = "resource.kubernetes.io/pciBusID"


def skip(bench: Bench, reason: str, count: int) -> None:
    bench.skipped[reason] += count
    pytest.skip(reason)


def listed(bench: Bench, version: str, kind: str) -> list[Manifest]:
    return bench.cluster.find(version, kind) if bench.cluster.has(version, kind) else []


def read(bench: Bench) -> list[list[Manifest]]:
    """Nodes, ResourceSlices and DeviceClasses."""
    return [listed(bench, *what) for what in (("v1", "Node"), (DRA, "ResourceSlice"), (DRA, "DeviceClass"))]


def tried(
    bench: Bench,
    claims: list[Manifest],
    pods: list[Manifest],
    lists: list[list[Manifest]],
    seconds: float | None = None,
) -> dict[str, str]:
    """What the scheduler says of pods that use these claims (see `scheduled`), by name; nothing is left."""
    made: list[Ref] = []
    try:
        for one in moved([*claims, *pods], bench.namespace, bench.suffix, set()):
            made.append(Ref.of(one))
            bench.create(one)
            if one["kind"] == "Pod" and not bench.controllers:
                make_claims(bench, one, claims, made)
        told = {one["metadata"]["name"]: scheduled(bench, one["metadata"]["name"], seconds) for one in pods}
        assert not crowded(bench, lists[1])
    finally:
        left = [str(ref) for ref in reversed(made) if not bench.remove(ref)]
    assert not left
    assert bench.until(lambda: None if own_claims(bench) else True, bench.patience) or not bench.controllers
    return told


def own_claims(bench: Bench) -> list[Manifest]:
    return bench.cluster.find(DRA, "ResourceClaim") if bench.cluster.has(DRA, "ResourceClaim") else []


def cannot_fit(request: GpuRequest, lists: list[list[Manifest]]) -> str:
    (service,) = gpus.report(*lists, wanted=[str(request)]).services
    if service.path is None:
        return f"{request}: {service.note}"
    short = service.devices is not None and service.devices < max(term.count for term in request.terms)
    return f"{request}: the cluster has {service.devices} such devices" if short else ""


def in_use(bench: Bench) -> bool:
    """Whether others hold devices, so that a pod may wait with good reason."""
    claims = bench.call("GET", f"/apis/{DRA}/resourceclaims").get("items") or []
    return any((one.get("status") or {}).get("allocation") for one in claims)


def make_claims(bench: Bench, pod: Manifest, found: list[Manifest], made: list[Ref]) -> None:
    """Do what the controller of claims does, where there is none: a claim of the pod's own from each template."""
    templates = {one["metadata"]["name"]: one for one in found if one["kind"] == "ResourceClaimTemplate"}
    known: list[dict[str, Any]] = []
    for claim in pod["spec"].get("resourceClaims", ()):
        template = templates.get(claim.get("resourceClaimTemplateName", ""))
        if template is None:
            continue
        name = f"{pod['metadata']['name']}-{claim['name']}"
        metadata = {"name": name, "namespace": bench.namespace}
        one = {"apiVersion": DRA, "kind": "ResourceClaim", "metadata": metadata, **template["spec"]}
        made.append(Ref.of(one))
        bench.create(one)
        known.append({"name": claim["name"], "resourceClaimName": name})
    if known:

        def tell(now: Manifest) -> None:
            now.setdefault("status", {})["resourceClaimStatuses"] = known

        bench.cluster.change(Ref.of(pod), tell, part="status")


def scheduled(bench: Bench, name: str, seconds: float | None = None) -> str:
    """`scheduled`, or why not in the scheduler's words; empty where none answers."""
    told = [""]

    def look() -> str | None:
        pod = bench.cluster.get(Ref("v1", "Pod", name)) or {}
        for one in (pod.get("status") or {}).get("conditions") or []:
            if one["type"] == "PodScheduled":
                told[0] = (
                    "scheduled" if one["status"] == "True" else str(one.get("message") or one.get("reason"))
                )
        return "scheduled" if told[0] == "scheduled" else None

    bench.until(look, seconds or (SCHEDULED_S if bench.controllers else SCHEDULED_S / 3))
    return told[0]


def not_offered(pods: list[Manifest], lists: list[list[Manifest]]) -> str:
    """Why no node can have a pod that asks for devices by plain names; empty where one can."""
    nodes, slices, classes = lists
    offered = {
        name for node in nodes for name, count in node["status"]["allocatable"].items() if count != "0"
    }
    if slices:
        offered |= {one["spec"].get("extendedResourceName") for one in classes}
    asked = {
        name
        for pod in pods
        for container in pod["spec"]["containers"]
        for name in container.get("resources", {}).get("limits", {})
        if "/" in name
    }
    return (
        f"no node and no DeviceClass offers {', '.join(sorted(asked - offered))}" if asked - offered else ""
    )


def crowded(bench: Bench, slices: list[Manifest]) -> list[str]:
    """GPUs that were given out as two things at once, as the one for CUDA and for vfio-pci, say, which are one card."""
    known = {
        (one["spec"]["pool"]["name"], device["name"]): device.get("attributes", {})
        for one in slices
        for device in one["spec"].get("devices") or ()
    }
    taken: dict[str, set[str]] = {}
    for claim in own_claims(bench):
        for one in (
            ((claim.get("status") or {}).get("allocation") or {}).get("devices", {}).get("results", ())
        ):
            attributes = known.get((one["pool"], one["device"]), {})
            card = f"{one['pool']} {attributes.get(BUS, {}).get('string', one['device'])}"
            taken.setdefault(card, set()).add(attributes.get("type", {}).get("string", ""))
    return [card for card, kinds in taken.items() if len(kinds) > 1]
