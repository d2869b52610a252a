"""What is asked of a search shows in its Experiment, and what Katib cannot do is refused in words."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from goldpath.core.errors import SpecError
from goldpath.training import katib, launch, worker
from goldpath.training.cluster import MOUNT, Uris
from goldpath.training.manifests import experiment
from goldpath.training.manifests.typed import check_experiment, check_train_job
from goldpath.training.specs import SearchSpec, TrainSpec
from tests.training.manifests.samples import (
    URIS,
    Manifest,
    a_train_job,
    an_experiment,
    an_experiment_of_pytorch_jobs,
    cluster,
    environment,
    placement,
)


def spec_of(**values: Any) -> Manifest:
    made: Manifest = an_experiment(**values)[-1]["spec"]
    return made


def test_the_search_is_in_katibs_terms() -> None:
    parameters = [
        {"name": "learning_rate", "type": "double", "min": 1e-5, "max": 1e-2, "log": True},
        {"name": "lora_rank", "type": "int", "min": 8, "max": 64, "step": 8},
        {"name": "schedule", "type": "categorical", "list": ["linear", "cosine"]},
        {"name": "batch_size", "type": "discrete", "list": [2, 4]},
    ]
    made = spec_of(parameters=parameters, max_trials=9, parallel_trials=20, seed=3)
    assert [(one["parameterType"], one["feasibleSpace"]) for one in made["parameters"]] == [
        ("double", {"min": "1e-05", "max": "0.01", "distribution": "logUniform"}),
        ("int", {"min": "8", "max": "64", "step": "8"}),
        ("categorical", {"list": ["linear", "cosine"]}),
        ("discrete", {"list": ["2", "4"]}),
    ]
    assert made["algorithm"]["algorithmSettings"] == [{"name": "random_state", "value": "3"}]
    assert (made["maxTrialCount"], made["parallelTrialCount"], made["maxFailedTrialCount"]) == (9, 9, 3)
    assert made["trialTemplate"]["retain"] is False


@pytest.mark.parametrize("algorithm", ["random", "tpe", "cmaes", "bayesianoptimization", "grid"])
def test_algorithms_have_katibs_names(algorithm: str) -> None:
    made = spec_of(algorithm=algorithm, max_trials=50)
    assert made["algorithm"]["algorithmName"] == algorithm


def test_a_grid_has_as_many_trials_as_points() -> None:
    values = [{"name": "learning_rate", "type": "discrete", "list": [1e-3, 2e-3]}]
    assert spec_of(algorithm="grid", max_trials=50, parameters=values)["maxTrialCount"] == 2


def test_hyperband_hands_out_optimizer_steps() -> None:
    early = {"algorithm": "hyperband", "start_step": 2}
    made = spec_of(algorithm="random", max_trials=30, parallel_trials=9, trial_steps=9, early_stopping=early)
    settings = {one["name"]: one["value"] for one in made["algorithm"]["algorithmSettings"]}
    assert made["algorithm"]["algorithmName"] == "hyperband"
    assert settings == {"r_l": "9", "eta": "3", "resource_name": "max_steps"}
    assert made["parameters"][-1]["feasibleSpace"] == {"min": "2", "max": "9"}
    assert (
        "max_steps=${trialParameters.max_steps}"
        in made["trialTemplate"]["trialSpec"]["spec"]["trainer"]["args"]
    )
    assert "earlyStopping" not in made


def test_measures_are_pushed_unless_a_sidecar_has_to_stop_trials() -> None:
    plain = spec_of()
    assert plain["metricsCollectorSpec"] == {"collector": {"kind": "Push"}}
    assert environment(an_experiment())[launch.KATIB_VARIABLE] == "katib-db-manager.kubeflow:6789"
    early = {"algorithm": "medianstop", "min_trials": 2, "start_step": 4}
    asked: dict[str, Any] = {"trial_steps": 12, "early_stopping": early}
    stopped = spec_of(**asked)
    assert stopped["metricsCollectorSpec"] == {"collector": {"kind": "StdOut"}}
    assert launch.KATIB_VARIABLE not in environment(an_experiment(**asked))
    assert stopped["earlyStopping"] == {
        "algorithmName": "medianstop",
        # Every third step is measured, so that step 4 is the second measure.
        "algorithmSettings": [
            {"name": "min_trials_required", "value": "2"},
            {"name": "start_step", "value": "2"},
        ],
    }


def test_a_trial_leaves_no_model_and_starts_once() -> None:
    objects = an_experiment()
    trial = objects[-1]["spec"]["trialTemplate"]["trialSpec"]
    assert "metadata" not in trial
    arguments = trial["spec"]["trainer"]["args"]
    read = worker._parser().parse_args(arguments)
    assert read.no_model
    assert read.set == [f"{name}=${{trialParameters.{name}}}" for name in ("learning_rate", "lora_rank")]
    assert objects[0]["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] == 0


def test_trials_of_the_v1_operator_are_the_same_trainings() -> None:
    (made,) = an_experiment_of_pytorch_jobs()
    template = made["spec"]["trialTemplate"]
    trial = template["trialSpec"]
    assert (trial["kind"], "metadata" in trial) == ("PyTorchJob", False)
    assert trial["spec"]["runPolicy"]["backoffLimit"] == 0, "a trial that failed by its values starts once"
    (pod,) = (one["template"]["spec"] for one in trial["spec"]["pytorchReplicaSpecs"].values())
    (container,) = pod["containers"]
    trainer = spec_of()["trialTemplate"]["trialSpec"]["spec"]["trainer"]
    assert container["args"] == trainer["args"]
    assert {"name": launch.KATIB_VARIABLE, "value": katib.DB_MANAGER} in container["env"]
    # Katib's own words for a job of the operator (experiment_defaults.go, v0.19).
    assert template["primaryContainerName"] == container["name"] == "pytorch"
    assert template["primaryPodLabels"] == {"training.kubeflow.org/job-role": "master"}
    assert template["successCondition"] == 'status.conditions.#(type=="Succeeded")#|#(status=="True")#'


def test_the_address_of_katibs_db_manager_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launch.KATIB_VARIABLE, "katib-db-manager.katib.svc:7000")
    assert environment(an_experiment())[launch.KATIB_VARIABLE] == "katib-db-manager.katib.svc:7000"
    for wrong in ("katib-db-manager", "http://katib:6789", "a b:1", ":6789"):
        monkeypatch.setenv(launch.KATIB_VARIABLE, wrong)
        with pytest.raises(SpecError, match=rf"GOLDPATH_KATIB_DB is '{wrong}'.*host:port"):
            an_experiment()


@pytest.mark.parametrize("field", ["frame", "base", "out"])
def test_this_machines_disk_is_no_place_for_a_pod(field: str) -> None:
    given = {"frame": "s3://data/frame", "base": "s3://models/base"}
    for uri in (
        "file:///home/me/model",
        "file:/home/me",
        f"file://{MOUNT}-other/x",
        f"file://{MOUNT}/../home",
    ):
        with pytest.raises(SpecError, match=rf"^{field}.*(a pod cannot read this machine's disk|give a URI)"):
            Uris.parse({**given, field: uri})
    assert Uris.parse({**given, field: f"file://{MOUNT}/frame"})


def test_what_the_shell_of_the_collector_would_change_is_not_in_a_trials_command() -> None:
    """Katib joins command and arguments to a line for `sh -c`."""
    trainer = spec_of()["trialTemplate"]["trialSpec"]["spec"]["trainer"]
    line = " ".join([*trainer["command"], *trainer["args"]])
    for name in ("learning_rate", "lora_rank"):
        line = line.replace(f"${{trialParameters.{name}}}", "1e-05")
    assert not set(line) & set("'\"`$&|;<>(){}*?!#\\\n")


def refused_search(said: str, **values: Any) -> None:
    with pytest.raises(SpecError, match=said):
        an_experiment(**values)


def test_a_search_that_katib_cannot_do_is_refused() -> None:
    early = {"algorithm": "hyperband", "start_step": 2}
    refused_search("samples at random, and algorithm is tpe", trial_steps=9, early_stopping=early)
    refused_search(
        "starts 9 trials side by side", algorithm="random", max_trials=30, trial_steps=9, early_stopping=early
    )
    refused_search("nothing to search", max_trials=0)
    with pytest.raises(SpecError, match="Katib takes 40"):
        experiment.render("e" * 41, SearchSpec(), TrainSpec(), cluster(), URIS, placement())
    with pytest.raises(SpecError, match="at most 39"):
        experiment.render("e" * 40, SearchSpec(), TrainSpec(), cluster(), URIS, placement())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda made: made["spec"].update(maxTrials=3), "Experiment.spec has no field maxTrials"),
        (lambda made: made["spec"].update(maxTrialCount="3"), "maxTrialCount"),
        (lambda made: made["spec"]["objective"].update(goal="low"), "goal"),
        (lambda made: made["spec"]["parameters"][0]["feasibleSpace"].update(min=1), "min"),
        (lambda made: made["spec"]["parameters"][0].update(space={}), "has no field space"),
        (lambda made: made["spec"].update(parameters={"name": "x"}), "Experiment"),
        (
            lambda made: made["spec"]["trialTemplate"]["trialSpec"]["spec"].update(podSpecOverrides=[]),
            "trialSpec.spec has no field podSpecOverrides",
        ),
        (
            lambda made: made["spec"]["trialTemplate"]["trialSpec"]["spec"]["trainer"].update(numNodes="two"),
            "trialSpec is no TrainerV1alpha1Train",
        ),
    ],
)
def test_a_typo_in_an_experiment_is_found_before_it_is_created(damage: Any, said: str) -> None:
    made = deepcopy(an_experiment()[-1])
    check_experiment(made)
    damage(made)
    with pytest.raises(SpecError, match=said):
        check_experiment(made)


def test_a_typo_in_a_train_job_is_found_before_it_is_created() -> None:
    made = a_train_job()[-1]
    check_train_job(made)
    made["spec"]["trainer"]["nodes"] = 2
    with pytest.raises(SpecError, match=r"TrainJob\.spec\.trainer has no field nodes"):
        check_train_job(made)
