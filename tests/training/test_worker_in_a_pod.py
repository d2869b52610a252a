"""The worker as a pod runs it: spec from the environment, outputs at a URI, measures for a trial, progress."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from goldpath.core import storage
from goldpath.core.errors import MachineError
from goldpath.core.modelfiles import check_model_folder
from goldpath.core.ports import free_port
from goldpath.training import loop, worker
from goldpath.training.job import COMPLETE
from goldpath.training.launch import SPEC_VARIABLE, arguments, torchrun
from goldpath.training.mirror import Mirror, is_remote
from goldpath.training.specs import TrainSpec
from tests.buckets import bucket

BASE: dict[str, Any] = {
    "max_steps": 4,
    "learning_rate": 5e-3,
    "sequence_length": 128,
    "checkpoint_steps": 1,
    "evaluate_steps": 2,
    "precision": "fp32",
}


@pytest.fixture(autouse=True)
def in_a_pod(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod finds its spec in the environment."""
    monkeypatch.setenv(SPEC_VARIABLE, json.dumps({**TrainSpec().model_dump(mode="json"), **BASE}))


def work(out: str, frame: Path, model: Path, **more: Any) -> int:
    uris = {"frame": frame.as_uri(), "base": model.as_uri(), "out": out}
    return worker.main(arguments(spec=f"env:{SPEC_VARIABLE}", **uris, **more))


