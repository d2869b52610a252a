"""Fine-tuning through its child process: reuse, real kills, resume, several processes, and failures explained."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from mlflow import MlflowClient

from goldpath.core import files, settings
from goldpath.core.digest import digest_manifest, manifest
from goldpath.core.errors import DataError, GoldpathError, MachineError, ModelError, SpecError, StepError
from goldpath.core.modelfiles import check_model_folder
from goldpath.core.progress import progress
from goldpath.training import finetune, loop, modeling
from goldpath.training.backends import local
from goldpath.training.job import Job
from goldpath.training.specs import TrainSpec

SPEC = TrainSpec.parse(
    {
        "max_steps": 30,
        "learning_rate": 3e-3,
        "batch_size": 2,
        "sequence_length": 96,
        "lora_dropout": 0.1,
        "checkpoint_steps": 3,
        "evaluate_steps": 10,
        "validation_rows": 6,
    }
)
# The parent kills its children and itself, with SIGKILL, as soon as it hears of step 10.
KILLED = """
import os, sys, psutil
from pathlib import Path
from goldpath.training import finetune
from goldpath.training.specs import TrainSpec

def killing(tracker):
    def log(row):
        tracker.log(row)
        if row["step"] >= 10:
            for child in psutil.Process().children(recursive=True):
                child.kill()
            os.kill(os.getpid(), 9)
        return False
    return log

finetune._logging = killing
frame, base, spec = Path(sys.argv[1]), Path(sys.argv[2]), TrainSpec.model_validate_json(sys.argv[3])
finetune.fine_tune(frame, "frame", base, "base", spec)
"""


def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]


def workers() -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "goldpath.training.worker" in " ".join(process.info["cmdline"] or []):
            found.append(process.pid)
    return found


@pytest.mark.e2e
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_been(
    home: Path, tmp_path: Path, frame: Path, model: Path
) -> None:
    whole = uninterrupted(frame, model, tmp_path / "whole")

    asked = [sys.executable, "-c", KILLED, str(frame), str(model), SPEC.model_dump_json()]
    killed = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=200)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    slot = next((home / "store/fine-tune").glob("*/metrics.jsonl")).parent
    assert not (slot / "result.json").exists()
    assert [line for line in map(command_line, workers()) if str(slot) in line] == []

    shown = home / "events.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLDPATH_EVENTS", str(shown))
        again = finetune.fine_tune(frame, "frame", model, "base", SPEC)
    first = json.loads(shown.read_text().splitlines()[0])
    assert first["done"] == again.result.resumed_from
    assert first["label"] == f"Fine-tuning resumed from step {again.result.resumed_from} of 30"
    assert again.path == slot
    assert not again.reused
    assert again.result.resumed_from in range(3, 30, 3)
    assert timeless(again.result.curve) == timeless(whole.rows())
    assert again.result.eval_loss == whole.rows()[-1]["eval_loss"]
    assert again.result.model_digest == digest_manifest(manifest(slot / "model"))
    assert manifest(slot / "model") == manifest(whole.out / "model")
    assert again.result.steps == 30
    check_model_folder(slot / "model")
    assert not (slot / "checkpoints").exists()

    once_more = finetune.fine_tune(frame, "frame", model, "base", SPEC)
    assert once_more.reused
    assert once_more.result == again.result
    check_tracking(again.result.curve)


def uninterrupted(frame: Path, model: Path, out: Path) -> Job:
    """The same training without a kill, by the same loop, in this process with as many threads as a child's."""
    job = Job(SPEC, frame, model, out)
    out.mkdir()
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or local.cores()))
    try:
        loop.train(job)
    finally:
        torch.set_num_threads(before)
    return job


def command_line(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""


def check_tracking(curve: list[dict[str, float]]) -> None:
    """One MLflow run, although the training was in two parts, with the whole curve."""
    client = MlflowClient(settings.tracking_uri())
    experiment = client.get_experiment_by_name(finetune.EXPERIMENT)
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id])[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.003"
    points = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "loss")}
    assert points[30] == curve[-1]["loss"]


@pytest.mark.e2e
def test_two_processes_train_one_model(tmp_path: Path, frame: Path, model: Path) -> None:
    spec = SPEC.model_copy(update={"processes": 2, "max_steps": 4, "evaluate_steps": 4, "lora_dropout": 0.0})
    heard: list[dict[str, float]] = []

    def stop_at_three(row: dict[str, float]) -> bool:
        heard.append(row)
        return row["step"] >= 3

    found = finetune.train_once(frame, model, spec, tmp_path / "two", on_metrics=stop_at_three)
    assert heard == found.curve
    assert found.stopped
    assert found.steps in (3, 4)
    assert [row["step"] for row in found.curve] == [1, 2, 3, 4][: found.steps]
    # The same sequences in one process, twice as many a step, give the same first loss.
    alone = spec.model_copy(update={"processes": 1, "batch_size": 4, "max_steps": 1})
    job = Job(alone, frame, model, tmp_path / "one", save_model=False)
    job.out.mkdir()
    loop.train(job)
    assert found.curve[0]["loss"] == pytest.approx(job.rows()[0]["loss"], rel=1e-3)


