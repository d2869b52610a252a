"""What a plan says where a training does not fit, or only in another precision: figures that were judged by."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from goldpath.accelerators import models, plan
from goldpath.accelerators.places import places
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.accelerators.training_memory import estimate
from goldpath.accelerators.training_shape import TrainingShape
from goldpath.cli.main import cli

GIB = 2**30
LLAMA = models.load("Llama-3.1-8B")


def shape(**given) -> TrainingShape:
    return TrainingShape.parse({"sequence_length": 1024, "batch_size": 1, **given})


def test_a_gpu_without_bf16_is_planned_for_in_fp32():
    made = plan.train(models.load("Llama-3.2-1B"), shape(), "T4,L4")
    rows = {row.request: row for row in made.rows}
    assert rows["whole:T4"].need > rows["whole:L4"].need * 1.5
    refused = plan.train(models.load("Llama-3.2-1B"), shape(method="qlora"), "T4")
    assert not refused.rows[0].fits
    assert "no bf16" in refused.rows[0].why
    assert "no bf16" in refused.verdict


def test_without_bf16_verdict_and_ways_out_have_the_figures_that_they_were_judged_by():
    gemma = models.load("Gemma-3-4B")
    made = plan.train(gemma, shape(), "T4")
    (row,) = made.rows
    assert (made.need, made.precision) == (row.need, row.precision) == (sum(made.components.values()), "fp32")
    assert f"needs {row.need / GIB:,.1f} GiB in fp32 a device" in made.verdict
    assert f"lacks {(row.need - row.has * 0.9) / GIB:,.1f} GiB" in made.verdict
    helped = {one.change: one for one in made.alternatives}
    other = plan.train(gemma, shape(gradient_checkpointing=True), "T4").rows[0]
    told = helped["gradient checkpointing"]
    assert (told.need, told.precision, told.request) == (other.need, "fp32", "")
    assert not any("qlora" in change for change in helped), "it computes in bf16"
    for one in made.alternatives:
        assert (one.need <= row.has * 0.9) == bool(one.request)
    shown = CliRunner().invoke(cli, ["plan", "train", "--model", "Gemma-3-4B", "--gpu", "T4"]).output
    assert "1 x 1,024 tokens, fp32 (no bf16 there);" in shown
    assert re.search(rf"gradient checkpointing +needs {told.need / GIB:.2f} GiB in fp32: fits nowhere", shown)


def test_beside_gpus_with_bf16_each_row_has_its_own_precision():
    made = plan.train(models.load("Llama-3.2-1B"), shape(), "T4,L4")
    assert {row.request: (row.precision, row.why) for row in made.rows} == {
        "whole:T4": ("fp32", "in fp32"),
        "whole:L4": ("bf16", ""),
    }
    assert "the cheapest of 2 is whole:T4 in fp32," in made.verdict
    assert (made.precision, made.need) == ("fp32", made.rows[0].need), (
        "of the place that the verdict speaks of"
    )
    assert sum(made.components.values()) == made.need
    words = [
        "plan",
        "train",
        "--model",
        "Llama-3.2-3B",
        "--gpu",
        "V100-32GB,A30:1g.6gb",
        "--sequence-length",
        "4096",
    ]
    shown = CliRunner().invoke(cli, words).output
    told = [line for line in shown.partition("What would help:")[2].splitlines() if "needs" in line]
    assert any(" in fp32: fits whole:V100-32GB" in line for line in told)
    assert all(" in fp32: " in line or " in bf16: " in line for line in told)


def test_qlora_without_bf16_is_led_to_lora():
    made = plan.train(models.load("Llama-3.2-1B"), shape(method="qlora"), "T4,V100-32GB")
    assert all(row.refused for row in made.rows)
    assert "no bf16" in made.verdict
    assert [(one.change, one.request) for one in made.alternatives] == [("method lora", "whole:T4")]
    # A GPU that is refused whatever its memory is no measure of what is lacking.
    large = plan.train(models.load("Llama-3.1-70B"), shape(method="qlora"), "V100-32GB,L4")
    assert "even whole:L4 lacks" in large.verdict


def test_where_only_the_margin_is_missing_it_says_so():
    model = models.load("Llama-3.2-1B")
    need = estimate(model, shape()).total
    (place,) = places("A30:1g.6gb")
    margin = 1 - need / place.has
    room = int(place.has * (1 - margin - 0.001))
    made = plan.train(model, shape(), "A30:1g.6gb", margin + 0.001)
    kept = f"{(place.has - room) / GIB:.1f} GiB"
    assert made.rows[0].why == f"fits only without the margin of {kept}"
    assert f"and {kept} is kept free" in made.verdict
    assert re.search(r"mig:1g.6gb lacks \d+\.\d MiB$", made.verdict), (
        "0.0 GiB would say that nothing is missing"
    )
    assert plan.train(model, shape(), "A30:1g.6gb", margin - 0.001).cheapest == "mig:1g.6gb"


def test_a_slice_on_which_nothing_fits_is_told_like_a_gpu():
    made = plan.train(LLAMA, shape(gradient_checkpointing=True), "A30:1g.6gb")
    assert made.verdict.startswith("fits nowhere")
    assert made.alternatives
    assert not any("GPUs with" in one.change for one in made.alternatives), "slices do not work together"
    served = plan.serve(LLAMA, ServingShape(), "A30:1g.6gb")
    assert not any("tensor parallel" in one.change for one in served.alternatives)


def test_where_nothing_fits_it_says_by_how_much_and_what_would_help():
    made = plan.train(models.load("Llama-3.1-70B"), shape(method="full"), "A100-80GB")
    assert made.cheapest == ""
    lacks = (made.need - max(row.has for row in made.rows) * 0.9) / GIB
    assert f"{lacks:,.1f} GiB" in made.verdict
    helped = {one.change: one for one in made.alternatives}
    assert helped["method qlora"].need < helped["method lora"].need < made.need
    assert "gradient checkpointing and method lora and 2 GPUs with fsdp" not in helped, "two are enough"
    together = helped["gradient checkpointing and method qlora"]
    # What it promises is true.
    again = plan.train(
        models.load("Llama-3.1-70B"), shape(method="qlora", gradient_checkpointing=True), "A100-80GB"
    )
    assert together.request == again.cheapest
    assert together.need == again.need


def test_more_gpus_are_among_what_helps():
    made = plan.train(LLAMA, shape(method="full", gradient_checkpointing=True), "A100-80GB")
    helped = {one.change: one.request for one in made.alternatives}
    assert helped["2 GPUs with fsdp"] == "whole:A100-80GB*2"
    assert "4 GPUs with fsdp" not in helped


def laid(way: plan.Alternative, given: ServingShape, names: str) -> plan.Plan:
    """The endpoint with all that a way out says."""
    values: dict[str, object] = {}
    for words in way.change.split(" and "):
        if found := re.fullmatch(r"weights in (\w+)", words):
            values["weights"] = found[1]
        elif found := re.fullmatch(r"tensor parallel over (\d+) GPUs", words):
            values["tensor_parallel"] = int(found[1])
        elif found := re.fullmatch(r"context (\d+)", words):
            values["context"] = int(found[1])
        else:
            assert words == "kv-dtype auto"
            values["kv_dtype"] = "auto"
    return plan.serve(models.load(NAMES[names]), given.model_copy(update=values), names)


NAMES = {"T4": "gpt-oss-20b", "T4,V100-32GB": "Llama-3.1-70B", "A100-40GB": "Llama-3.1-70B"}


@pytest.mark.parametrize(
    ("names", "given", "says", "instead", "ways"),
    [
        (
            "T4",
            {"weights": "mxfp4"},
            r"no mxfp4 nor bf16; with dtype int4 it lacks ([\d.]+) GiB",
            {"weights": "int4"},
            {"weights in int4 and tensor parallel over 2 GPUs": "whole:T4*2"},
        ),
        (
            "T4,V100-32GB",
            {},
            r"no bf16; with dtype fp16 it lacks ([\d.]+) GiB",
            {"weights": "fp16"},
            {"weights in int4 and tensor parallel over 2 GPUs": "whole:V100-32GB*2"},
        ),
        (
            "A100-40GB",
            {"kv_dtype": "fp8"},
            r"no fp8 for the cache; with kv-dtype auto it lacks ([\d.]+) GiB",
            {"kv_dtype": "auto"},
            {
                "kv-dtype auto and tensor parallel over 8 GPUs": "whole:A100-40GB*8",
                "weights in int4 and kv-dtype auto and tensor parallel over 2 GPUs": "whole:A100-40GB*2",
            },
        ),
    ],
)
def test_an_endpoint_that_is_refused_says_by_how_much_and_what_holds(names, given, says, instead, ways):
    asked = ServingShape(**given)
    made = plan.serve(models.load(NAMES[names]), asked, names)
    assert re.search(says, made.verdict), "it promises nothing that lacks memory"
    helped = {one.change: one for one in made.alternatives}
    assert {words: helped[words].request for words in ways} == ways
    for one in made.alternatives:
        again = laid(one, asked, names)
        assert again.cheapest == one.request
        assert one.need in {row.need for row in again.rows}
    there = plan.serve(models.load(NAMES[names]), asked.model_copy(update=instead), names)
    lacks = float(re.search(says, made.verdict)[1])
    assert lacks == pytest.approx((there.need - max(row.has for row in there.rows)) / GIB, abs=0.06)


def test_a_cache_that_the_gpu_cannot_hold_is_mended_before_gpus_are_added():
    large = models.load("Llama-3.1-70B")
    made = plan.serve(large, ServingShape(kv_dtype="fp8"), "A100-80GB")
    assert re.search(r"with kv-dtype auto it lacks [\d.]+ GiB", made.verdict)
    enough = {one.change: one.request for one in made.alternatives if one.request}
    assert enough["kv-dtype auto and tensor parallel over 2 GPUs"] == "whole:A100-80GB*2"
    assert plan.serve(large, ServingShape(tensor_parallel=2), "A100-80GB").cheapest == "whole:A100-80GB*2"


def test_a_refusal_names_only_what_would_fit():
    small = models.load("Llama-3.2-1B")
    both = plan.serve(small, ServingShape(context=1024, weights="fp8", kv_dtype="bf16"), "T4").rows[0]
    assert both.why == (
        "no fp8 nor bf16: dtype fp16 and kv-dtype auto or dtype int4 and kv-dtype auto would do"
    )
    for weights in ("fp16", "int4"):
        assert plan.serve(small, ServingShape(context=1024, weights=weights), "T4").cheapest == "whole:T4"
    large = plan.serve(LLAMA, ServingShape(weights="fp8"), "T4").rows[0]
    assert large.why == "no fp8 nor bf16: dtype int4 would do", "fp16 lacks memory there"


def test_no_more_is_given_up_than_needed():
    made = plan.train(LLAMA, shape(), "T4")
    enough = [one.change for one in made.alternatives if one.request]
    assert enough[0] == "gradient checkpointing and 4 GPUs with fsdp"
    again = plan.train(LLAMA, shape(gradient_checkpointing=True, gpus=4, sharding="fsdp"), "T4")
    assert again.cheapest == "whole:T4*4"
    assert not any("8 GPUs" in change for change in enough), "four are enough"


def test_several_gpus_that_each_hold_all_are_led_to_sharding():
    made = plan.train(LLAMA, shape(gpus=4), "whole:T4*4")
    enough = {one.change: one.request for one in made.alternatives if one.request}
    assert enough["gradient checkpointing and sharding fsdp"] == "whole:T4*4"
    assert "gradient checkpointing and 8 GPUs with fsdp" not in enough
    sharded = plan.train(LLAMA, shape(gpus=4, sharding="fsdp"), "whole:T4*4")
    assert not any("sharding fsdp" in one.change for one in sharded.alternatives)


def test_where_no_changes_are_enough_all_of_them_are_told():
    made = plan.train(models.load("DeepSeek-V3"), shape(method="full", batch_size=8), "L4")
    last = made.alternatives[-1]
    assert last.change.count(" and ") >= 3
    assert not last.request
    assert last.need == min(one.need for one in made.alternatives)
    served = plan.serve(models.load("DeepSeek-V3"), ServingShape(weights="fp8"), "T4").alternatives[-1]
    assert served.change == "weights in int4 and context 4096 and tensor parallel over 16 GPUs"
    assert not served.request
