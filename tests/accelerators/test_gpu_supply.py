"""A request is served by one node, with all of its devices at once, or by none."""

from __future__ import annotations

import pytest

from goldpath.accelerators import cluster
from goldpath.accelerators.cluster import Service
from goldpath.accelerators.placement import Path
from tests.accelerators.clusters import CLASSES, TYPE, Object, a_class, a_slice, gpu, mig, node

SHAREABLE = a_class("gpu.example.com", "device.driver == 'gpu.example.com'")


def ask(
    text: str, nodes: list[Object] | None = None, slices: list[Object] | None = None, *more: Object
) -> Service:
    (told,) = cluster.report(nodes or [], slices or [], [*CLASSES[1:], GPUS, *more], wanted=[text]).services
    return told


GPUS = a_class("gpu.nvidia.com", TYPE.format("gpu"))
ONE_EACH = [node(f"n{at}", {"nvidia.com/gpu": "1"}) for at in range(8)]
L4S = [a_slice(f"n{at}", [gpu("gpu-0", "NVIDIA L4", "23034Mi")]) for at in range(2)]
TWO_AND_ONE = [
    a_slice("big", [gpu(f"gpu-{at}", "NVIDIA L4", "23034Mi") for at in range(2)]),
    a_slice("small", [gpu("gpu-0", "NVIDIA L4", "23034Mi")]),
]


def test_devices_of_the_plugin_are_on_one_node() -> None:
    assert (ask("whole", ONE_EACH).path, ask("whole", ONE_EACH).devices) == (Path.PLUGIN, 8)
    told = ask("whole*8", ONE_EACH)
    assert (told.path, told.note) == (None, "plugin: no node has 8 of them, the most is 1")
    both = [*ONE_EACH, node("large", {"nvidia.com/gpu": "8"})]
    assert (ask("whole*8", both).path, ask("whole*8", both).devices) == (Path.PLUGIN, 8)
    assert ask("whole*9", both).path is None


def test_paths_with_one_reason_are_told_once() -> None:
    labels = {"nvidia.com/gpu.sharing-strategy": "time-slicing"}
    nodes = [*ONE_EACH, node("turns", {"nvidia.com/gpu.shared": "4"}, labels)]
    assert ask("mps", nodes).note == "on every path: the device plugin shares no GPU at once (MPS)"
    assert ask("mps", ONE_EACH).note == "plugin: the device plugin shares no GPU at once (MPS)"


def test_devices_of_claims_are_on_one_node() -> None:
    assert ask("whole", slices=L4S).devices == 2
    assert ask("whole*2", slices=L4S).note == "dra: no node has 2 of them, the most is 1"
    told = ask("whole*2", slices=TWO_AND_ONE)
    assert (told.path, told.devices) == (Path.DRA, 2)
    apart = [a_slice("a", [gpu("0", "NVIDIA L4", "1Gi")]), a_slice("b", [gpu("0", "NVIDIA A100", "1Gi")])]
    assert ask("whole:L4+whole:A100", slices=apart).note == "dra: no node has all of them at once"
    together = [a_slice("a", [gpu("0", "NVIDIA L4", "1Gi"), gpu("1", "NVIDIA A100", "1Gi")])]
    assert ask("whole:L4+whole:A100", slices=together).devices == 1


def test_no_device_is_given_twice() -> None:
    assert ask("whole+whole:L4", slices=L4S).path is None
    assert ask("whole+whole:L4", slices=TWO_AND_ONE).path is Path.DRA
    one = [a_slice("a", [gpu("0", "NVIDIA L4", "1Gi"), gpu("1", "NVIDIA A100", "1Gi")])]
    assert ask("whole:A100+whole", slices=one).path is Path.DRA
    assert ask("whole+whole:A100", slices=one).path is Path.DRA, "what chose first took what the other needs"


