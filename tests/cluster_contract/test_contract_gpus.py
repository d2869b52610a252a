"""The scheduler gives what the examples ask for, and what `goldpath doctor --gpus` says that the cluster has."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from goldpath.accelerators import cluster as gpus
from goldpath.accelerators import supply
from goldpath.accelerators.placement import Path as Way
from goldpath.accelerators.render import place, pod
from goldpath.accelerators.requests import parse
from goldpath.core.errors import SpecError
from tests.cluster_contract.bench import Bench, Manifest
from tests.cluster_contract.objects import GPU_EXAMPLES, named, objects, restricted
from tests.cluster_contract.pods import IMAGE, pods_of
from tests.cluster_contract.scheduling import (
    DRA,
    SOON_S,
    cannot_fit,
    in_use,
    not_offered,
    read,
    skip,
    tried,
)

REQUESTS = (
    "whole",
    "whole*2",
    "whole*3",
    "whole*2;same=resource.kubernetes.io/pcieRoot",
    "whole+mig:1g.10gb",
    "mig:1g.10gb*7;same=parentUUID",
    "mig:1g.10gb*8;same=parentUUID",
    "mig:1g.10gb.me*2;same=parentUUID",
    "mig:3g.40gb+mig:4g.40gb;same=parentUUID",
    "mig:3g.40gb*2+mig:1g.10gb;same=parentUUID",
    "whole+dra:vfio.gpu.nvidia.com",
    "whole*2+dra:vfio.gpu.nvidia.com",
    "whole*3+dra:vfio.gpu.nvidia.com",
    "dra:gpu.nvidia.com{memory>=70Gi}*2",
    "mps:50%,10Gi",
)
"""Some fit and some do not; which is which depends on the cluster."""
BY_NAMES = (
    "whole",
    "whole*3",
    "whole+mig:1g.10gb",
    "mig:1g.10gb*8",
    "mig:3g.40gb*3+mig:4g.40gb*2",
    "dra:mig.nvidia.com*2",
)
"""Without a claim of their own."""


@pytest.mark.parametrize("file", GPU_EXAMPLES, ids=named)
def test_a_gpu_example_is_scheduled_where_the_cluster_has_its_devices(bench: Bench, file: Path) -> None:
    """Its pods, and those that controllers would make of its jobs and services, with its claims."""
    found = objects(file)
    claims, pods = [one for one in found if one["apiVersion"] == DRA], pods_of(found)
    lists = read(bench)
    if claims and not lists[1]:
        skip(bench, "scheduling: the cluster has no ResourceSlices", len(pods))
    request = parse(yaml.safe_load(file.read_text())["gpu"])
    if reason := cannot_fit(request, lists) if claims else not_offered(pods, lists):
        skip(bench, f"scheduling: {reason}", len(pods))
    busy, told = in_use(bench), tried(bench, claims, pods, lists)
    if not any(told.values()):
        skip(bench, "scheduling: no scheduler answers", len(pods))
    wrong = {name: said for name, said in told.items() if said != "scheduled"}
    if wrong and busy:
        skip(bench, f"scheduling: {next(iter(wrong.values()))}", len(wrong))
    assert not wrong
    bench.done["scheduled"] += len(pods)


@pytest.mark.parametrize(
    ("text", "way"), [*((one, Way.DRA) for one in REQUESTS), *((one, Way.EXTENDED) for one in BY_NAMES)]
)
def test_the_doctor_and_the_scheduler_agree(bench: Bench, text: str, way: Way) -> None:
    lists, request = read(bench), parse(text)
    if not lists[1]:
        skip(bench, "scheduling: the cluster has no ResourceSlices", 1)
    if in_use(bench):
        skip(bench, "scheduling: others hold devices", 1)
    try:
        made = place(request, gpus.paths(*lists).model_copy(update={"paths": (way,)}), name="agree")
    except SpecError as error:
        skip(bench, f"scheduling: {error.message}", 1)
    told = supply.in_slices(made, supply.inventory(*lists))
    if told.devices is None:
        skip(bench, f"scheduling: {text}: the doctor cannot tell", 1)
    fits = bool(told.devices) or by_plugin(made.limits, lists[0])
    bare: Manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agree"}}
    bare["spec"] = {"containers": [{"name": "main", "image": IMAGE}], "restartPolicy": "Never"}
    *claims, wanted = pod(restricted(bare), made)
    (said,) = tried(bench, claims, [wanted], lists, None if fits else SOON_S).values()
    if not said:
        skip(bench, "scheduling: no scheduler answers", 1)
    assert (said == "scheduled") == fits, f"the doctor says {told}, the scheduler {said}"
    bench.done["doctor and scheduler agree"] += 1


def by_plugin(limits: dict[str, str], nodes: list[Manifest]) -> bool:
    """Whether a node's device plugin offers devices by the same names."""
    return bool(limits) and any(
        all(supply.gpus(node).get(name, 0) >= int(count) for name, count in limits.items()) for node in nodes
    )
