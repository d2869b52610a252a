"""Live objects of the Trainer and of Katib, as their controllers write them, read into our results."""

from __future__ import annotations

from typing import Any

import pytest

from goldpath.training.manifests import read
from goldpath.training.results import SearchResult
from goldpath.training.specs import SearchSpec, TrainSpec

SEARCH = SearchSpec()


def condition(kind: str, status: str = "True", **more: str) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": kind, "message": "", **more}


def thing(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "tuning"}, "status": {"conditions": list(conditions), **status}}


def jobs(**counts: int) -> list[dict[str, Any]]:
    zero = dict.fromkeys(("active", "failed", "ready", "succeeded", "suspended"), 0)
    return [{"name": "node", **zero, **counts}]


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ({"metadata": {}}, "waiting"),
        ({"metadata": {}, "status": {}}, "waiting"),
        (thing(jobsStatus=jobs()), "waiting"),
        (thing(jobsStatus=jobs(active=1)), "running"),
        (thing(trainerStatus={"progressPercentage": 3}), "running"),
        (thing(condition("Suspended")), "suspended"),
        (thing(condition("Suspended", "False"), jobsStatus=jobs(active=1)), "running"),
        (
            thing(condition("Suspended", "False"), condition("Complete"), jobsStatus=jobs(active=1)),
            "succeeded",
        ),
        (thing(condition("Failed")), "failed"),
        (thing(condition("Failed", "False")), "waiting"),
        (thing(condition("Created"), condition("Running")), "running"),  # PyTorchJob, Experiment
        (thing(condition("Created"), condition("Running", "False"), condition("Succeeded")), "succeeded"),
    ],
)
def test_conditions_say_how_an_object_stands(found: dict[str, Any], state: str) -> None:
    verdict = read.verdict(found)
    assert verdict.state == state
    assert verdict.ended == (state in ("succeeded", "failed"))


def test_a_failure_says_why_and_where() -> None:
    failed = condition("Failed", reason="DeadlineExceeded", message="TrainJob was active too\nlong")
    verdict = read.verdict(thing(failed, jobsStatus=jobs(failed=1)))
    assert verdict.reason == "DeadlineExceeded"
    assert verdict.message == (
        "it took longer than its activeDeadlineSeconds. TrainJob was active too long (failed: node)"
    )


def test_progress_is_what_the_trainer_reports() -> None:
    reported = {
        "progressPercentage": 45,
        "estimatedRemainingSeconds": 120,
        "metrics": [{"name": "loss", "value": "0.25"}, {"name": "note", "value": "warm"}],
        "lastUpdatedTime": "2026-11-24T13:00:00Z",
    }
    found = read.progress(thing(trainerStatus=reported))
    assert (found.percent, found.remaining_seconds, found.metrics) == (45, 120, {"loss": 0.25})
    assert found.updated == "2026-11-24T13:00:00Z"
    assert read.progress({"metadata": {}}) == read.Progress()


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("1e-05", 1e-5), ("unavailable", None), ("nan", None), (None, None)]
)
def test_measures_arrive_as_strings(text: str | None, value: float | None) -> None:
    assert read.number(text) == value


def trial(name: str, kind: str | None, value: str = "unavailable", **more: Any) -> dict[str, Any]:
    given = {"learning_rate": "0.001", "lora_rank": "8", **more.pop("given", {})}
    status = {
        "startTime": "2026-11-24T13:00:00Z",
        "completionTime": "2026-11-24T13:01:30Z",
        "observation": {"metrics": [{"name": "eval_loss", "latest": value, "min": "0.1", "max": "9"}]},
    }
    conditions = [condition("Created"), *([condition(kind, **more.pop("said", {}))] if kind else [])]
    return {
        "metadata": {"name": name, "creationTimestamp": more.pop("created", "2026-11-24T12:00:00Z")},
        "spec": {"parameterAssignments": [{"name": key, "value": text} for key, text in given.items()]},
        "status": {**status, "conditions": conditions},
    }


def result(*trials: dict[str, Any], **values: Any) -> SearchResult:
    return read.search_result(trials, SearchSpec.parse(values), TrainSpec())


def test_trials_come_back_as_those_of_the_local_search() -> None:
    found = result(
        trial("t-b", "Succeeded", "1.25", given={"learning_rate": "3e-3", "lora_rank": "16"}, created="2"),
        trial("t-a", "Succeeded", "1.5", created="1"),
        trial("t-c", "EarlyStopped", "1.0", created="3"),
        trial("t-d", "Failed", said={"message": "Trial has failed.\nJob message: OOM"}, created="4"),
        trial("t-e", None, created="5"),
    )
    assert [(one.number, one.status, one.objective) for one in found.trials] == [
        (0, "succeeded", 1.5),
        (1, "succeeded", 1.25),
        (2, "stopped", 1.0),
        (3, "failed", None),
    ]
    assert found.best is not None
    assert found.best.number == 1  # a trial that went its whole way is better than a stopped one
    assert found.best.parameters == {"learning_rate": 3e-3, "lora_rank": 16}
    assert found.hyperparameters["lora_rank"] == 16
    assert found.hyperparameters["batch_size"] == TrainSpec().batch_size
    assert found.best.seconds == 90
    assert found.best.curve == [(SEARCH.trial_steps, 1.25)]
    assert found.trials[3].error == "Trial has failed. Job message: OOM"


def test_a_curve_at_hand_is_the_trials() -> None:
    found = read.search_result(
        [trial("t-a", "Succeeded", "1.5")], SEARCH, TrainSpec(), {"t-a": [(2, 2.0), (4, "1.5")]}
    )
    assert found.trials[0].curve == [(2, 2.0), (4, 1.5)]


def test_a_trial_without_a_measure_has_failed() -> None:
    found = result(
        trial("a", "MetricsUnavailable", said={"message": "Metrics are not available"}),
        trial("b", "Succeeded"),
        trial("c", "EarlyStopped"),
    )
    assert [one.status for one in found.trials] == ["failed", "failed", "stopped"]
    assert found.trials[0].error == "Metrics are not available"
    assert found.trials[1].error == "no eval_loss was measured"
    assert found.best is None
    assert found.hyperparameters["lora_rank"] == TrainSpec().lora_rank


def test_hyperbands_budget_is_the_step_and_no_parameter() -> None:
    found = result(trial("a", "Succeeded", "1.5", given={"max_steps": "3"}))
    assert found.trials[0].curve == [(3, 1.5)]
    assert "max_steps" not in found.trials[0].parameters