def test_a_true_from_on_metrics_asks_for_a_stop_and_other_lines_are_kept(
    tmp_path: Path, frame: Path, model: Path
) -> None:
    job = Job(SPEC, frame, model, tmp_path)
    log = io.StringIO()
    said = ['goldpath-training {"kind": "status", "status": "training"}', "a warning of a library"]
    row = {"step": 2.0, "loss": 1.5, "tokens_per_second": 90.4, "eval_loss": 1.25}
    with progress("Trial", 30, "steps") as bar:
        watch = finetune._Watch(job, bar, log, lambda row: row["step"] >= 2)
        for line in [*said, "goldpath-training " + json.dumps({"kind": "row", **row, "step": 1.0})]:
            watch.line(line)
        assert not job.stop.exists()
        watch.line("goldpath-training " + json.dumps({"kind": "row", **row}))
        assert (bar.done, bar.info) == (2, {"loss": 1.5, "tokens/s": 90, "validation loss": 1.25})
    assert job.stop.exists()
    assert log.getvalue() == "a warning of a library\n"
    assert watch.tail == deque(["a warning of a library"])


def test_what_cannot_work_is_refused_before_a_child_is_started(
    tmp_path: Path, frame: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "launch", lambda *_: pytest.fail("a child was started"))

    def refused(
        kind: type[GoldpathError], said: str, base: Path = model, data: Path = frame, **values: Any
    ) -> None:
        out = tmp_path / "out"
        with pytest.raises(kind, match=said):
            finetune.train_once(data, base, SPEC.model_copy(update=values), out)
        assert not (out / "model").exists()

    refused(ModelError, "does not exist", base=tmp_path / "none")
    refused(DataError, r"train\.parquet does not exist", data=tmp_path)
    refused(SpecError, "sequence_length is 4096", sequence_length=4096)
    monkeypatch.setattr(modeling, "has_bf16", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(MachineError, "qlora needs a CUDA GPU", method="qlora")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    refused(MachineError, "GB free and", method="full")
    (tmp_path / "file").touch()
    with pytest.raises(MachineError):
        finetune.train_once(frame, model, SPEC, tmp_path / "file/out")


def outcome_of(
    monkeypatch: pytest.MonkeyPatch, code: int, lines: list[str], left: dict[str, Any] | None
) -> None:
    def launch(job: Job, spec: Path, on_line: Any) -> int:
        if left is not None:
            files.write_json(job.outcome, left)
        for line in lines:
            on_line(line)
        return code

    monkeypatch.setattr(local, "launch", launch)


FAILURES: dict[str, tuple[int, list[str], dict[str, Any] | None, type[GoldpathError], str]] = {
    "said by the worker": (
        1,
        ["Traceback"],
        {"error": {"type": "SpecError", "message": "the training diverged", "remedy": "Lower it."}},
        SpecError,
        "the training diverged. Lower it.",
    ),
    "killed": (1, ["  exitcode  : -9 (pid: 5)"], None, MachineError, "ran out of memory"),
    "torchrun killed": (-9, [], None, MachineError, "ran out of memory"),
    "disk full": (1, ["OSError: [Errno 28] No space left on device"], None, MachineError, "the disk is full"),
    "disk full, outcome unwritten": (
        1,
        ["error: the disk is full: cannot write the checkpoint. Free some space."],
        None,
        MachineError,
        "the disk is full",
    ),
    "outcome unwritten": (1, ["error: no room. Make some."], None, StepError, "no room. Make some."),
    "raised": (
        1,
        ["[rank0]: torch.distributed.DistNetworkError: no route", "torch...ChildFailedError: x"],
        None,
        StepError,
        "torch.distributed.DistNetworkError: no route",
    ),
    "unknown": (3, ["Segmentation fault"], None, StepError, "exit code 3"),
    "no figures": (0, [], None, StepError, "exit code 0"),
}


@pytest.mark.parametrize(("code", "lines", "left", "kind", "said"), FAILURES.values(), ids=FAILURES)
def test_the_reason_of_a_failure_is_found(
    tmp_path: Path,
    frame: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    lines: list[str],
    left: dict[str, Any] | None,
    kind: type[GoldpathError],
    said: str,
) -> None:
    outcome_of(monkeypatch, code, lines, left)
    with pytest.raises(GoldpathError) as caught:
        finetune.train_once(frame, model, SPEC, tmp_path)
    assert type(caught.value) is kind
    assert said in caught.value.line()


def test_a_log_that_cannot_be_written_is_explained(
    tmp_path: Path, frame: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local, "launch", launch)
    with pytest.raises(MachineError, match="the disk is full"):
        finetune.train_once(frame, model, SPEC, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", -1),
        ("learning_rate", float("nan")),
        ("learning_rate", 10),
        ("batch_size", 0),
        ("max_steps", -5),
        ("lora_rank", 0),
        ("lora_dropout", 1),
        ("method", "magic"),
        ("precision", "fp8"),
        ("sequence_length", 4),
        ("processes", 0),
    ],
)
def test_absurd_hyperparameters_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"^{field} is "):
        TrainSpec.parse({field: value})


def test_torchrun_is_started_as_a_pod_would(tmp_path: Path) -> None:
    job = Job(
        SPEC.model_copy(update={"processes": 3}),
        tmp_path / "f",
        tmp_path / "b",
        tmp_path / "o",
        save_model=False,
    )
    made = local.command(job, tmp_path / "spec.json")
    assert made[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert made[made.index("--nproc-per-node") + 1] == "3"
    assert made[made.index("--master-addr") + 1] == "127.0.0.1"
    assert made[made.index("--base") + 1] == (tmp_path / "b").as_uri()
    assert made[-1] == "--no-model"
    assert local.cores() == len(os.sched_getaffinity(0))
