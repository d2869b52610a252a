"""Does this cluster take what our code renders? See the package's docstring, and docs/from-laptop-to-cluster.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldpath.core.errors import GoldpathError
from goldpath.core.kubernetes import ClusterError, Ref
from goldpath.training.manifests import runtime
from tests.cluster_contract.bench import Bench
from tests.cluster_contract.objects import (
    EXAMPLES,
    FILES,
    OTHERS,
    Manifest,
    moved,
    named,
    objects,
    restricted,
)

OF_THE_CLUSTER = {
    "ClusterTrainingRuntime",
    "ClusterServingRuntime",
    "LocalModelCache",
    "LocalModelNodeGroup",
    "DeviceClass",
}


def prepared(bench: Bench, found: list[Manifest]) -> list[Manifest]:
    return moved(found, bench.namespace, bench.suffix, OF_THE_CLUSTER)


def lacks_another(error: GoldpathError) -> bool:
    """Whether an admission webhook misses something that the object refers to, and that a dry run cannot make."""
    _, webhook, told = error.message.partition(" refused it: ")
    return bool(webhook) and any(said in told.lower() for said in ("not found", "does not exist"))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_the_server_takes_every_object_in_a_dry_run(bench: Bench, file: Path) -> None:
    refused, reasons = [], set()
    found = objects(file)
    if file.parent == OTHERS:
        found = [restricted(one) for one in found]
    there = [one for one in prepared(bench, found) if bench.kind(one)]
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
