"""Does this cluster take what our code renders? See the package's docstring, and docs/from-laptop-to-cluster.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from goldpath.accelerators import cluster as gpus
from goldpath.accelerators.requests import GpuRequest, parse
from goldpath.core.errors import GoldpathError
from goldpath.core.kubernetes import ClusterError, Ref
from goldpath.training.manifests import runtime
from tests.cluster_contract.bench import Bench
from tests.cluster_contract.objects import EXAMPLES, FILES, GPU_EXAMPLES, Manifest, moved, named, objects

OF_THE_CLUSTER = {
    "ClusterTrainingRuntime",
    "ClusterServingRuntime",
    "LocalModelCache",
    "LocalModelNodeGroup",
    "DeviceClass",
}
SCHEDULED_S = 30
DRA = "resource.k8s.io/v1"


def prepared(bench: Bench, found: list[Manifest]) -> list[Manifest]:
    return moved(found, bench.namespace, bench.suffix, OF_THE_CLUSTER)


def lacks_another(error: GoldpathError) -> bool:
    """Whether an admission webhook misses something that the object refers to, and that a dry run cannot make."""
    _, webhook, told = error.message.partition(" refused it: ")
    return bool(webhook) and any(said in told.lower() for said in ("not found", "does not exist"))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_the_server_takes_every_object_in_a_dry_run(bench: Bench, file: Path) -> None:
    refused, reasons = [], set()
    there = [one for one in prepared(bench, objects(file)) if bench.kind(one)]
    for one in there:
        try:
            bench.cluster.dry_run(one)
        except ClusterError as error:
            if lacks_another(error):
                bench.skipped[f"{one['kind']}: {error.message}"] += 1
                reasons.add(error.message)
            else:
                refused.append(error.message)
        else:
            bench.done[f"dry run, {one['kind']} ({one['apiVersion']})"] += 1
    assert not refused
    if not there:
        kinds = sorted({one["kind"] for one in objects(file)})
        pytest.skip(f"the cluster lacks {', '.join(kinds)}")
    if len(reasons) == len(there):
        pytest.skip("; ".join(sorted(reasons)))


def test_the_server_refuses_what_is_wrong(bench: Bench) -> None:
    """Else the dry runs would say nothing."""
    wrong: Manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wrong"}}
    wrong["spec"] = {"containers": [{"name": "main", "image": "x"}], "resourceClaim": []}
    with pytest.raises(ClusterError):
        bench.cluster.dry_run(wrong)


@pytest.mark.parametrize("file", EXAMPLES, ids=named)
def test_an_example_is_created_and_removed(bench: Bench, file: Path) -> None:
    found = objects(file)
    there = [one for one in prepared(bench, [*runtimes_of(found), *found]) if bench.kind(one)]
    if not there:
        pytest.skip("the cluster has none of its kinds")
    made: list[Ref] = []
    try:
        for one in there:
            try:
                live = bench.create(one)
            except ClusterError as error:
                if not lacks_another(error):
                    raise
                bench.skipped[f"{one['kind']}: {error.message}"] += 1
                continue
            made.append(Ref.of(live))
            assert live["metadata"]["uid"]
            assert bench.cluster.get(made[-1])
    finally:
        left = [str(ref) for ref in reversed(made) if not bench.remove(ref)]
    assert not left
    assert not [ref for ref in made if bench.cluster.get(ref)]
    bench.done["created and removed"] += len(made)


def runtimes_of(found: list[Manifest]) -> list[Manifest]:
    """Those of ours that jobs refer to: Trainer's webhook wants them there, and the cluster may lack them."""
    known = {one["metadata"]["name"]: one for one in runtime.deployed().values()}
    names = [one["spec"].get("runtimeRef", {}).get("name", "") for one in found if one["kind"] == "TrainJob"]
    return [known[name] for name in dict.fromkeys(names) if name in known]


@pytest.mark.parametrize("file", GPU_EXAMPLES, ids=named)
def test_a_gpu_example_is_scheduled_where_the_cluster_has_its_devices(bench: Bench, file: Path) -> None:
    found = objects(file)
    pods = [one for one in found if one["kind"] == "Pod"]
    if not pods or not any(one["apiVersion"] == DRA for one in found):
        pytest.skip("no Pod with claims")
    lists = [listed(bench, *what) for what in (("v1", "Node"), (DRA, "ResourceSlice"), (DRA, "DeviceClass"))]
    if not lists[1]:
        skip(bench, "scheduling: the cluster has no ResourceSlices", len(pods))
    request = parse(yaml.safe_load(file.read_text())["gpu"])
    if reason := cannot_fit(request, lists):
        skip(bench, f"scheduling: {reason}", len(pods))
    busy = in_use(bench)
    made: list[Ref] = []
    try:
        for one in prepared(bench, found):
            made.append(Ref.of(one))
            bench.create(one)
            if one["kind"] == "Pod" and not bench.controllers:
                make_claims(bench, one, found, made)
        told = {one["metadata"]["name"]: scheduled(bench, one["metadata"]["name"]) for one in pods}
    finally:
        left = [str(ref) for ref in reversed(made) if not bench.remove(ref)]
    assert not left
    if not any(told.values()):
        skip(bench, "scheduling: no scheduler answers", len(pods))
    wrong = {name: said for name, said in told.items() if said != "scheduled"}
    if wrong and (busy or request.same):
        skip(bench, f"scheduling: {next(iter(wrong.values()))}", len(wrong))
    assert not wrong
    bench.done["scheduled"] += len(pods)


def skip(bench: Bench, reason: str, count: int) -> None:
    bench.skipped[reason] += count
    pytest.skip(reason)


def listed(bench: Bench, version: str, kind: str) -> list[Manifest]:
    return bench.cluster.find(version, kind) if bench.cluster.has(version, kind) else []


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


def scheduled(bench: Bench, name: str) -> str:
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

    bench.until(look, SCHEDULED_S if bench.controllers else SCHEDULED_S / 3)
    return told[0]
