"""Katib Experiment (kubeflow.org/v1beta1) from the same `SearchSpec` that the local search runs; a trial is a TrainJob.

How a trial's measures reach Katib
    **Push** wherever there is no early stopping: the process that trains sends each measure to Katib's DB manager
    itself. There is no sidecar, so nothing is left that could wait for a process that has ended, the pod stays as
    restricted as we made it, and a trial without measures is marked as such at once.
    **StdOut** for early stopping, since Katib's stop rules live in its sidecar: the trial prints `name=value` lines,
    and the sidecar ends with the process that it watches. Katib gives the sidecar no security context of its own: on a
    namespace with Pod Security "restricted" KatibConfig needs `init.controller.injectSecurityContext: true`.
    The file collector, which can wait for ever with TrainJobs, is never used.
"""

from __future__ import annotations

import math
from typing import Any

from goldpath.accelerators.placement import Placement
from goldpath.core.errors import SpecError
from goldpath.training import launch
from goldpath.training.cluster import SCRATCH, TORCH_RUNTIME, ClusterSpec, Uris
from goldpath.training.katib import DB_MANAGER, MEASURES
from goldpath.training.manifests import trainjob
from goldpath.training.manifests.pods import Manifest
from goldpath.training.manifests.runtime import NODE
from goldpath.training.manifests.typed import check_experiment
from goldpath.training.samplers import evaluation_interval, trial_spec
from goldpath.training.search import applicable
from goldpath.training.specs import SearchParameter, SearchSpec, TrainSpec

API = "kubeflow.org/v1beta1"
MOST = 40
"""Characters of an Experiment's name (Katib's webhook)."""
_SUFFIX = len("-xxxxxxxx")
"""Katib names a trial EXPERIMENT-RANDOM."""
SUCCEEDED = 'status.conditions.#(type=="Complete")#|#(status=="True")#'
FAILED = 'status.conditions.#(type=="Failed")#|#(status=="True")#'
BUDGET = "max_steps"
"""What Hyperband hands out: optimizer steps."""
_ETA = 3


