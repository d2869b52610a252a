"""TrainJob (trainer.kubeflow.org/v1alpha1).

Limits go into `trainer.resourcesPerNode`, and nodes are chosen by a runtime patch. A TrainJob has no place for a pod's
resource claims, so those are carried by a TrainingRuntime of the job's own, a copy of the runtime that it refers to.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from goldpath.accelerators.placement import Placement
from goldpath.accelerators.render.claims import MANAGED
from goldpath.accelerators.render.pods import Manifest, give, inside, place_pod
from goldpath.core.errors import SpecError

API = "trainer.kubeflow.org/v1alpha1"
MANAGER = "goldpath/gpu"
ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
NODE = "node"
"""The replicated job and the container that train."""


def train_job(manifest: Manifest, placement: Placement, runtime: Manifest | None = None) -> list[Manifest]:
    """A TrainJob, after the objects that it needs.

    `numProcPerNode` is set to the number of devices where it is not given: the Trainer counts those resources alone
    whose name has "gpu" in it, and neither claims nor ``nvidia.com/mig-1g.10gb`` do.

    Args:
        manifest: the TrainJob, without GPUs.
        placement: of the request of one node.
        runtime: the ClusterTrainingRuntime or TrainingRuntime that the job refers to; needed for claims.

    Raises:
        SpecError: devices of several kinds, claims without a runtime, or the job asks for GPUs itself.
    """
    made = deepcopy(manifest)
    if placement.request.none:
        return [made]
    _one_kind(placement)
    trainer = inside(made["spec"], "trainer")
    if trainer.get("numProcPerNode") is None:
        trainer["numProcPerNode"] = placement.request.count
    if placement.pod_claims:
        carrier = _carrier(made, placement, runtime)
        return [*map(deepcopy, placement.objects), carrier, made]
    resources = inside(trainer, "resourcesPerNode")
    give({"name": "resourcesPerNode", "resources": resources}, placement)
    pod_spec: Manifest = {}
    place_pod(pod_spec, placement)
    if pod_spec:
        names = [job["name"] for job in training_jobs(runtime)] if runtime else [NODE]
        jobs = [
            {"name": name, "template": {"spec": {"template": {"spec": deepcopy(pod_spec)}}}} for name in names
        ]
        patch = {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
        made["spec"]["runtimePatches"] = [*(made["spec"].get("runtimePatches") or ()), patch]
    return [*map(deepcopy, placement.objects), made]


def _one_kind(placement: Placement) -> None:
    request = placement.request
    if len(request.terms) > 1:
        raise SpecError(
            f"a TrainJob cannot train on devices of several kinds ({request}): its processes need equal ones",
            "Ask for one kind: whole*2 or mig:1g.10gb, not both.",
        )


def training_jobs(runtime: Manifest) -> list[Manifest]:
    """The replicated jobs whose pods train: MPI's launcher too where it is a node itself."""
    jobs: list[Manifest] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return [job for job in jobs if job["name"] == NODE or _trains(job)]


def _trains(job: Manifest) -> bool:
    labels = (job["template"].get("metadata") or {}).get("labels") or {}
    containers = job["template"]["spec"]["template"]["spec"]["containers"]
    return labels.get(ANCESTOR) == "trainer" and any(one["name"] == NODE for one in containers)


def _carrier(job: Manifest, placement: Placement, runtime: Manifest | None) -> Manifest:
    """A TrainingRuntime with the claims; `job` is made to refer to it, in place."""
    reference = job["spec"]["runtimeRef"]
    if runtime is None or runtime["metadata"]["name"] != reference["name"]:
        raise SpecError(
            f"the GPU request {placement.request} needs claims, and the TrainJob's runtime {reference['name']} is "
            "not at hand to carry them",
            "Pass the runtime that the job refers to.",
        )
    name = f"{job['metadata']['name']}-gpu"
    where = {key: job["metadata"][key] for key in ("namespace",) if key in job["metadata"]}
    labels = {**(runtime["metadata"].get("labels") or {}), **MANAGED}
    carrier: Manifest = {
        "apiVersion": API,
        "kind": "TrainingRuntime",
        "metadata": {"name": name, **where, "labels": labels},
        "spec": deepcopy(runtime["spec"]),
    }
    # The Trainer makes the container's resources anew from resourcesPerNode and drops its claims, so all of them
    # move into the runtime.
    per_node = job["spec"]["trainer"].pop("resourcesPerNode", None) or {}
    for found in training_jobs(carrier):
        spec = found["template"]["spec"]["template"]["spec"]
        for container in [one for one in spec["containers"] if one["name"] == NODE]:
            _merge(container, per_node)
            give(container, placement)
        place_pod(spec, placement)
    job["spec"]["runtimeRef"] = {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": name,
    }
    return carrier


def _merge(container: Manifest, per_node: dict[str, Any]) -> None:
    """The job's resources win over the runtime's, name by name."""
    for key in ("limits", "requests"):
        if values := per_node.get(key):
            resources = inside(container, "resources")
            resources[key] = {**(resources.get(key) or {}), **values}
