"""Katib Experiment (kubeflow.org/v1beta1) from the same `SearchSpec` that the local search runs; a trial is a TrainJob,
or a PyTorchJob on clusters with the v1 training operator.

How a trial's measures reach Katib
    **Push** wherever there is no early stopping: the process that trains sends each measure to Katib's DB manager
    itself. There is no sidecar, so nothing is left that could wait for a process that has ended, the pod stays as
    restricted as we made it, and a trial without measures is marked as such at once.
    **StdOut** for early stopping, since Katib's stop rules live in its sidecar: the trial prints `name=value` lines,
    and the sidecar ends with the process that it watches. Not on a namespace with Pod Security "restricted": the pod of
    an early stopping cannot be given a security context (the sidecar's is `init.controller.injectSecurityContext`).
    The file collector, which can wait for ever with TrainJobs, is never used.
"""

from __future__ import annotations

import math
from typing import Any

from goldpath.accelerators.placement import Placement
from goldpath.core.errors import SpecError
from goldpath.training import katib, launch
from goldpath.training.cluster import SCRATCH, TORCH_RUNTIME, ClusterSpec, Uris
from goldpath.training.katib import MEASURES
from goldpath.training.manifests import pytorchjob, trainjob
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
FAILED = 'status.conditions.#(type=="Failed")#|#(status=="True")#'
_SUCCEEDED = 'status.conditions.#(type=="{}")#|#(status=="True")#'
_BY_KIND: dict[str, Manifest] = {
    "TrainJob": {
        "primaryContainerName": NODE,
        "primaryPodLabels": {"batch.kubernetes.io/job-completion-index": "0"},
        "successCondition": _SUCCEEDED.format("Complete"),
    },
    "PyTorchJob": {
        "primaryContainerName": pytorchjob.CONTAINER,
        "primaryPodLabels": {"training.kubeflow.org/job-role": "master"},
        "successCondition": _SUCCEEDED.format("Succeeded"),
    },
}
"""By the kind of a trial: whose measures count, and when it has succeeded."""
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
    operator: bool = False,
    db_manager: str = "",
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
        operator: trials are PyTorchJobs, for a cluster that has the v1 training operator and no Trainer.
        db_manager: `host:port` of Katib's DB manager; empty: `katib.db_manager`.
        curves: URI of a folder where trials leave all their measures; empty: they leave none.

    Raises:
        SpecError: no trials asked for, a name that is too long, a search that Katib cannot do, `trainjob.render`'s.
    """
    search = applicable(search, train)
    _require_name(name, search, cluster)
    settings, parameters = _algorithm(search), _parameters(search)
    pushes = search.early_stopping.algorithm != "medianstop"
    names = [parameter["name"] for parameter in parameters]
    asked: Manifest = {
        "name": name,
        "spec": trial_spec(search, train),
        "cluster": _once(cluster, operator or carried_by is not None),
        "uris": uris.model_copy(update={"out": f"file://{SCRATCH}"}),
        "placement": placement,
        "namespace": namespace,
        "save_model": False,
        "chosen": {at: f"${{trialParameters.{at}}}" for at in names},
        "env": {
            **({launch.KATIB_VARIABLE: db_manager or katib.db_manager()} if pushes else {}),
            **({launch.CURVES_VARIABLE: curves} if curves else {}),
        },
    }
    if operator:
        *objects, trial = pytorchjob.render(**asked)
    else:
        *objects, trial = trainjob.render(**asked, carried_by=carried_by)
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
        **_BY_KIND[trial["kind"]],
        "failureCondition": FAILED,
        "retain": retain,
        "trialParameters": [{"name": name, "reference": name} for name in names],
        "trialSpec": trial,
    }


def _once(cluster: ClusterSpec, known: bool) -> ClusterSpec:
    """A trial that failed, most often by its values, does not start again unless asked; an evicted one does.

    Args:
        cluster: where trials run.
        known: whether the restarts of a trial can be set: its runtime is at hand, or it needs none.
    """
    ours = known or cluster.runtime == TORCH_RUNTIME
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
