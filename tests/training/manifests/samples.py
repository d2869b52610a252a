"""Trainings to render: each kind of object on each way to a GPU, on one node and on two."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from goldpath.accelerators.placement import Path, Placement
from goldpath.accelerators.render import place
from goldpath.accelerators.requests import parse
from goldpath.training.cluster import ClusterSpec, TrainJobSpec, Uris
from goldpath.training.manifests import experiment, pytorchjob, runtime, trainjob
from goldpath.training.specs import SearchSpec, TrainSpec
from tests.accelerators.workloads import on

Manifest = dict[str, Any]
IMAGE = "registry.example/trainer@sha256:" + "0" * 64
NAME = "tuning"
URIS = Uris(frame="s3://data/frame", base="hf://acme/base")
NODES = (1, 2)
GPUS = {"none": Path.PLUGIN, "mig:1g.10gb": Path.MIG_MIXED, "mig:2g.20gb": Path.DRA}


def cluster(**values: Any) -> ClusterSpec:
    return ClusterSpec.parse(
        {"image": IMAGE, "storage": "s3://models/goldpath", "secret": "storage", **values}
    )


def placement(gpu: str = "none") -> Placement:
    return place(parse(gpu), on(GPUS.get(gpu, Path.PLUGIN)), name=NAME, namespace="team")


def search(**values: Any) -> SearchSpec:
    return SearchSpec.parse(values)


def a_train_job(gpu: str = "none", nodes: int = 1, **values: Any) -> list[Manifest]:
    where = cluster(nodes=nodes, **values)
    return trainjob.render(NAME, TrainSpec(), where, URIS, placement(gpu), namespace="team")


def a_pytorch_job(gpu: str = "none", nodes: int = 1, **values: Any) -> list[Manifest]:
    where = cluster(nodes=nodes, **values)
    return pytorchjob.render(NAME, TrainSpec(), where, URIS, placement(gpu), namespace="team")


def an_experiment(gpu: str = "none", nodes: int = 1, **values: Any) -> list[Manifest]:
    where = cluster(nodes=nodes)
    return experiment.render(
        NAME, search(**values), TrainSpec(), where, URIS, placement(gpu), namespace="team"
    )


def an_experiment_of_pytorch_jobs(gpu: str = "none", nodes: int = 1, **values: Any) -> list[Manifest]:
    where = cluster(nodes=nodes)
    return experiment.render(
        NAME,
        search(**values),
        TrainSpec(),
        where,
        URIS,
        placement(gpu),
        namespace="team",
        operator=True,
    )


def a_generic_job(gpu: str = "none", nodes: int = 1, **values: Any) -> list[Manifest]:
    asked = {"image": IMAGE, "command": ["python"], "args": ["train.py"], "nodes": nodes, **values}
    spec = TrainJobSpec.parse({"runtime": "jax-distributed", **asked})
    return trainjob.generic(
        NAME, spec, placement(gpu), namespace="team", carried_by=upstream_runtime(spec.runtime)
    )


def upstream_runtime(name: str) -> Manifest:
    """As the Trainer's own runtimes are: no security context, no volumes."""
    made = runtime.render(name)
    made["metadata"]["labels"][runtime.FRAMEWORK] = "jax"
    made["spec"]["mlPolicy"] = {"numNodes": 1, "jax": {}}
    job = made["spec"]["template"]["spec"].pop("replicatedJobs")[0]
    job["template"]["spec"] = {
        "template": {"spec": {"containers": [{"name": "node", "image": "example/jax"}]}}
    }
    made["spec"]["template"] = {"spec": {"replicatedJobs": [job]}}
    return made


KINDS = {
    "trainjob": a_train_job,
    "pytorchjob": a_pytorch_job,
    "experiment": an_experiment,
    "experiment-pytorchjob": an_experiment_of_pytorch_jobs,
    "generic": a_generic_job,
}


def pods(objects: list[Manifest]) -> list[Manifest]:
    """The specifications of the pods that these objects become: a runtime's, with the job's patches and trainer."""
    last = objects[-1]
    job = last["spec"]["trialTemplate"]["trialSpec"] if last["kind"] == "Experiment" else last
    if job["kind"] == "PyTorchJob":
        return [one["template"]["spec"] for one in job["spec"]["pytorchReplicaSpecs"].values()]
    name = job["spec"]["runtimeRef"]["name"]
    known = {one["metadata"]["name"]: one for one in [*runtime.deployed().values(), *objects]}
    base = known.get(name) or upstream_runtime(name)
    jobs = deepcopy(base["spec"]["template"]["spec"]["replicatedJobs"])
    for patch in job["spec"].get("runtimePatches", []):
        jobs = _merge(jobs, patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"])
    found = []
    for one in jobs:
        spec = one["template"]["spec"]["template"]["spec"]
        trainer = job["spec"]["trainer"]
        container = next(each for each in spec["containers"] if each["name"] == "node")
        container |= {key: trainer[key] for key in ("image", "command", "args") if key in trainer}
        container["env"] = _merge(container.get("env", []), trainer.get("env", []))
        if "resourcesPerNode" in trainer:
            container["resources"] = trainer["resourcesPerNode"]
        found.append(spec)
    return found


def _merge(old: Any, new: Any) -> Any:
    """A strategic merge, as far as patches of pods go: objects by key, lists by name."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            **old,
            **{key: _merge(old[key], value) if key in old else value for key, value in new.items()},
        }
    if isinstance(old, list) and isinstance(new, list) and all("name" in one for one in [*old, *new]):
        by_name = {one["name"]: one for one in old}
        for one in new:
            by_name[one["name"]] = _merge(by_name.get(one["name"], {}), one)
        return list(by_name.values())
    return new


def environment(objects: list[Manifest]) -> dict[str, str]:
    """Variables of the first container of the first pod."""
    (spec, *_) = pods(objects)
    return {one["name"]: one.get("value", "") for one in spec["containers"][0]["env"]}
