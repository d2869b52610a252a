"""What is refused before a run starts."""

import json
import socket

import pytest

from goldpath.core.errors import InputError, MachineError, SpecError
from goldpath.pipelines import catalogue, launch, preflight, runs

LORA_ONLY = {"parameters": [{"name": "lora_rank", "type": "int", "min": 4, "max": 8}]}


@pytest.fixture
def check(home, tmp_path, monkeypatch):
    """Check the default form with some values of its own; the data set is five short chats."""
    from tests.models import make_tiny_model

    rows = [{"prompt": f"What is {n} and {n}?", "completion": f"It is just {2 * n}."} for n in range(20)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_tiny_model(tmp_path / "base")
    ours = {"dataset": str(tmp_path / "chats.jsonl"), "model": str(tmp_path / "base")}

    def checked(**given):
        form = {field.name: field.default for field in catalogue.form("finetune")}
        preflight.check("finetune", form | ours | given)

    return checked


def test_what_can_run_is_not_refused(check, home, monkeypatch):
    check()
    check(method="full")  # its search leaves LoRA's parameters out
    check(method="full", max_trials=0, overrides={"tune": LORA_ONLY})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mine.db'}")
    monkeypatch.setenv("GOLDPATH_BACKEND", "kubernetes")  # a run on this machine deploys on this machine
    check()


def test_a_registry_on_another_machine(check, home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    with pytest.raises(InputError, match=r"MLFLOW_TRACKING_URI is http://mlflow.example:5000.*Unset it"):
        check()
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        launch.prepare("finetune", {})
    assert runs.all_runs() == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"overrides": {"tune": LORA_ONLY}}, r"varies lora_rank, and method full has no LoRA parameters"),
        ({"algorithm": "cmaes"}, r"cmaes needs two or more parameters.*learning_rate"),
    ],
)
def test_a_search_that_method_full_leaves_nothing_of(check, given, says):
    with pytest.raises(SpecError, match=says):
        check(method="full", **given)
    check(method="lora", **{**given, "algorithm": "tpe"})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"name": "Not OK!"},
            'name is "Not OK!": use at most 50 lower-case letters, digits and dashes, with',
        ),
        (
            {"overrides": {"deploy": {"model_name": "?"}}},
            'overrides.deploy.model_name is "?": use at most 96',
        ),
        (
            {"overrides": {"deploy": {"device": "tpu"}}},
            'overrides.deploy.device is "tpu": use auto, cpu, cuda',
        ),
        ({"overrides": {"deploy": {"port": 99_999}}}, "overrides.deploy.port is 99999: use 65535 or less"),
        ({"overrides": {"deploy": {"model_uri": "/"}}}, "overrides.deploy.model_uri cannot be set"),
        ({"overrides": {"warm_cache": {"model_digest": ""}}}, "overrides.warm_cache.model_digest cannot be"),
        ({"overrides": {"warm_cache": {"paralel": 3}}}, "overrides.warm_cache.paralel is not a field"),
        ({"overrides": {"probe": {"repeats": 0}}}, "overrides.probe.repeats is 0"),
        ({"overrides": {"build_features": {"online_row": 0}}}, "overrides.build_features.online_row is not"),
        ({"overrides": {"fine_tune": {"batch_size": 0}}}, "overrides.fine_tune.batch_size is 0"),
        (
            {"overrides": {"evaluate": {"gate": {"min_loss_drop": 2}}}},
            "overrides.evaluate.gate.min_loss_drop is",
        ),
    ],
)
def test_a_wrong_value_is_named_once_as_it_was_typed_and_in_words(check, given, says):
    with pytest.raises(SpecError) as caught:
        check(**given)
    line = caught.value.line()
    assert line.startswith(says)
    assert "^" not in line
    assert "; " not in line


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"gpu": "mig:1g.11gb"}, SpecError, "GPU request 'mig:1g.11gb': no GPU has the MIG profile 1g.11gb"),
        ({"gpu": "H100"}, SpecError, "GPU request 'H100': 'H100' is no kind of request. Write whole:H100"),
        (
            {"gpu": "mig:1g.10gb"},
            MachineError,
            "gpu is mig:1g.10gb and this machine has no CUDA GPU. Use gpu=auto",
        ),
        ({"gpu": "none", "method": "qlora"}, SpecError, "method qlora needs a CUDA GPU and gpu is none. Use"),
        ({"method": "qlora"}, MachineError, "method qlora needs a CUDA GPU and this machine has none. Use"),
        (
            {"overrides": {"plan_resources": {"gpus": "H1000"}}},
            SpecError,
            "no GPU 'H1000' in the catalogue. Near it: H100",
        ),
        (
            {"overrides": {"plan_resources": {"gpu": "none"}}},
            SpecError,
            "overrides.plan_resources.gpu cannot be",
        ),
        ({"overrides": {"fine_tune": {"gpu": "none"}}}, SpecError, "overrides.fine_tune.gpu cannot be set"),
        ({"overrides": {"plan_resources": {"margin": 1}}}, SpecError, "overrides.plan_resources.margin is 1"),
        (
            {"overrides": {"fine_tune": {"batch_size": 4096, "sequence_length": 256}}},
            MachineError,
            "the training needs .* GiB and this machine has 2.0 GiB free, of which 1.5 GiB may be used .*"
            r"Set overrides.fine_tune.batch_size to \d+: that needs",
        ),
    ],
)
def test_a_gpu_or_memory_that_cannot_be_had(check, monkeypatch, given, kind, says):
    from goldpath.accelerators import machine

    monkeypatch.setattr(machine, "gpus", tuple)
    room = machine.MachineMemory(available=2 * 2**30, total=4 * 2**30, limited=False)
    monkeypatch.setattr(machine, "memory", lambda: room)
    check(gpu="auto")
    check(gpu="none")
    with pytest.raises(kind, match=says) as caught:
        check(**given)
    assert "\n" not in caught.value.line()


def test_a_port_that_is_taken(check):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {port} is taken"):
            check(overrides={"deploy": {"port": port}})
