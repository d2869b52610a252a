"""The cluster backend: a fine-tuning as a TrainJob (or a PyTorchJob), a search as a Katib Experiment.

The objects are named after run, step and the slot's key, so that a step that is tried again goes on with what it had
started, and two steps of one kind in a run do not meet unless they ask for the same work. A training's outputs lie in
the storage, below that key: a job that begins anew goes on from there, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goldpath.core import storage
from goldpath.core.checks import needs
from goldpath.core.errors import GoldpathError, MachineError, StepError
from goldpath.core.fetch import fetch
from goldpath.core.files import read_json
from goldpath.core.kubernetes import Cluster, ClusterError, Ref
from goldpath.core.kubernetes.errors import remedy_for
from goldpath.core.progress import Bar, progress
from goldpath.training import katib
from goldpath.training.backends import jobs
from goldpath.training.cluster import Uris
from goldpath.training.manifests import experiment, pytorchjob, read, runtime, trainjob
from goldpath.training.specs import SearchSpec, TrainSpec

if TYPE_CHECKING:
    from goldpath.training.results import SearchResult

Manifest = dict[str, Any]
_OUTPUTS = ("model/", "adapter/", "metrics.jsonl", "outcome.json")


def train(frame: str, base: str, spec: TrainSpec, out: Path) -> dict[str, Any]:
    """Train on the cluster, and bring model, adapter and rows into the folder `out`.

    Args:
        frame: URI of train.parquet and validation.parquet.
        base: URI of the base model.
        spec: what to do; `spec.cluster` says where.
        out: a slot of the store; its key names the outputs in the storage.

    Returns:
        The worker's figures.

    Raises:
        GoldpathError: what the worker says, else what the cluster says of the job.
    """
    kind, key = out.parent.name, out.name
    uri = _work(kind, key)
    if "figures" not in _outcome(uri):  # else an earlier try was killed after its job had ended
        # The storage's own URI is for it to check: frame and base, which lie there too, are checked here.
        _run(spec, Uris.parse({"frame": frame, "base": base}).model_copy(update={"out": uri}), key)
    # Another step that wanted the same may have been faster, and be tidying up.
    uri = storage.kept(kind, key) or uri
    found = fetch(
        uri, out, label="Bringing", select=lambda names: [n for n in names if n.startswith(_OUTPUTS)]
    )
    if "outcome.json" not in found:
        raise StepError(
            f"the training says that it is done, and left no outcome at {uri}",
            "Check that its pods may write there.",
        )
    return dict(read_json(out / "outcome.json")["figures"])


def tidy(kind: str, key: str) -> None:
    """Remove the outputs of a training whose slot is kept: they lie there a second time.

    Those of a job that still works stay. Credentials that may not remove anything cost room, and no training.
    """
    uri = _work(kind, key)
    if "figures" in _outcome(uri):
        with suppress(MachineError):
            storage.remove(f"{uri}/outcome.json")  # first: without it the rest is not taken for whole
            storage.remove(uri)


def _work(kind: str, key: str) -> str:
    return f"{storage.storage()}/work/{kind}/{key}"


def _run(spec: TrainSpec, uris: Uris, key: str) -> None:
    """The training's job, to its end."""
    cluster = Cluster.connect()
    objects = _training(cluster, jobs.name(cluster, key), spec, uris)
    with cluster.children(), progress("Fine-tuning", spec.max_steps, "steps") as bar:
        job = jobs.begin(cluster, objects, uris.out)
        cluster.wait(
            Ref.of(job),
            lambda thing: _judge(thing, uris.out),
            spec.cluster.deadline_seconds + jobs.GRACE_S,
            lambda thing: _show(bar, thing, spec.max_steps),
        )
        bar.update(spec.max_steps)


