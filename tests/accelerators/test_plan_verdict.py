"""What a plan says where a training does not fit, or only in another precision: figures that were judged by."""

from __future__ import annotations

import re

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
    assert (made.precision, made.need) == ("bf16", made.rows[1].need)
    assert "the cheapest of 2 is whole:T4 in fp32," in made.verdict
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
    together = made.alternatives[-1]
    # What it promises is true.
    again = plan.train(
        models.load("Llama-3.1-70B"), shape(method="qlora", gradient_checkpointing=True), "A100-80GB"
    )
    assert (together.change, together.request) == ("gradient checkpointing and method qlora", again.cheapest)
    assert together.need == again.need


def test_more_gpus_are_among_what_helps():
    made = plan.train(LLAMA, shape(method="full", gradient_checkpointing=True), "A100-80GB")
    helped = {one.change: one.request for one in made.alternatives}
    assert helped["2 GPUs with fsdp"] == "whole:A100-80GB*2"
    assert "4 GPUs with fsdp" not in helped
