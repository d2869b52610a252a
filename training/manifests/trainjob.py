"""TrainJob (trainer.kubeflow.org/v1alpha1, Trainer 2.3): a fine-tuning, or any training in containers."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any

from goldpath.accelerators.placement import Placement
from goldpath.accelerators.render import train_job
from goldpath.accelerators.render.trainer import training_jobs
from goldpath.core.errors import SpecError
from goldpath.training import launch
from goldpath.training.cluster import MOUNT, TORCH_RUNTIME, ClusterSpec, Machine, TrainJobSpec, Uris
from goldpath.training.manifests import pods, runtime, sharding
from goldpath.training.manifests.pods import MANAGER, Manifest
from goldpath.training.specs import TrainSpec

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def render(
    name: str,
    spec: TrainSpec,
    cluster: ClusterSpec,
    uris: Uris,
    placement: Placement,
    *,
    namespace: str = "",
    carried_by: Manifest | None = None,
    save_model: bool = True,
    chosen: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
) -> list[Manifest]:
    """A fine-tuning as a TrainJob, after the objects that it needs.

    Its processes go on from the last whole checkpoint in the output folder, so that a job that is started again, by
    the JobSet or by a retried step, ends as it would have ended without the interruption.

    Args:
        name: of the job.
        spec: what to train; its `processes` are those of each node.
        cluster: where.
        uris: inputs and outputs.
        placement: of the GPU request of one node (`accelerators.render.place`).
        namespace: of all objects; empty leaves it to whoever creates them.
        carried_by: the runtime as it is on the cluster. Needed for claims and for `retries` where it is not ours.
        save_model: False for figures only.
        chosen: fields of the TrainSpec that win: a trial's parameters.
        env: further variables of the processes.

    Raises:
        SpecError: no place for the outputs, processes that don't match the GPUs, a name that is too long, sharding.
    """
    _require_processes(spec.processes, placement)
    _require_devices(cluster.sharding, placement)
    out = uris.out or cluster.out(name)
    if not out:
        raise SpecError(
            "there is no place for checkpoints and the model",
            "Give storage (such as s3://bucket/goldpath) or claim (a PersistentVolumeClaim's name).",
        )
    asked = {
        launch.SPEC_VARIABLE: json.dumps(spec.model_dump(mode="json", exclude={"cluster"}), sort_keys=True)
    }
    trainer: Manifest = {
        "image": cluster.image,
        "command": ["python", *launch.torchrun()],
        "args": launch.arguments(
            spec=f"env:{launch.SPEC_VARIABLE}",
            frame=uris.frame,
            base=uris.base,
            out=out,
            folder=_folder(cluster, out, name),
            save_model=save_model,
            chosen=chosen,
        ),
        "numNodes": cluster.nodes,
        "numProcPerNode": spec.processes,
        "resourcesPerNode": resources(cluster),
        "env": [
            *pods.variables({**asked, **sharding.environment(cluster.sharding), **(env or {})}),
            *pods.credentials(cluster.secret),
        ],
    }
    volumes, mounts = pods.storage(cluster)
    patch: Manifest = {"volumes": volumes} if volumes else {}
    containers = [{"name": runtime.NODE, "volumeMounts": mounts}] if mounts else []
    if carried_by is None and cluster.runtime == TORCH_RUNTIME:
        carried_by = runtime.render(image=cluster.image)
    return _job(name, cluster, trainer, patch, containers, placement, namespace, carried_by)


def generic(
    name: str,
    spec: TrainJobSpec,
    placement: Placement,
    *,
    namespace: str = "",
    carried_by: Manifest | None = None,
) -> list[Manifest]:
    """Any training as a TrainJob: command, arguments and variables as given, on any runtime.

    Args:
        name: of the job.
        spec: what to run and where.
        placement: of the GPU request of one node.
        namespace: of all objects; empty leaves it to whoever creates them.
        carried_by: the runtime as it is on the cluster; without it the pods of the job `node` alone are patched.

    Raises:
        SpecError: `retries` or claims without the runtime, several kinds of devices, a name that is too long.
    """
    env = {**sharding.environment(spec.sharding), **spec.env}
    given: dict[str, Any] = {
        "image": spec.image,
        "command": list(spec.command),
        "args": list(spec.args),
        "numNodes": spec.nodes,
        "numProcPerNode": spec.processes,
        "resourcesPerNode": resources(spec),
        "env": [*pods.variables(env), *pods.from_secrets(spec.secrets)],
    }
    patch: Manifest = {}
    containers: list[Manifest] = []
    if spec.restricted:
        volumes, mounts = pods.folders(home=False)
        patch = {"securityContext": pods.pod_security(spec.user), "volumes": volumes}
        # Its root stays writable: what an image of others writes to is not known.
        security = pods.container_security(read_only=False)
        containers = [{"name": runtime.NODE, "securityContext": security, "volumeMounts": mounts}]
    trainer = {key: value for key, value in given.items() if value not in ("", [], None)}
    return _job(name, spec, trainer, patch, containers, placement, namespace, carried_by)


def resources(machine: Machine) -> Manifest:
    """Of each node, before its GPUs."""
    amounts = {"cpu": machine.cpu, "memory": machine.memory}
    return {"limits": dict(amounts), "requests": dict(amounts)}


def _job(
    name: str,
    machine: Machine,
    trainer: Manifest,
    patch: Manifest,
    containers: list[Manifest],
    placement: Placement,
    namespace: str,
    carried_by: Manifest | None,
) -> list[Manifest]:
    if machine.service_account:
        patch["serviceAccountName"] = machine.service_account
    if containers:
        patch["containers"] = containers
    names = [job["name"] for job in training_jobs(carried_by)] if carried_by else [runtime.NODE]
    require_name(name, machine.nodes, names)
    where = {"namespace": namespace} if namespace else {}
    made: Manifest = {
        "apiVersion": runtime.API,
        "kind": "TrainJob",
        "metadata": {"name": name, **where},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": machine.runtime_kind,
                "name": machine.runtime,
            },
            "activeDeadlineSeconds": machine.deadline_seconds,
            "trainer": trainer,
        },
    }
    if patch:
        jobs = [{"name": at, "template": {"spec": {"template": {"spec": deepcopy(patch)}}}} for at in names]
        made["spec"]["runtimePatches"] = [
            {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
        ]
    own = _own_runtime(made, machine, carried_by)
    objects = train_job(made, placement, own or carried_by)
    used = objects[-1]["spec"]["runtimeRef"]["name"]
    return [own, *objects] if own and used == own["metadata"]["name"] else objects


def _own_runtime(job: Manifest, machine: Machine, carried_by: Manifest | None) -> Manifest | None:
    """A TrainingRuntime with the restarts that were asked for: a TrainJob and its patches have no place for them.

    `job` is made to refer to it, in place.
    """
    if machine.retries is None:
        return None
    if carried_by is None or carried_by["metadata"]["name"] != machine.runtime:
        raise SpecError(
            f"retries is {machine.retries}, and the runtime {machine.runtime} is not at hand to be changed for it",
            "Leave retries out, or pass the runtime that the job refers to.",
        )
    template = carried_by["spec"]["template"]["spec"]
    if template.get("failurePolicy", {}).get("maxRestarts", 0) == machine.retries:
        return None
    name = f"{job['metadata']['name']}-runtime"
    where = {key: job["metadata"][key] for key in ("namespace",) if key in job["metadata"]}
    own: Manifest = {
        "apiVersion": runtime.API,
        "kind": "TrainingRuntime",
        "metadata": {"name": name, **where, "labels": dict(carried_by["metadata"].get("labels", {}))},
        "spec": deepcopy(carried_by["spec"]),
    }
    changed = own["spec"]["template"]["spec"]
    changed["failurePolicy"] = {**changed.get("failurePolicy", {}), "maxRestarts": machine.retries}
    job["spec"]["runtimeRef"] = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": name}
    return own


def require_name(
    name: str, nodes: int, jobs: list[str] | tuple[str, ...] = (runtime.NODE,), suffix: int = 0
) -> None:
    """Refuse a name from which the names of pods would become too long, or none at all.

    Args:
        name: of the TrainJob.
        nodes: how many.
        jobs: the replicated jobs that it becomes.
        suffix: characters that a name gets before it is the TrainJob's.

    Raises:
        SpecError: it is too long, or no DNS label that begins with a letter.
    """
    # JobSet's pods are called NAME-JOB-0-INDEX-RANDOM, which has to be a DNS label.
    longest = max(len(job) for job in jobs) + len(f"--0-{nodes - 1}-xxxxx")
    most = 63 - longest - suffix
    if not _NAME.fullmatch(name) or len(name) > most:
        raise SpecError(
            f"{name!r} cannot name this training: its pods are named after it",
            f"Use at most {most} lower-case letters, digits and dashes, with a letter first and no dash at the end.",
        )


def _require_processes(processes: int, placement: Placement) -> None:
    count = placement.request.count
    if count and count != processes:
        raise SpecError(
            f"processes is {processes} and the GPU request {placement.request} gives each node {count}",
            f"Set processes to {count}, or ask for {processes}: each process trains on a device of its own.",
        )


def _folder(cluster: ClusterSpec, out: str, name: str) -> str:
    """Of checkpoints on the claim, where the outputs go elsewhere: the job's own, so that no other run works in it."""
    return f"{MOUNT}/{name}" if cluster.claim and not out.startswith("file:") else ""


def _require_devices(sharding: str, placement: Placement) -> None:
    if sharding != "none" and placement.request.none:
        raise SpecError(
            f"sharding is {sharding} and gpu is none: accelerate shares out nothing among processors",
            "Ask for a GPU for each process, or use sharding none.",
        )