def search(frame: str, base: str, asked: SearchSpec, train: TrainSpec, key: str) -> SearchResult:
    """Search with Katib; the result is that of the local search.

    Args:
        frame: URI of train.parquet and validation.parquet.
        base: URI of the base model.
        asked: what to vary and how.
        train: everything else about a trial.
        key: of the search's slot; it names the Experiment.

    Raises:
        GoldpathError: Katib cannot do this search; the Experiment failed, and why.
    """
    cluster = Cluster.connect()
    _require_stoppable(cluster, asked)
    name, operator = jobs.name(cluster, key), _by_operator(cluster)
    placement, curves = jobs.place(cluster, train.gpu, name), _work("search", key)
    objects = experiment.render(
        name,
        asked,
        train,
        train.cluster,
        Uris.parse({"frame": frame, "base": base}),
        placement,
        namespace=cluster.namespace,
        carried_by=None if operator else jobs.runtime_of(cluster, train.cluster, "cluster.runtime"),
        operator=operator,
        retain=train.cluster.retain_trials,
        curves=curves,
    )
    with cluster.children(), progress("Search", asked.max_trials, "trials") as bar:
        made = jobs.begin(cluster, objects)
        failure: StepError | None = None
        try:
            cluster.wait(
                Ref.of(made),
                jobs.ended,
                train.cluster.deadline_seconds + jobs.GRACE_S,
                lambda thing: _show_trials(bar, thing),
            )
        except ClusterError:
            raise  # the server refuses us: no trial is to blame
        except StepError as error:
            failure = error
        trials = cluster.find(experiment.API, "Trial", labels={"katib.kubeflow.org/experiment": name})
        names = [trial["metadata"]["name"] for trial in trials]
        whole = {one: katib.curve(curves, one, asked.objective) for one in names}
        found = read.search_result(trials, asked, train, whole)
        with suppress(MachineError):
            storage.remove(curves)
        if failure or found.best is None:
            told = next((trial.error for trial in found.trials if trial.error), "")
            said = failure.message if failure else f"no trial of the search {name} gave a figure"
            remedy = remedy_for(told) or (failure.remedy if failure else "")
            raise StepError(
                f"{said}; a trial says: {told}" if told else said,
                remedy or "`kubectl describe experiment` and the trials' logs have the details.",
            )
    return found


def _training(cluster: Cluster, name: str, spec: TrainSpec, uris: Uris) -> list[Manifest]:
    """The objects of a training, the job last; a cluster without the Trainer may have its predecessor."""
    placement, where = jobs.place(cluster, spec.gpu, name), cluster.namespace
    if _by_operator(cluster):
        return pytorchjob.render(name, spec, spec.cluster, uris, placement, namespace=where)
    return trainjob.render(
        name,
        spec,
        spec.cluster,
        uris,
        placement,
        namespace=where,
        carried_by=jobs.runtime_of(cluster, spec.cluster, "cluster.runtime"),
    )


def _by_operator(cluster: Cluster) -> bool:
    """Whether the cluster has the v1 training operator, and not the Trainer that came after it."""
    return not cluster.has(runtime.API, "TrainJob") and cluster.has(pytorchjob.API, "PyTorchJob")


def _require_stoppable(cluster: Cluster, asked: SearchSpec) -> None:
    """Refuse median stopping where Katib's pods for it cannot start: the search would wait until its deadline.

    Raises:
        MachineError: the namespace enforces Pod Security "restricted".
    """
    if asked.early_stopping.algorithm != "medianstop":
        return
    space = None
    with suppress(ClusterError):  # who may not look finds out
        space = cluster.get(Ref("v1", "Namespace", cluster.namespace))
    if ((space or {}).get("metadata", {}).get("labels") or {}).get(needs.POD_SECURITY) == "restricted":
        raise MachineError(
            f"the namespace {cluster.namespace} enforces Pod Security restricted, and Katib can give the container of "
            "early_stopping medianstop no security context, so that it would not start",
            "Choose early_stopping none or hyperband, or a namespace that enforces baseline.",
        )


def _judge(thing: Mapping[str, Any], uri: str) -> read.Verdict | None:
    if read.verdict(thing).state == "failed" and (told := _outcome(uri).get("error")):
        raise GoldpathError.from_dict(told)
    return jobs.ended(thing)


def _outcome(uri: str) -> dict[str, Any]:
    """The worker's last word, as far as there is one: `figures` or `error`."""
    try:
        found = json.loads(storage.read(f"{uri}/outcome.json") or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _show(bar: Bar, thing: Mapping[str, Any], steps: int) -> None:
    said = read.progress(thing)
    if said.percent is not None:
        bar.update(min(steps, round(said.percent * steps / 100)), **said.metrics)


def _show_trials(bar: Bar, thing: Mapping[str, Any]) -> None:
    status = thing.get("status") or {}
    ended = (
        "trialsSucceeded",
        "trialsFailed",
        "trialsEarlyStopped",
        "trialsKilled",
        "trialMetricsUnavailable",
    )
    bar.update(sum(int(status.get(key) or 0) for key in ended))
