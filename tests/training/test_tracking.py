"""Tracking: what is logged is in MLflow; a store that fails does not fail the training."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from goldpath.core import settings
from goldpath.core.errors import Interrupted, StepError
from goldpath.training.tracking import Tracker, tracked


def runs(experiment: str) -> list[Any]:
    client = MlflowClient(settings.tracking_uri())
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id]))


def history(run: Any, metric: str) -> list[tuple[int, float]]:
    client = MlflowClient(settings.tracking_uri())
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]


def test_rows_parameters_and_names_are_logged(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_RUN", "run-1")
    with tracked(
        "tuned", "trial-3", {"learning_rate": 0.001, "long": "x" * 700}, {"kind": "trial"}
    ) as tracker:
        tracker.log({"step": 1.0, "loss": 2.0})
        tracker.log({"step": 2.0, "loss": 1.5, "eval_loss": 1.75})
    (run,) = runs("tuned")
    assert run.info.run_name == "run-1-trial-3"
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.001"
    assert run.data.tags["goldpath.run"] == "run-1"
    assert run.data.tags["kind"] == "trial"
    assert history(run, "loss") == [(1, 2.0), (2, 1.5)]
    assert history(run, "eval_loss") == [(2, 1.75)]


def interrupted(tracker: Tracker) -> None:
    tracker.log({"step": 1.0, "loss": 2.0})
    raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_in_its_run(home: Path, tmp_path: Path) -> None:
    memory = tmp_path / "mlflow.json"
    with (
        pytest.raises(KeyboardInterrupt),
        tracked("resumed", "fine-tune", {"a": 1}, memory=memory) as tracker,
    ):
        interrupted(tracker)
    assert [run.info.status for run in runs("resumed")] == ["KILLED"]
    with tracked("resumed", "fine-tune", {"a": 1}, memory=memory) as tracker:
        tracker.log({"step": 2.0, "loss": 1.0})
    (run,) = runs("resumed")
    assert run.info.status == "FINISHED"
    assert history(run, "loss") == [(1, 2.0), (2, 1.0)]
    memory.write_text(json.dumps({"run_id": "0" * 32}))
    with pytest.raises(ValueError, match="mine"), tracked("resumed", "fine-tune", {"a": 1}, memory=memory):
        raise ValueError("mine")
    assert sorted(run.info.status for run in runs("resumed")) == ["FAILED", "FINISHED"]


@pytest.mark.parametrize(
    ("error", "status", "seconds"),
    [
        (Interrupted("stopped by SIGTERM"), "KILLED", 10.0),
        (KeyboardInterrupt(), "KILLED", 10.0),
        (StepError("training failed"), "FAILED", 60.0),
    ],
)
def test_who_was_told_to_end_is_killed_and_waits_less(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: str, seconds: float
) -> None:
    waited: list[float | None] = []
    plain = threading.Thread.join

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "mlflow":
            waited.append(timeout)
        plain(thread)

    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(type(error)), tracked("ended", "fine-tune", {}):
        raise error
    assert [run.info.status for run in runs("ended")] == [status]
    assert waited == [seconds]


def test_a_store_that_fails_is_told_and_harms_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "mlflow.db"
    damaged.write_text("this is not a database, it only lies where one should be")
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{damaged}")
    monkeypatch.setenv("GOLDPATH_EVENTS", str(events))
    tracker = Tracker("any", "name", {})
    tracker.log({"step": 1.0, "loss": 2.0})
    tracker.finish()
    assert "is damaged" in tracker.failure
    assert [json.loads(line)["kind"] for line in events.read_text().splitlines()] == ["tracking-failed"]
