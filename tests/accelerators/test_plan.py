"""The plan: what fits where, the cheapest, what would help; `auto`; and this machine's memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from goldpath.accelerators import machine, models, plan
from goldpath.accelerators.places import places
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.accelerators.training_memory import estimate
from goldpath.accelerators.training_shape import TrainingShape
from goldpath.cli.main import cli
from goldpath.core.errors import SpecError

GIB = 2**30
LLAMA = models.load("Llama-3.1-8B")


def shape(**given) -> TrainingShape:
    return TrainingShape.parse({"sequence_length": 1024, "batch_size": 1, **given})


def goldpath(*words: str):
    return CliRunner().invoke(cli, ["plan", *words])


def test_the_cheapest_is_the_smallest_that_fits():
    made = plan.train(LLAMA, shape(gradient_checkpointing=True))
    fitting = [row for row in made.rows if row.fits]
    assert made.cheapest == fitting[0].request == "mig:1g.20gb"
    assert fitting[0].has == min(row.has for row in fitting)
    assert [row.request for row in made.rows].index("mig:7g.80gb") > [row.request for row in made.rows].index(
        "whole:H100"
    )
    assert made.alternatives == ()
    assert "mig:1g.20gb" in made.verdict
    for row in made.rows:
        assert row.headroom == row.has - row.need
        if row.fits:
            assert row.need <= row.has * 0.9


def test_a_slice_counts_with_the_smallest_gpu_that_has_it():
    """A100 40GB gives 9.62 GiB in a 1g.10gb, A100 80GB 9.5."""
    alone = next(place for place in places("A100-40GB") if place.request == "mig:1g.10gb")
    among = next(place for place in places("any") if place.request == "mig:1g.10gb")
    assert among.has < alone.has
    assert {"A100-40GB", "A100-80GB", "H100"} <= set(among.gpus)


def test_several_devices_are_whole_gpus():
    found = places("H100,L4", 2)
    assert [place.request for place in found] == ["whole:L4*2", "whole:H100*2"]
    made = plan.train(LLAMA, shape(method="full", gpus=8, sharding="fsdp"), "A100-80GB,H200")
    assert made.cheapest == "whole:A100-80GB*8"


def test_a_name_of_several_gpus_is_all_of_them_and_a_request_is_read_too():
    assert [place.request for place in places("A100")] == [
        place.request for place in places("A100-40GB,A100-80GB")
    ]
    assert [place.request for place in places("whole:A100")] == ["whole:A100-40GB", "whole:A100-80GB"]
    (slice_,) = places("mig:1g.20gb")
    assert {"A100-80GB", "H100"} < set(slice_.gpus)
    assert places("A100:1g.10gb")[0].gpus == ("A100-40GB", "A100-80GB")
    made = plan.train(LLAMA, shape(), "whole:A100, L4")
    assert made.notes[0] == "A100 is A100-40GB and A100-80GB"
    assert plan.train(LLAMA, shape(), "A100-40GB,any").notes == ()


def test_a_gb200_costs_more_than_its_slices():
    """Of its larger slices only the names are known: the largest that is known is not all of it."""
    made = plan.train(LLAMA, shape(), "GB200")
    assert made.cheapest == "mig:1g.47gb"
    assert [row.request for row in made.rows][-1] == "whole:GB200"


def test_serving_says_what_fits_beside_the_weights():
    made = plan.serve(LLAMA, ServingShape(context=8192, concurrency=16), "L4,A100-80GB,H100")
    rows = {row.request: row for row in made.rows}
    assert not rows["whole:L4"].fits
    assert made.cheapest == "mig:3g.40gb"
    assert rows["whole:A100-80GB"].capacity.concurrent_sequences >= 16
    assert rows["whole:A100-80GB"].capacity.kv_tokens > 400_000
    for row in made.rows:
        assert row.fits == (row.capacity.concurrent_sequences >= 16)


def test_serving_where_nothing_fits_offers_smaller_weights_and_more_gpus():
    made = plan.serve(models.load("Llama-3.1-70B"), ServingShape(), "A100-80GB")
    helped = {one.change: one.request for one in made.alternatives}
    assert helped["weights in int4"] == "whole:A100-80GB"
    assert helped["tensor parallel over 2 GPUs"] == "whole:A100-80GB*2"
    assert "tensor parallel over 4 GPUs" not in helped, "once two are enough, more are no news"
    assert "the cache in fp8" not in helped, "an A100 has no fp8"


def test_places_are_in_the_order_of_their_cost():
    def smallest(need: float, names: str = "any", count: int = 1) -> str:
        return next(place.request for place in places(names, count) if need <= place.has)

    assert smallest(9 * GIB) == "mig:1g.10gb"
    assert smallest(11.5 * GIB) == "mig:2g.12gb"  # of an A30, 11.69 GiB
    assert smallest(78 * GIB, "A100-80GB") == "whole:A100-80GB"  # not its slice of the same size
    assert smallest(33 * GIB, "L4,A100-80GB") == "mig:3g.40gb"
    assert smallest(33 * GIB, "H100", 2) == "whole:H100*2"


def test_a_profile_of_a_gpu_can_be_named():
    assert [place.request for place in places("A30:1g.6gb, L4,A100-40GB:1g.5gb+me")] == [
        "mig:1g.5gb.me",
        "mig:1g.6gb",
        "whole:L4",
    ]
    assert len(places("A30,A30:1g.6gb")) == len(places("A30"))
    assert places("A100-40GB:1g.10gb")[0].gpus == ("A100-40GB",)
    made = plan.train(models.load("SmolLM2-135M"), shape(), "A30:4g.24gb")
    assert made.cheapest == "mig:4g.24gb"
    with pytest.raises(SpecError, match="2 devices that work together are whole GPUs"):
        places("A30:1g.6gb", 2)


def test_serving_is_refused_where_vllm_would_not_start():
    """vLLM: "Bfloat16 is only supported on GPUs with compute capability of at least 8.0"."""
    gemma = models.load("Gemma-3-4B")
    made = plan.serve(gemma, ServingShape(context=4096))
    rows = {row.request: row for row in made.rows}
    assert made.cheapest not in ("whole:T4", "whole:V100-16GB", "whole:V100-32GB")
    for gpu in ("T4", "V100-16GB", "V100-32GB"):
        assert not rows[f"whole:{gpu}"].fits
        assert rows[f"whole:{gpu}"].why == "no bf16: dtype fp16 would do"
        assert rows[f"whole:{gpu}"].capacity is None
    half = plan.serve(gemma, ServingShape(context=4096, weights="fp16"), "T4")
    assert half.cheapest == "whole:T4"
    full = plan.serve(gemma, ServingShape(context=4096, weights="fp32"), "A30:1g.6gb")
    assert next(iter(full.alternatives)).change == "weights in bf16"
    nowhere = plan.serve(gemma, ServingShape(context=4096), "T4,V100-32GB")
    assert nowhere.cheapest == ""
    assert "no bf16" in nowhere.verdict
    helped = {one.change: one.request for one in nowhere.alternatives}
    assert helped["weights in fp16"] == "whole:T4"
    assert not {"weights in fp8", "the cache in fp8", "context 2048"} & set(helped), "no way out: no bf16"


@pytest.mark.parametrize(
    ("given", "refused", "noted"),
    [
        ({"weights": "fp8"}, {"T4", "V100-32GB"}, {"A100-40GB"}),
        ({"weights": "mxfp4"}, {"T4", "V100-32GB"}, set()),
        ({"weights": "int4"}, set(), set()),
        ({"weights": "int4", "kv_dtype": "bfloat16"}, {"T4", "V100-32GB"}, set()),
        ({"weights": "fp16", "kv_dtype": "fp8"}, {"T4", "V100-32GB", "A100-40GB"}, set()),
    ],
)
def test_fp8_is_served_by_gpus_that_have_it(given, refused, noted):
    small = models.load("Llama-3.2-1B")
    made = plan.serve(small, ServingShape(context=1024, **given), "T4,V100-32GB,A100-40GB,L4,H100")
    whole = {row.request.removeprefix("whole:"): row for row in made.rows if row.request.startswith("whole:")}
    assert {name for name, row in whole.items() if not row.fits} == refused
    assert all(whole[name].why for name in refused)
    assert {name for name, row in whole.items() if row.fits and row.why} == noted
    slices = [row for row in made.rows if row.gpus == ("A100-40GB",) and row.request == "mig:3g.20gb"]
    assert [row.fits for row in slices] == ["A100-40GB" not in refused]


@pytest.mark.parametrize("margin", [-0.1, 1.0])
def test_a_margin_is_a_share(margin):
    with pytest.raises(SpecError, match="margin is"):
        plan.train(LLAMA, shape(), "L4", margin)


def test_this_machine_takes_what_fits_and_refuses_what_cannot():
    small = estimate(models.load("SmolLM2-135M"), shape(device="cpu", sequence_length=128))
    room = machine.MachineMemory(available=8 * GIB, total=16 * GIB, limited=False)
    assert plan.fits_here(small, found=room).fits
    large = estimate(LLAMA, shape(device="cpu", method="full"))
    refused = plan.fits_here(large, found=room)
    assert not refused.fits
    assert re.search(
        r"needs \d+\.\d GiB and this machine has 8\.0 GiB free, of which 2\.0 GiB is kept free", refused.why
    )
    # The margin counts.
    tight = machine.MachineMemory(available=int(small.total * 1.05), total=16 * GIB, limited=True)
    assert not plan.fits_here(small, found=tight).fits
    assert plan.fits_here(small, margin=0.04, found=tight).fits


def test_a_containers_limit_counts(tmp_path: Path):
    """cgroup v2: the nearest limit, the use of it less what can be dropped."""
    own = tmp_path / "own"
    own.write_text("0::/pods/mine\n")
    place = tmp_path / "fs" / "pods" / "mine"
    place.mkdir(parents=True)
    (place / "memory.max").write_text("1000000000\n")
    (place / "memory.current").write_text("600000000\n")
    (place / "memory.stat").write_text("anon 1\ninactive_file 200000000\n")
    (place.parent / "memory.max").write_text("max\n")
    found = machine.memory(tmp_path / "fs", own)
    assert (found.available, found.total, found.limited) == (600_000_000, 1_000_000_000, True)
    (place / "memory.max").write_text("max\n")
    free = machine.memory(tmp_path / "fs", own)
    assert not free.limited
    assert free.total == psutil.virtual_memory().total


def test_the_older_kind_of_limit_counts_too(tmp_path: Path):
    """cgroup v1, with the host's path in /proc/self/cgroup: the mount itself is the container's."""
    own = tmp_path / "own"
    own.write_text("5:cpu:/x\n4:memory:/docker/abc\n")
    mount = tmp_path / "fs" / "memory"
    mount.mkdir(parents=True)
    (mount / "memory.limit_in_bytes").write_text("500000000\n")
    (mount / "memory.usage_in_bytes").write_text("100000000\n")
    found = machine.memory(tmp_path / "fs", own)
    assert (found.available, found.limited) == (400_000_000, True)


def test_json_holds_integers_and_the_request():
    done = goldpath(
        "train", "--model", "Llama-3.1-8B", "--gpu", "A100-80GB,L4", "--gradient-checkpointing", "--json"
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["cheapest"] == "mig:1g.20gb"
    assert found["need"] == sum(found["components"].values())
    assert all(isinstance(size, int) for size in found["components"].values())
    assert found["shape"]["gradient_checkpointing"] is True
    served = json.loads(goldpath("serve", "--model", "Qwen2.5-7B", "--gpu", "L4", "--json").output)
    assert served["components"]["kv_cache"] == 8192 * 57_344
    assert served["rows"][0]["capacity"]["longest_context"] > 8192


def test_the_table_is_never_cut_and_the_verdict_is_clear():
    done = goldpath(
        "train", "--model", "Llama-3.1-8B", "--gpu", "A100-80GB,L4,T4", "--gradient-checkpointing"
    )
    assert done.exit_code == 0
    assert "…" not in done.output
    assert "Fits: the cheapest of 9 is mig:1g.20gb" in done.output
    served = goldpath("serve", "--model", "Qwen2.5-7B", "--gpu", "A100-80GB", "--concurrency", "8")
    assert "…" not in served.output
    assert "cheapest" in served.output
    refused = goldpath("serve", "--model", "Qwen2.5-7B", "--gpu", "T4,A100-80GB", "--dtype", "fp8")
    assert "…" not in refused.output
    (row,) = [line.split() for line in refused.output.splitlines() if "whole:T4" in line]
    assert row[4:8] == ["-", "-", "-", "no"]
    assert done.output.count("Fits: the cheapest") == 1
    long = goldpath("train", "--model", "Llama-3.1-8B").output.split("REQUEST")
    assert len(long[1].splitlines()) > 40
    assert all("Fits: the cheapest of" in part for part in long), "above and below a table that scrolls"
    nowhere = goldpath("train", "--model", "Llama-3.1-70B", "--method", "full", "--gpu", "L4")
    assert nowhere.exit_code == 0
    assert "Fits nowhere: it needs" in nowhere.output
    assert "What would help:" in nowhere.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "A1000"],
            "no GPU 'A1000' in the catalogue. Near it: A100-80GB",
        ),
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "GB300"],
            "It can be asked for all the same: whole:GB300. Near it: GB200",
        ),
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "GB200:3g.93gb"],
            "how much memory 3g.93gb of GB200 has is not in the catalogue",
        ),
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "mig:1g.11gb"],
            "no GPU of the catalogue has the profile 1g.11gb. Profiles: 1g.6gb",
        ),
        (
            ["serve", "--model", "Llama-3.1-8B", "--gpu", "A30:1g.10gb"],
            "A30 has no profile 1g.10gb; it has 1g.6gb, 2g.12gb, 4g.24gb. Give one of these. 1g.10gb is of A100-40GB",
        ),
        (["train", "--model", "Llama-3.1-8B", "--gpu", "L4:1g.10gb"], "L4 has no MIG"),
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "mig:7g.186gb"],
            "how much memory 7g.186gb of GB200 has is not in the catalogue, so nothing can be planned for it",
        ),
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "A100:"],
            "nothing stands after A100:. Give A100, or one",
        ),
        (["serve", "--model", "Llama-3.1-8B", "--gpu", "none"], "none asks for no GPU"),
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "mig:1g.10gb*2"],
            "mig:1g.10gb*2 asks for 2 MIG slices, which do not work together",
        ),
        (
            ["serve", "--model", "Llama-3.1-8B", "--gpu", "whole:T4*4", "--tp", "2"],
            "--tp is 2 and whole:T4*4 asks for 4 devices. Leave --tp away, or the count.",
        ),
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "whole:T4*4,whole:L4*2"],
            "whole:T4*4, whole:L4*2 are of different counts",
        ),
        (
            ["train", "--model", "Llama-3.1-8B", "--gpu", "whole:L4+mig:1g.10gb"],
            "Plan for each by itself: whole:L4, mig:1g.10gb.",
        ),
        (["train", "--model", "Llama-9"], "Llama-9"),
        (["train", "--model", "Llama-3.1-8B", "--sequence-length", "200000"], "131072 positions"),
        (["train", "--model", "Llama-3.1-8B", "--sharding", "zero3"], "zero3 over 1 GPU"),
        (["train", "--model", "Llama-3.1-8B", "--batch-size", "0"], "batch_size is 0: use 1 or more."),
        (["train", "--model", "Llama-3.1-8B", "--lora-rank", "5000"], "lora_rank is 5000: use 1024 or less."),
        (["serve", "--model", "Llama-3.1-8B", "--utilization", "2"], "utilization is 2: use 1 or less."),
        (["train", "--model", "Llama-3.1-8B", "--margin", "2"], "margin is 2"),
        (["serve", "--model", "Llama-3.1-8B", "--tp", "3"], "3"),
        (["serve", "--model", "Llama-3.1-8B", "--context", "0"], "context is 0: use 1 or more."),
        (["train"], "--model"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_two(words, says):
    done = subprocess.run(
        [sys.executable, "-m", "goldpath.cli.main", "plan", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in done.stderr


def test_planning_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['goldpath', 'plan', 'train', '--model', 'Llama-3.1-8B', '--json']\n"
        "from goldpath.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'kfp', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
