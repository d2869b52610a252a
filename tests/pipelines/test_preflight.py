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


def test_a_port_that_is_taken(check):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {port} is taken"):
            check(overrides={"deploy": {"port": port}})