def test_attributes_that_have_to_be_equal_are_there_and_equal() -> None:
    apart = [a_slice("a", [mig("0", "1g.10gb", "GPU-1"), mig("1", "1g.10gb", "GPU-2")])]
    assert ask("mig:1g.10gb*2", slices=apart).path is Path.DRA
    told = ask("mig:1g.10gb*2;same=parentUUID", slices=apart)
    assert (told.path, told.note) == (None, "dra: no node has 2 of them with the same parentUUID")
    together = [a_slice("a", [*apart[0]["spec"]["devices"], mig("2", "1g.10gb", "GPU-2")])]
    assert ask("mig:1g.10gb*2;same=parentUUID", slices=together).path is Path.DRA
    assert ask("whole*2;same=parentUUID", slices=TWO_AND_ONE).path is None, (
        "whole GPUs have no such attribute"
    )
    assert ask("whole*2;same=resource.kubernetes.io/pcieRoot", slices=TWO_AND_ONE).path is Path.DRA


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("dra:gpu.nvidia.com{memory=20Gi}", True),
        ("dra:gpu.nvidia.com{memory=400Gi}", False),
        ("dra:gpu.nvidia.com{nosuch=1}", False),
        ("dra:gpu.nvidia.com{a.b/memory=1}", False),
        ("dra:gpu.nvidia.com{memory=1Gi}*3", False),  # each takes a device whole
    ],
)
def test_capacity_that_is_taken_is_there(text: str, served: bool) -> None:
    assert (ask(text, slices=TWO_AND_ONE).path is Path.DRA) is served


def shareable(policy: Object | None = None) -> list[Object]:
    capacity = {"memory": {"value": "10Gi", **({"requestPolicy": policy} if policy else {})}}
    device = {"name": "gpu-0", "allowMultipleAllocations": True, "capacity": capacity}
    return [a_slice("a", [device], driver="gpu.example.com")]


@pytest.mark.parametrize(
    ("text", "policy", "served"),
    [
        ("{memory=4Gi}*2", None, True),
        ("{memory=4Gi}*3", None, False),
        ("*2", None, False),  # by default all of it is taken
        ("*2", {"default": "5Gi"}, True),
        ("{memory=4Gi}*2", {"default": "1Gi", "validValues": ["1Gi", "6Gi"]}, False),
        ("{memory=7Gi}", {"default": "1Gi", "validValues": ["1Gi", "6Gi"]}, False),
        ("{memory=3Gi}*2", {"default": "1Gi", "validRange": {"min": "1Gi", "step": "4Gi"}}, True),
        ("{memory=3Gi}*3", {"default": "1Gi", "validRange": {"min": "1Gi", "step": "4Gi"}}, False),
        ("{memory=1Gi}*3", {"default": "4Gi", "validRange": {"min": "4Gi"}}, False),
        ("{memory=7Gi}", {"default": "1Gi", "validRange": {"min": "1Gi", "max": "6Gi"}}, False),
    ],
)
def test_a_device_that_several_may_use_serves_as_many_as_fit(
    text: str, policy: Object | None, served: bool
) -> None:
    told = ask(f"dra:gpu.example.com{text}", None, shareable(policy), SHAREABLE)
    assert (told.path is Path.DRA) is served


def partitionable() -> list[Object]:
    """A GPU with four slices of memory: whole, in two halves or in four quarters."""

    def part(device: Object, first: int, count: int) -> Object:
        taken = {f"slice-{at}": {"value": "1"} for at in range(first, first + count)}
        return {**device, "consumesCounters": [{"counterSet": "gpu-0", "counters": taken}]}

    made = a_slice(
        "a",
        [
            part(gpu("gpu-0", "NVIDIA A30", "24Gi"), 0, 4),
            *(part(mig(f"half-{at}", "2g.12gb"), at, 2) for at in (0, 2)),
            *(part(mig(f"quarter-{at}", "1g.6gb"), at, 1) for at in range(4)),
        ],
    )
    made["spec"]["sharedCounters"] = [
        {"name": "gpu-0", "counters": {f"slice-{at}": {"value": "1"} for at in range(4)}}
    ]
    return [made]


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("whole", True),
        ("mig:1g.6gb*4", True),
        ("mig:1g.6gb*2+mig:2g.12gb", True),
        ("mig:2g.12gb*2", True),
        ("mig:1g.6gb*3+mig:2g.12gb", False),
        ("whole+mig:1g.6gb", False),
    ],
)
def test_parts_of_one_device_do_not_overlap(text: str, served: bool) -> None:
    assert (ask(text, slices=partitionable()).path is Path.DRA) is served