def render(
    name: str,
    search: SearchSpec,
    train: TrainSpec,
    cluster: ClusterSpec,
    uris: Uris,
    placement: Placement,
    *,
    namespace: str = "",
    carried_by: Manifest | None = None,
    retain: bool = False,
    db_manager: str = DB_MANAGER,
    curves: str = "",
) -> list[Manifest]:
    """A search as an Experiment, after the objects that its trials need; checked against the typed models.

    The first trial with the given hyperparameters (`start_from_given`) has no counterpart in Katib.

    Args:
        name: of the Experiment.
        search: what to vary and how.
        train: everything else about a trial.
        cluster: where a trial runs.
        uris: the trials' inputs; their outputs go with their pods.
        placement: of the GPU request of one node of a trial.
        namespace: of all objects; empty leaves it to whoever creates them.
        carried_by: the runtime as it is on the cluster (see `trainjob.render`).
        retain: keep the trials' TrainJobs after their end.
        db_manager: `host:port` of Katib's DB manager.
        curves: URI of a folder where trials leave all their measures; empty: they leave none.

    Raises:
        SpecError: no trials asked for, a name that is too long, a search that Katib cannot do, `trainjob.render`'s.
    """
    search = applicable(search, train)
    _require_name(name, search, cluster)
    settings, parameters = _algorithm(search), _parameters(search)
    pushes = search.early_stopping.algorithm != "medianstop"
    names = [parameter["name"] for parameter in parameters]
    *objects, trial = trainjob.render(
        name,
        trial_spec(search, train),
        _once(cluster, carried_by),
        uris.model_copy(update={"out": f"file://{SCRATCH}"}),
        placement,
        namespace=namespace,
        carried_by=carried_by,
        save_model=False,
        chosen={at: f"${{trialParameters.{at}}}" for at in names},
        env={
            **({launch.KATIB_VARIABLE: db_manager} if pushes else {}),
            **({launch.CURVES_VARIABLE: curves} if curves else {}),
        },
    )
    del trial["metadata"]  # Katib names each trial, and refuses a name or a namespace here
    trials = _trials(search)
    spec: Manifest = {
        "objective": _objective(search),
        "algorithm": settings,
        **({} if pushes else {"earlyStopping": _early_stopping(search)}),
        "parallelTrialCount": min(search.parallel_trials, trials),
        "maxTrialCount": trials,
        "maxFailedTrialCount": min(trials, max(3, trials // 4)),
        "resumePolicy": "Never",
        "metricsCollectorSpec": {"collector": {"kind": "Push" if pushes else "StdOut"}},
        "parameters": parameters,
        "trialTemplate": _template(trial, names, retain),
    }
    where = {"namespace": namespace} if namespace else {}
    made = {"apiVersion": API, "kind": "Experiment", "metadata": {"name": name, **where}, "spec": spec}
    check_experiment(made)
    return [*objects, made]


def _require_name(name: str, search: SearchSpec, cluster: ClusterSpec) -> None:
    if not search.max_trials:
        raise SpecError(
            "max_trials is 0, so there is nothing to search", "Give max_trials, or skip the search."
        )
    if len(name) > MOST:
        raise SpecError(
            f"{name!r} has {len(name)} characters, and Katib takes {MOST} for an Experiment",
            "Give the run a shorter name.",
        )
    trainjob.require_name(name, cluster.nodes, suffix=_SUFFIX)


def _template(trial: Manifest, names: list[str], retain: bool) -> Manifest:
    return {
        "primaryContainerName": NODE,
        "primaryPodLabels": {"batch.kubernetes.io/job-completion-index": "0"},
        "successCondition": SUCCEEDED,
        "failureCondition": FAILED,
        "retain": retain,
        "trialParameters": [{"name": name, "reference": name} for name in names],
        "trialSpec": trial,
    }


def _once(cluster: ClusterSpec, carried_by: Manifest | None) -> ClusterSpec:
    """A trial that failed, most often by its values, does not start again unless asked; an evicted one does."""
    ours = carried_by is not None or cluster.runtime == TORCH_RUNTIME
    return cluster.model_copy(update={"retries": 0}) if cluster.retries is None and ours else cluster


def _trials(search: SearchSpec) -> int:
    """How many; Katib refuses a grid with fewer points than trials."""
    if search.algorithm != "grid":
        return search.max_trials
    return math.prod(len(parameter.grid()) for parameter in search.parameters)


def _objective(search: SearchSpec) -> Manifest:
    """All that is measured; the last value of each counts, as in the local search."""
    others = [name for name in MEASURES if name != search.objective]
    return {
        "type": search.goal,
        "objectiveMetricName": search.objective,
        "additionalMetricNames": others,
        "metricStrategies": [{"name": name, "value": "latest"} for name in (search.objective, *others)],
    }


def _parameters(search: SearchSpec) -> list[Manifest]:
    """The space; Hyperband's has the steps in it."""
    made = [_parameter(parameter) for parameter in search.parameters]
    if search.early_stopping.algorithm == "hyperband":
        low = max(1, search.early_stopping.start_step)
        space = {"min": str(low), "max": str(search.trial_steps)}
        made.append({"name": BUDGET, "parameterType": "int", "feasibleSpace": space})
    return made


def _parameter(parameter: SearchParameter) -> Manifest:
    space: dict[str, Any] = {}
    if parameter.list:
        space["list"] = [_text(value) for value in parameter.list]
    else:
        space |= {"min": _number(parameter, parameter.min), "max": _number(parameter, parameter.max)}
    if parameter.step is not None:
        space["step"] = _number(parameter, parameter.step)
    if parameter.log:
        space["distribution"] = "logUniform"
    return {"name": parameter.name, "parameterType": parameter.type, "feasibleSpace": space}


def _number(parameter: SearchParameter, value: float | None) -> str:
    assert value is not None  # noqa: S101
    return str(int(value)) if parameter.type == "int" else _text(value)


def _text(value: float | int | str) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _algorithm(search: SearchSpec) -> Manifest:
    """Katib's name and settings.

    Raises:
        SpecError: Katib cannot do it.
    """
    if search.early_stopping.algorithm == "hyperband":
        return _hyperband(search)
    settings = {"random_state": str(search.seed)}
    if search.algorithm == "bayesianoptimization":
        settings = {"base_estimator": "GP", **settings}
    listed = [{"name": key, "value": value} for key, value in settings.items()]
    return {"algorithmName": search.algorithm, "algorithmSettings": listed}


def _hyperband(search: SearchSpec) -> Manifest:
    """Katib's Hyperband is an algorithm of its own: it samples at random and hands out steps.

    Raises:
        SpecError: another sampler was asked for, or too few trials run side by side for its brackets.
    """
    if search.algorithm != "random":
        raise SpecError(
            f"Katib's hyperband samples at random, and algorithm is {search.algorithm}",
            "Choose algorithm random, or early_stopping medianstop.",
        )
    brackets = int(math.log(search.trial_steps) / math.log(_ETA)) if search.trial_steps > 1 else 0
    wanted = math.ceil(_ETA**brackets)
    if search.parallel_trials < wanted or search.max_trials < wanted:
        raise SpecError(
            f"Katib's hyperband with trials of {search.trial_steps} steps starts {wanted} trials side by side; "
            f"parallel_trials is {search.parallel_trials} and max_trials {search.max_trials}",
            f"Raise both to {wanted} or more, or choose early_stopping medianstop.",
        )
    settings = {"r_l": str(search.trial_steps), "eta": str(_ETA), "resource_name": BUDGET}
    listed = [{"name": key, "value": value} for key, value in settings.items()]
    return {"algorithmName": "hyperband", "algorithmSettings": listed}


def _early_stopping(search: SearchSpec) -> Manifest:
    """Median stopping; Katib counts measures where we count optimizer steps."""
    early = search.early_stopping
    measures = max(1, math.ceil(early.start_step / evaluation_interval(search)))
    settings = {"min_trials_required": str(early.min_trials), "start_step": str(measures)}
    listed = [{"name": key, "value": value} for key, value in settings.items()]
    return {"algorithmName": "medianstop", "algorithmSettings": listed}