def test_outputs_at_a_uri_are_those_of_a_disk(tmp_path: Path, frame: Path, model: Path) -> None:
    store = tmp_path / "store"
    assert work(f"local://{store}/run", frame, model) == 0
    assert work((tmp_path / "disk").as_uri(), frame, model) == 0
    check_model_folder(store / "run/model")
    assert json.loads((store / "run/outcome.json").read_text())["figures"]["steps"] == 4
    assert len((store / "run/metrics.jsonl").read_text().splitlines()) == 4
    assert (store / "run/adapter").is_dir()
    assert not (store / "run/checkpoints").exists()
    weights = [load_file(folder / "model/model.safetensors") for folder in (store / "run", tmp_path / "disk")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_what_a_step_has_kept_is_brought_once_and_checked(
    home: Path, tmp_path: Path, frame: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model lies inside a build, whose digests lie beside it; all processes of a node share the copy."""
    kept, out = f"local://{tmp_path}/team/store/base/{'a' * 32}/{'b' * 32}", (tmp_path / "out").as_uri()
    build = tmp_path / "build"
    shutil.copytree(model, build / "model")
    storage.put(build, kept)
    asked = arguments(spec=f"env:{SPEC_VARIABLE}", frame=frame.as_uri(), base=f"{kept}/model", out=out)
    assert worker.main(asked) == 0
    (brought,) = home.glob("brought/base/*/*/model/config.json")
    brought.unlink()  # had a second process brought its own, it would have one
    assert worker.main(asked) == 2
    shutil.rmtree(home)
    (tmp_path / "team/store/base" / ("a" * 32) / ("b" * 32) / "model/config.json").write_text("{}")
    assert worker.main(asked) == 2
    said = json.loads((tmp_path / "out/outcome.json").read_text())["error"]["message"]
    assert "config.json" in said
    assert "damaged" in said


def test_a_pod_goes_on_from_what_an_evicted_one_left(
    tmp_path: Path, frame: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eviction comes while the third checkpoint is under way: its files are there, its mark is not."""
    store, whole = tmp_path / "store", tmp_path / "whole"
    keep = Mirror.keep

    def evicted(self: Mirror, checkpoint: Path) -> None:
        if checkpoint.name == "checkpoint-3" and (checkpoint / COMPLETE).exists():
            raise MachineError("evicted")
        keep(self, checkpoint)

    with monkeypatch.context() as patched:
        patched.setattr(Mirror, "keep", evicted)
        assert work(f"local://{store}/run", frame, model) == 2
    left = sorted(path.parent.name for path in store.glob(f"run/checkpoints/*/{COMPLETE}"))
    assert left == ["checkpoint-1", "checkpoint-2"]
    assert (store / "run/checkpoints/checkpoint-3").is_dir()
    assert json.loads((store / "run/outcome.json").read_text())["error"]["message"] == "evicted"
    assert work(f"local://{store}/run", frame, model) == 0
    figures = json.loads((store / "run/outcome.json").read_text())["figures"]
    assert (figures["resumed_from"], figures["steps"]) == (2, 4)
    steps = [json.loads(line)["step"] for line in (store / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert work(whole.as_uri(), frame, model) == 0
    found, wanted = (load_file(folder / "model/model.safetensors") for folder in (store / "run", whole))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_checkpoints_stay_on_a_claim_and_the_next_pod_goes_on_from_there(
    tmp_path: Path, frame: Path, model: Path
) -> None:
    store, claim = tmp_path / "store", tmp_path / "claim/fine-tune-key"
    store.mkdir()
    (store / "run").mkdir()
    (store / "run/model").write_text("in the way")  # the first pod cannot send its model
    assert work(f"local://{store}/run", frame, model, folder=str(claim)) == 2
    assert (claim / f"checkpoints/checkpoint-4/{COMPLETE}").is_file()
    assert not (store / "run/checkpoints").exists()
    shutil.rmtree(claim / "checkpoints/checkpoint-4")
    (store / "run/model").unlink()
    assert work(f"local://{store}/run", frame, model, folder=str(claim)) == 0
    figures = json.loads((store / "run/outcome.json").read_text())["figures"]
    assert (figures["resumed_from"], figures["steps"]) == (3, 4)
    check_model_folder(store / "run/model")
    assert not claim.exists(), "it has served"
    assert work((tmp_path / "whole").as_uri(), frame, model) == 0
    found, wanted = (
        load_file(folder / "model/model.safetensors") for folder in (store / "run", tmp_path / "whole")
    )
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_old_checkpoints_go_and_torn_ones_are_passed_over(tmp_path: Path) -> None:
    mirror = Mirror(f"local://{tmp_path}/store", tmp_path / "here")
    for step in (1, 2, 10):
        folder = tmp_path / f"here/checkpoints/checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(step))
        mirror.keep(folder)
        (folder / COMPLETE).write_text(json.dumps({"step": step}))
        mirror.keep(folder)
    kept = {path.name for path in (tmp_path / "store/checkpoints").iterdir()}
    assert kept == {"checkpoint-2", "checkpoint-10"}
    (tmp_path / f"store/checkpoints/checkpoint-10/{COMPLETE}").unlink()
    shutil.rmtree(tmp_path / "here")
    mirror.pull()
    assert [path.name for path in (tmp_path / "here/checkpoints").iterdir()] == ["checkpoint-2"]
    assert (tmp_path / "here/checkpoints/checkpoint-2/weights").read_text() == "2"


def test_an_object_store_keeps_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    with bucket(monkeypatch, "models"):
        client = boto3.client("s3")
        mirror = Mirror("s3://models/run", tmp_path / "one")
        (tmp_path / "one/model").mkdir(parents=True)
        (tmp_path / "one/model/weights").write_text("trained")
        (tmp_path / "one/metrics.jsonl").write_text("{}")
        for step in (1, 2, 3):
            folder = tmp_path / f"one/checkpoints/checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "weights").write_text(str(step))
            mirror.keep(folder)
            (folder / COMPLETE).write_text(json.dumps({"step": step}))
            mirror.keep(folder)
        other = Mirror("s3://models/run", tmp_path / "two")
        other.pull()
        found = [path.relative_to(tmp_path / "two").as_posix() for path in (tmp_path / "two").rglob("*")]
        assert "checkpoints/checkpoint-3/weights" in found
        assert "metrics.jsonl" in found
        assert not any("checkpoint-2" in path for path in found)
        listed = client.list_objects_v2(Bucket="models")["Contents"]
        assert not any("checkpoint-1/" in one["Key"] for one in listed)
        mirror.finish()
        keys = [one["Key"] for one in client.list_objects_v2(Bucket="models")["Contents"]]
        assert sorted(keys) == ["run/metrics.jsonl", "run/model/weights"]


def test_a_store_that_refuses_is_told_in_words(tmp_path: Path, frame: Path, model: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match="outputs cannot be kept at local://"):
        Mirror(f"local://{tmp_path}/file/run", tmp_path).push("file")
    with pytest.raises(MachineError, match="nowhere://x"):
        Mirror("nowhere://x", tmp_path).pull()
    assert work("nowhere://x/y", frame, model) == 2


def test_paths_are_of_this_machine_and_other_schemes_are_not() -> None:
    assert [is_remote(uri) for uri in ("/x", "file:///x", "s3://b/x")] == [False, False, True]


def test_a_trial_has_its_parameters_and_says_its_measures(
    tmp_path: Path,
    frame: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KATIB_TRIAL_NAME", "tuning-abc")
    chosen = {"max_steps": "2", "learning_rate": "1e-03", "lora_rank": "8"}
    assert work((tmp_path / "out").as_uri(), frame, model, save_model=False, chosen=chosen) == 0
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    said = dict(line.split("=") for line in capsys.readouterr().out.splitlines() if line.startswith("eval_"))
    assert float(said["eval_loss"]) == rows[-1]["eval_loss"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"speed": "1"}, "speed is not a field of TrainSpec"),
    ],
)
def test_a_wrong_parameter_is_refused(
    tmp_path: Path,
    frame: Path,
    model: Path,
    asked: dict[str, str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert work((tmp_path / "out").as_uri(), frame, model, chosen=asked) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_spec_that_is_not_in_the_environment_is_refused(
    tmp_path: Path,
    frame: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(SPEC_VARIABLE)
    assert work((tmp_path / "out").as_uri(), frame, model) == 2
    assert f"the variable {SPEC_VARIABLE} holds no TrainSpec" in capsys.readouterr().err


@pytest.mark.parametrize("told", [True, False])
def test_progress_goes_to_the_trainers_controller_where_it_asks_for_it(
    tmp_path: Path, frame: Path, model: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    from transformers.integrations.integration_utils import KubeflowCallback

    seen: list[dict[str, Any]] = []

    def update(self: Any, **values: Any) -> bool:
        seen.append(values)
        return True

    monkeypatch.setattr(KubeflowCallback, "_update_status", update)
    monkeypatch.delenv("KUBEFLOW_TRAINER_SERVER_URL", raising=False)
    if told:
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "https://trainer.example/status")
    assert work((tmp_path / "out").as_uri(), frame, model) == 0
    assert bool(seen) == told
    assert not told or seen[-1]["progress_percent"] == 100


def test_a_whole_checkpoint_is_kept_in_two_steps(tmp_path: Path) -> None:
    """In all processes before it is whole, then by the leader with its mark."""
    seen: list[bool] = []
    spec = TrainSpec.parse(BASE)
    job = loop.Job(
        spec,
        tmp_path,
        tmp_path,
        tmp_path,
        on_checkpoint=lambda folder: seen.append((folder / COMPLETE).exists()),
    )
    recorder = loop.Recorder(job, [None] * 4, [], None)  # type: ignore[arg-type]
    state = type("State", (), {"global_step": 2, "is_world_process_zero": True})
    (tmp_path / "checkpoints/checkpoint-2").mkdir(parents=True)
    recorder.on_save(None, state, None)
    assert seen == [False, True]


@pytest.mark.e2e
def test_each_of_two_processes_keeps_what_it_wrote(tmp_path: Path, frame: Path, model: Path) -> None:
    """The model cannot be sent at first, so that checkpoints of both processes stay; the next pod goes on from them."""
    store = tmp_path / "store/run"
    store.mkdir(parents=True)
    (store / "model").write_text("in the way")
    asked = {**TrainSpec().model_dump(mode="json"), **BASE, "checkpoint_steps": 2, "processes": 2}
    env = {
        **os.environ,
        "PET_NNODES": "1",
        "PET_NPROC_PER_NODE": "2",
        "PET_NODE_RANK": "0",
        "PET_MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        SPEC_VARIABLE: json.dumps(asked),
    }
    uris = {"frame": frame.as_uri(), "base": model.as_uri(), "out": f"local://{store}"}
    command = [sys.executable, *torchrun(), *arguments(spec=f"env:{SPEC_VARIABLE}", **uris)]

    def run() -> int:
        told = {**env, "PET_MASTER_PORT": str(free_port())}
        return subprocess.run(command, env=told, capture_output=True, check=False, timeout=120).returncode

    assert run() != 0
    last = store / "checkpoints/checkpoint-4"
    assert {"rng_state_0.pth", "rng_state_1.pth", COMPLETE} <= {path.name for path in last.iterdir()}
    (store / "model").unlink()
    assert run() == 0
    assert json.loads((store / "outcome.json").read_text())["figures"]["resumed_from"] == 4
    check_model_folder(store / "model")
