"""Training runtimes: ours for torch with TRL, and restricted versions of the Trainer's DeepSpeed and MPI ones.

Nodes of a training stand or fall together, so a failed pod fails its Job and the JobSet starts all of them again, from
the last checkpoint. A pod that was evicted or pre-empted (condition DisruptionTarget) fails the Job by its
podFailurePolicy, for which the JobSet starts again without counting: the job's activeDeadlineSeconds ends that.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from goldpath.core import images
from goldpath.training.cluster import TORCH_RUNTIME
from goldpath.training.manifests.pods import (
    ENVIRONMENT,
    Manifest,
    container_security,
    folders,
    pod_security,
    variables,
)

API = "trainer.kubeflow.org/v1alpha1"
ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
FRAMEWORK = "trainer.kubeflow.org/framework"
NODE, LAUNCHER = "node", "launcher"
RETRIES = 2
_UPSTREAM = "ghcr.io/kubeflow/trainer"
_SSHD = {
    "command": ["/usr/sbin/sshd"],
    "args": ["-De", "-f", "/home/mpiuser/.sshd_config"],
    "readinessProbe": {"tcpSocket": {"port": 2222}, "initialDelaySeconds": 5},
}
"""What the Trainer's images for MPI start on the nodes that the launcher reaches."""


def render(
    name: str = TORCH_RUNTIME,
    *,
    kind: str = "ClusterTrainingRuntime",
    namespace: str = "",
    image: str = "",
    retries: int = RETRIES,
) -> Manifest:
    """Our runtime for torch with TRL (`goldpath-torch`).

    Args:
        name: of the runtime.
        kind: ClusterTrainingRuntime, or TrainingRuntime for one of a namespace.
        namespace: of a TrainingRuntime; empty leaves it to whoever creates it.
        image: the trainer image; of this package's version by default.
        retries: how often a training starts again after a failure.
    """
    volumes, mounts = folders()
    container = {
        "name": NODE,
        "image": image or images.trainer(),
        "env": variables(ENVIRONMENT),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    job = _job(NODE, container, volumes, labels={ANCESTOR: "trainer"})
    spec = {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {"spec": {"failurePolicy": failure_policy(retries), "replicatedJobs": [job]}},
    }
    return _runtime(kind, name, namespace, "torch", spec)


def mpi(
    name: str = "goldpath-mpi", *, framework: str = "mpi", image: str, retries: int = RETRIES
) -> Manifest:
    """A runtime whose launcher starts processes on the nodes by ssh and mpirun; the launcher is a node itself.

    Its root is writable: sshd writes where the Trainer's images have its settings.

    Args:
        name: of the ClusterTrainingRuntime.
        framework: label by which clients tell runtimes apart.
        image: has sshd, Open MPI and the user 1000 (`mpiuser`), as the Trainer's images do.
        retries: how often a training starts again after a failure.
    """
    volumes = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    base = {
        "name": NODE,
        "image": image,
        "securityContext": container_security(read_only=False),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
    }
    jobs = [
        _job(NODE, {**base, **_SSHD}, volumes),
        {
            "name": LAUNCHER,
            "dependsOn": [{"name": NODE, "status": "Ready"}],
            **{
                key: value
                for key, value in _job(LAUNCHER, base, volumes, {ANCESTOR: "trainer"}).items()
                if key != "name"
            },
        },
    ]
    policy = {
        "numProcPerNode": 1,
        "mpiImplementation": "OpenMPI",
        "sshAuthMountPath": "/home/mpiuser/.ssh",
        "runLauncherAsNode": True,
    }
    spec = {
        "mlPolicy": {"numNodes": 1, "mpi": policy},
        "template": {
            "spec": {
                "network": {"publishNotReadyAddresses": True},
                "successPolicy": {"operator": "All", "targetReplicatedJobs": [LAUNCHER]},
                "failurePolicy": failure_policy(retries),
                "replicatedJobs": jobs,
            }
        },
    }
    return _runtime("ClusterTrainingRuntime", name, "", framework, spec)


def deployed() -> dict[str, Manifest]:
    """The runtimes of `deploy/runtimes/`, by file name."""
    return {
        "torch.yaml": render(),
        "deepspeed.yaml": mpi(
            "goldpath-deepspeed", framework="deepspeed", image=f"{_UPSTREAM}/deepspeed-runtime:v2.3.0"
        ),
        "mpi.yaml": mpi(image=f"{_UPSTREAM}/deepspeed-runtime:v2.3.0"),
    }


def failure_policy(retries: int) -> Manifest:
    """JobSet's `failurePolicy`: start all nodes again, at most `retries` times; after an eviction always.

    Only when all pods of the last time are gone: two of them must not write the same checkpoint.
    """
    return {
        "restartStrategy": "BlockingRecreate",
        "maxRestarts": retries,
        "rules": [
            {
                "name": "evicted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["PodFailurePolicy"],
            }
        ],
    }


def _job(
    name: str, container: Manifest, volumes: list[Manifest], labels: dict[str, str] | None = None
) -> Manifest:
    evicted = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    template: Manifest = {"metadata": {"labels": labels}} if labels else {}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": volumes,
    }
    template["spec"] = {
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [evicted]},
        "template": {"spec": pod},
    }
    return {"name": name, "template": deepcopy(template)}


def _runtime(kind: str, name: str, namespace: str, framework: str, spec: Manifest) -> Manifest:
    where = {"namespace": namespace} if namespace else {}
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": name, **where, "labels": {FRAMEWORK: framework}},
        "spec": spec,
    }