def test_too_many_choices_are_unknown_rather_than_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from goldpath.accelerators import allocation

    monkeypatch.setattr(allocation, "STEPS", 2)
    told = ask("mig:1g.6gb*3+mig:2g.12gb", slices=partitionable())
    assert (told.path, told.devices) == (Path.DRA, None)


def test_many_alike_devices_are_no_many_choices() -> None:
    """31 equal devices for 32 places: which of them is left out makes no difference."""
    devices = [gpu(f"gpu-{at}", "NVIDIA L4", "1Gi") for at in range(31)]
    assert ask("whole*31+whole:L4", slices=[a_slice("a", devices)]).path is None


def test_devices_that_several_nodes_reach_go_with_those_of_each() -> None:
    nodes = [node(name, {}, {"zone": zone}) for name, zone in (("a", "x"), ("b", "y"))]
    far = a_slice("far", [gpu("far", "NVIDIA A100", "1Gi")])
    del far["spec"]["nodeName"]
    local = a_slice("a", [gpu("0", "NVIDIA L4", "1Gi")])

    def reached(operator: str, *values: str) -> bool:
        condition = {"key": "zone", "operator": operator, **({"values": list(values)} if values else {})}
        far["spec"]["nodeSelector"] = {"nodeSelectorTerms": [{"matchExpressions": [condition]}]}
        return ask("whole:L4+whole:A100", nodes, [far, local]).path is Path.DRA

    assert reached("In", "x")
    assert not reached("In", "y")
    assert reached("Exists")
    assert not reached("DoesNotExist")
    assert reached("NotIn", "y")
    far["spec"].pop("nodeSelector")
    far["spec"]["allNodes"] = True
    assert ask("whole:L4+whole:A100", nodes, [far, local]).path is Path.DRA
    assert ask("whole:A100", [], [far]).devices == 1
    far["spec"].pop("allNodes")
    far["spec"]["perDeviceNodeSelection"] = True
    for name, path in (("a", Path.DRA), ("b", None)):
        far["spec"]["devices"][0]["nodeName"] = name
        assert ask("whole:L4+whole:A100", nodes, [far, local]).path is path


def on_bus(bus: str, name: str, kind: str) -> Object:
    made = gpu(name, "NVIDIA L4", "23034Mi")
    made["attributes"] |= {"type": {"string": kind}, "resource.kubernetes.io/pciBusID": {"string": bus}}
    return made


@pytest.mark.parametrize(
    ("cards", "text", "served"),
    [
        (1, "whole+dra:vfio.gpu.nvidia.com", False),
        (2, "whole+dra:vfio.gpu.nvidia.com", True),
        (2, "whole*2+dra:vfio.gpu.nvidia.com", False),
        (3, "whole*2+dra:vfio.gpu.nvidia.com", True),
        (2, "whole*2", True),
    ],
)
def test_a_card_is_offered_for_two_drivers_and_given_for_one(cards: int, text: str, served: bool) -> None:
    """As NVIDIA's driver offers it with PassthroughSupport."""
    kinds = [("gpu", "gpu"), ("vfio", "gpu-vfio")]
    offered = [
        on_bus(f"0000:6{at}:00.0", f"{name}-{at}", kind) for at in range(cards) for kind, name in kinds
    ]
    vfio = a_class("vfio.gpu.nvidia.com", TYPE.format("vfio"))
    assert (ask(text, None, [a_slice("a", offered)], vfio).path is Path.DRA) == served


def test_many_cards_are_no_many_choices() -> None:
    offered = [on_bus(f"0000:{at:02}:00.0", f"gpu-{at}", "gpu") for at in range(16)]
    assert ask("whole*16", slices=[a_slice("a", offered)]).devices == 16
    assert ask("whole*8+whole:A100", slices=[a_slice("a", offered)]).path is None
