"""What a cluster can serve, from the objects of its API."""

from __future__ import annotations

import pytest

from goldpath.accelerators import cluster
from goldpath.accelerators.cluster import Service
from goldpath.accelerators.devices import devices, matches
from goldpath.accelerators.placement import Path
from goldpath.core.errors import SpecError
from tests.accelerators.clusters import CLASSES, SLICES, a_class, a_slice, gpu, node

PRODUCT, STRATEGY = "nvidia.com/gpu.product", "nvidia.com/gpu.sharing-strategy"


def services(*args: object, wanted: tuple[str, ...] = ()) -> dict[str, Service]:
    return {one.request: one for one in cluster.report(*args, wanted=wanted).services}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gpus", "labels", "expected"),
    [
        ({"nvidia.com/gpu": "8"}, {STRATEGY: "none"}, {Path.PLUGIN}),
        ({"nvidia.com/gpu": "7"}, {"nvidia.com/gpu.slices.gi": "1"}, {Path.MIG_SINGLE}),
        ({"nvidia.com/gpu": "0", "nvidia.com/mig-1g.10gb": "7"}, {}, {Path.MIG_MIXED}),
        ({"nvidia.com/gpu": "40"}, {STRATEGY: "time-slicing"}, {Path.SHARED}),
        ({"nvidia.com/gpu.shared": "40"}, {STRATEGY: "time-slicing"}, {Path.SHARED_RENAMED}),
        ({"nvidia.com/gpu.shared": "40"}, {}, {Path.SHARED_RENAMED}),
        ({"nvidia.com/gpu": "40"}, {STRATEGY: "mps"}, {Path.MPS}),
        ({"nvidia.com/gpu.shared": "40"}, {STRATEGY: "mps"}, {Path.MPS_RENAMED}),
        ({"nvidia.com/mig-1g.10gb.shared": "28"}, {}, {Path.MIG_MIXED, Path.SHARED_RENAMED}),
        ({"nvidia.com/gpu": "0"}, {}, set()),
        ({}, {}, set()),
    ],
)
def test_a_node_shows_how_it_hands_out_gpus(
    gpus: dict[str, str], labels: dict[str, str], expected: set[Path]
) -> None:
    assert set(cluster.paths([node("a", gpus, labels)], [], []).paths) == expected


def test_dra_needs_devices_and_classes_and_names_need_a_class_with_a_name() -> None:
    assert cluster.paths([], SLICES, CLASSES).paths == (Path.EXTENDED, Path.DRA)
    assert cluster.paths([], SLICES, CLASSES[1:]).paths == (Path.DRA,)
    assert cluster.paths([], [], CLASSES).paths == ()
    assert cluster.paths([], SLICES, []).paths == ()


def test_devices_are_counted_on_the_nodes_that_a_request_may_use() -> None:
    nodes = [
        node("h", {"nvidia.com/gpu": "8"}, {PRODUCT: "NVIDIA-H100-80GB-HBM3", STRATEGY: "none"}, "nvidia.com/gpu"),
        node("l", {"nvidia.com/gpu": "2"}, {PRODUCT: "NVIDIA-L4", STRATEGY: "none"}, "example.com/gpu-pool"),
        node("s", {"nvidia.com/gpu": "40"}, {PRODUCT: "NVIDIA-L4-SHARED", STRATEGY: "time-slicing"}),
        node(
            "m",
            {"nvidia.com/gpu": "7"},
            {PRODUCT: "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "nvidia.com/gpu.slices.gi": "1"},
        ),
        node("cpu", {}),
    ]  # fmt: skip
    told = cluster.report(nodes, [], [])
    assert told.nodes == 4
    assert told.cluster.taints == ("example.com/gpu-pool", "nvidia.com/gpu")
    wanted = ("whole", "whole:L4", "whole:H100*2", "whole:B200", "shared", "mig:1g.10gb", "mps:50%")
    found = services(nodes, [], [], wanted=wanted)
    assert {text: (one.path, one.devices) for text, one in found.items()} == {
        "whole": (Path.PLUGIN, 10),
        "whole:L4": (Path.PLUGIN, 2),
        "whole:H100*2": (Path.PLUGIN, 8),
        "whole:B200": (None, None),
        "shared": (Path.SHARED, 40),
        "mig:1g.10gb": (Path.MIG_SINGLE, 7),
        "mps:50%": (None, None),
    }
    assert "NVIDIA-H100-80GB-HBM3" in found["whole:B200"].note
    assert set(services(nodes, [], [])) >= {"whole", "shared", "mps", "mig:1g.10gb", "whole+mig:1g.10gb"}


def test_devices_of_slices_are_chosen_by_the_same_cel_as_in_the_claim() -> None:
    wanted = (
        "whole",
        "whole:L4",
        "whole:H100",
        "mig:1g.10gb",
        "mig:1g.10gb.me",
        "mig:3g.40gb",
        "mps:50%",
        "shared;interval=long",
        "dra:gpu.nvidia.com{memory>=40Gi}",
        "dra:mig.nvidia.com[device.attributes['gpu.nvidia.com'].productName.lowerAscii().matches('a100')]{multiprocessors>=14}",
        "dra:gpu.nvidia.com[device.attributes['gpu.nvidia.com'].driverVersion.isGreaterThan(semver('580.2.0'))]",
        "dra:gpu.nvidia.com[device.attributes['gpu.nvidia.com'].unheardOf == 1]",
        "whole:H100+mig:1g.10gb",
    )
    found = services([], SLICES, CLASSES, wanted=wanted)
    assert [one.devices for one in found.values()] == [2, 1, 1, 2, 1, None, 2, 2, 1, 3, 2, None, 1]
    assert found["whole"].path is Path.EXTENDED
    assert "DRAExtendedResource" in found["whole"].note
    assert found["mps:50%"].note == "the DRA driver's feature gate MPSSupport"
    assert found["shared;interval=long"].note == "the DRA driver's feature gate TimeSlicingSettings"
    assert found["mig:3g.40gb"].note.endswith("dra: no device fits")
    assert {text for text, one in found.items() if one.path is not Path.DRA} == {"whole", "mig:3g.40gb"}
    assert {"mig:1g.10gb.me", "dra:mig.nvidia.com"} <= set(services([], SLICES, CLASSES))


def test_only_the_newest_generation_of_a_pool_counts() -> None:
    assert len(devices(SLICES)) == 5
    both = [a_slice("a", [gpu("0", "NVIDIA L4", "1Gi")]), a_slice("b", [gpu("0", "NVIDIA L4", "1Gi")])]
    assert len(devices(both)) == 2


def test_a_class_that_cannot_be_evaluated_is_unknown_rather_than_wrong() -> None:
    classes = [a_class("odd", "device.attributes['gpu.nvidia.com'].type.reverse() == 'upg'")]
    assert services([], SLICES, classes, wanted=("dra:odd",))["dra:odd"].devices is None
    assert matches(["device.driver == 'other'", "device.odd()"], devices(SLICES)[0].device) is False


def test_a_cluster_without_gpus_serves_none_of_them() -> None:
    found = services([node("cpu", {})], [], [])
    assert {one.path for one in found.values()} == {None}
    assert "no node and no ResourceSlice has a GPU" in found["whole"].note
    told = services([], [], [], wanted=("none", "auto"))
    assert [one.note for one in told.values()] == ["", "the planner turns it into another"]
    with pytest.raises(SpecError):
        services([], [], [], wanted=("whole*0",))
