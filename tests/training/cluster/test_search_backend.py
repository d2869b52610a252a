"""A search on a cluster: the Experiment, what comes back, what is left behind, what a refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from goldpath.core.errors import StepError
from goldpath.core.kubernetes import ClusterError
from goldpath.training import search
from goldpath.training.katib import Reporter
from goldpath.training.launch import CURVES_VARIABLE
from goldpath.training.specs import SearchSpec
from tests.kube import Refusal, Server
from tests.kube.jobs import searches
from tests.kube.things import condition
from tests.training.cluster.conftest import left
from tests.training.cluster.test_training_backend import INPUTS, SPEC, work

STEP = "tune"


def test_two_searches_of_one_run_are_two_experiments(cluster: Server) -> None:
    cluster.on("Experiment", searches(cluster, [2.5, 2.1]))
    for seed in (7, 8):
        search.tune(*INPUTS, SearchSpec.parse({"max_trials": 2, "seed": seed}), SPEC)
    assert len(cluster.find("Experiment")) == 2


def test_a_search_is_an_experiment_whose_trials_come_back(cluster: Server) -> None:
    cluster.on("Experiment", searches(cluster, [2.5, None, 2.1]))
    asked = SearchSpec.parse({"max_trials": 3})
    found = search.tune(*INPUTS, asked, SPEC).result
    assert [trial.status for trial in found.trials] == ["succeeded", "failed", "succeeded"]
    assert found.best is not None
    assert found.best.objective == 2.1
    assert isinstance(found.hyperparameters["lora_rank"], int)
    assert found.hyperparameters["learning_rate"] == found.best.parameters["learning_rate"]
    assert "OOMKilled" in found.trials[1].error
    assert found.trials[0].seconds == 90
    (made,) = cluster.find("Experiment")
    assert made["spec"]["trialTemplate"]["retain"] is False


def test_the_whole_curves_of_trials_come_back(cluster: Server, tmp_path: Path) -> None:
    plays = searches(cluster, [2.5, 2.1])

    def control(made: dict[str, Any]) -> dict[str, Any] | None:
        working = not (made.get("status") or {}).get("conditions")
        for trial in cluster.find("Trial") if working else []:  # what its process does
            env = {one["name"]: one.get("value", "") for one in trial_env(made)}
            reporter = Reporter(trial["metadata"]["name"], curves=env[CURVES_VARIABLE])
            reporter.row({"step": 5, "loss": 3.0, "eval_loss": 3.5})
            reporter.row({"step": 10, "loss": 2.0, "eval_loss": 2.25})
        return plays(made)

    cluster.on("Experiment", control)
    stops = {"algorithm": "medianstop", "start_step": 5}
    asked = SearchSpec.parse({"max_trials": 2, "trial_steps": 10, "early_stopping": stops})
    found = search.tune(*INPUTS, asked, SPEC).result
    assert [trial.curve for trial in found.trials] == [[(5, 3.5), (10, 2.25)]] * 2
    assert work(tmp_path) == []


def trial_env(made: dict[str, Any]) -> list[dict[str, Any]]:
    """The variables of an Experiment's trials."""
    return list(made["spec"]["trialTemplate"]["trialSpec"]["spec"]["trainer"]["env"])


def test_a_search_without_a_figure_fails_with_the_reason_of_a_trial(cluster: Server) -> None:
    cluster.on("Experiment", searches(cluster, [None, None]))
    with pytest.raises(StepError, match="OOMKilled"):
        search.tune(*INPUTS, SearchSpec.parse({"max_trials": 2}), SPEC)
    assert left(cluster) == []


def test_a_search_over_the_quota_says_what_to_do_about_it(cluster: Server) -> None:
    said = (
        "trialjobs is forbidden: exceeded quota: goldpath, requested: requests.cpu=4, limited: requests.cpu=2"
    )

    def control(made: dict[str, Any]) -> dict[str, Any] | None:
        if made.get("status"):
            return None
        return {"conditions": [condition("Failed", reason="ExperimentFailed", message=said)]}

    cluster.on("Experiment", control)
    with pytest.raises(StepError, match=r"exceeded quota: goldpath.*have the quota raised"):
        search.tune(*INPUTS, SearchSpec.parse({"max_trials": 2}), SPEC)


def test_a_search_that_the_quota_refuses_outright_says_so_too(cluster: Server) -> None:
    def full(made: dict[str, Any], _: dict[str, Any] | None) -> None:
        raise Refusal(
            403, "Forbidden", "exceeded quota: goldpath, requested: count/experiments.kubeflow.org=1"
        )

    cluster.admit("Experiment", full)
    with pytest.raises(ClusterError, match=r"the quota goldpath is exceeded.*have the quota raised"):
        search.tune(*INPUTS, SearchSpec.parse({"max_trials": 2}), SPEC)


def test_a_search_that_may_not_look_at_its_experiment_keeps_the_remedy(cluster: Server) -> None:
    def control(made: dict[str, Any]) -> None:
        for verb in ("get", "list", "watch"):
            cluster.deny(verb, "experiments")

    cluster.on("Experiment", control)
    with pytest.raises(ClusterError, match=r"may not get experiments.kubeflow.org.*Grant it"):
        search.tune(*INPUTS, SearchSpec.parse({"max_trials": 2}), SPEC)


def test_no_search_needs_no_experiment(cluster: Server) -> None:
    found = search.tune(*INPUTS, SearchSpec.parse({"max_trials": 0}), SPEC).result
    assert found.hyperparameters["learning_rate"] == SPEC.learning_rate
    assert cluster.created == []
