"""The pictures of docs/gpus.md: what they show is what the planner and the doctor say."""

from __future__ import annotations

import re

import pytest

from docs.images import a100
from goldpath.accelerators import plan
from goldpath.accelerators.requests import parse
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.accelerators.training_shape import TrainingShape
from tests.accelerators.server import doctor

WAYS = {way.request: way for way in a100.ways()}


@pytest.mark.parametrize("request_", WAYS)
def test_a_part_holds_what_the_plan_says(request_: str) -> None:
    told = a100.holds(WAYS[request_])
    if not WAYS[request_].apart:
        assert told.pop(0) == "While the others hold nothing:"
    gpu = a100.GPU.name + (":" + request_.removeprefix("mig:")) if request_.startswith("mig:") else request_

    def fits(**given: object) -> bool:
        shape = TrainingShape.parse({"sequence_length": 1024, "gradient_checkpointing": True, **given})
        rows = {row.request: row for row in plan.train(a100.MODEL, shape, gpu).rows}
        return rows[request_].fits

    largest = int(re.fullmatch(r"LoRA, up to (\d+) x 1,024 tokens", told[0])[1])
    assert fits(batch_size=largest)
    assert not fits(batch_size=largest + 1)
    assert (told[1] == "full fine-tuning") is fits(method="full", batch_size=1)
    served = {row.request: row for row in plan.serve(a100.MODEL, ServingShape(), gpu).rows}[request_]
    tokens = f"serving, {served.capacity.kv_tokens:,} tokens of KV cache"
    assert told[2] == (tokens if served.capacity.kv_tokens else "no serving with vLLM")


def test_the_picture_has_every_way_with_its_request_and_no_more_memory_than_the_gpu() -> None:
    page = a100.page()
    for way in WAYS.values():
        assert str(parse(way.request)) == way.request
        assert f"<code>{way.request}</code>" in page
        parts = way.parts if way.apart else 1
        assert parts * way.place.has <= a100.GPU.usable_bytes
    counts = {name: way.parts for name, way in WAYS.items() if name.startswith("mig:")}
    assert counts == {"mig:3g.20gb": 2, "mig:2g.10gb": 3, "mig:1g.5gb": 7}
    widths = [float(width) for width in re.findall(r'class="part[^"]*" style="width:([\d.]+)%"', page)]
    assert len(widths) == sum(way.parts for way in WAYS.values())


def test_the_played_cluster_serves_whole_slices_and_turns() -> None:
    with a100.cluster() as kubeconfig:
        done = doctor("--gpus", KUBECONFIG=str(kubeconfig))
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    for row in (
        ["whole", "plugin", "1"],
        ["shared", "plugin-time-slicing-renamed", "4"],
        ["mig:1g.5gb", "plugin-mig-mixed", "2"],
        ["mig:3g.20gb", "plugin-mig-mixed", "1"],
    ):
        assert row in rows
    notes = [line.strip() for line in done.stdout.splitlines()]
    assert "plugin-time-slicing-renamed: no node offers nvidia.com/mig-1g.5gb.shared" in notes, (
        "a reason a line"
    )
    assert (
        "mps                no                                    on every path: the device plugin shares"
        in done.stdout
    )
