"""PyTorchJob (kubeflow.org/v1): the same fine-tuning on clusters that still have the v1 training operator.

The operator sets torchrun's `PET_*` variables as the Trainer does, so command and arguments are the same.
"""

from __future__ import annotations

from copy import deepcopy

from goldpath.accelerators.placement import Placement
from goldpath.accelerators.render.pods import give, place_pod
from goldpath.training.cluster import ClusterSpec, Uris
from goldpath.training.manifests import pods, trainjob
from goldpath.training.manifests.pods import Manifest
from goldpath.training.manifests.runtime import RETRIES
from goldpath.training.specs import TrainSpec

API = "kubeflow.org/v1"
CONTAINER = "pytorch"
"""The operator takes the container of this name for the one that trains."""


def render(
    name: str,
    spec: TrainSpec,
    cluster: ClusterSpec,
    uris: Uris,
    placement: Placement,
    *,
    namespace: str = "",
    save_model: bool = True,
    chosen: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
) -> list[Manifest]:
    """A fine-tuning as a PyTorchJob, after the objects that it needs.

    The arguments and errors are those of `trainjob.render`; `runtime` and `runtime_kind` don't apply.

    Raises:
        SpecError: see `trainjob.render`.
    """
    plain = cluster.model_copy(update={"retries": None})
    no_gpus = placement.model_copy(
        update={"limits": {}, "pod_claims": (), "container_claims": (), "objects": ()}
    )
    *_, job = trainjob.render(
        name,
        spec,
        plain,
        uris,
        no_gpus,
        namespace=namespace,
        save_model=save_model,
        chosen=chosen,
        env=env,
    )
    pod = _pod(job["spec"]["trainer"], cluster, placement)
    replicas = {"Master": 1, **({"Worker": cluster.nodes - 1} if cluster.nodes > 1 else {})}
    where = {"namespace": namespace} if namespace else {}
    made: Manifest = {
        "apiVersion": API,
        "kind": "PyTorchJob",
        "metadata": {"name": name, **where},
        "spec": {
            "nprocPerNode": str(spec.processes),
            "runPolicy": {
                "activeDeadlineSeconds": cluster.deadline_seconds,
                "backoffLimit": RETRIES if cluster.retries is None else cluster.retries,
                "cleanPodPolicy": "Running",
            },
            "pytorchReplicaSpecs": {
                role: {"replicas": count, "restartPolicy": "OnFailure", "template": {"spec": deepcopy(pod)}}
                for role, count in replicas.items()
            },
        },
    }
    return [*map(deepcopy, placement.objects), made]


def _pod(trainer: Manifest, cluster: ClusterSpec, placement: Placement) -> Manifest:
    """The specification of a pod that does what a TrainJob's `trainer` says."""
    volumes, mounts = pods.folders()
    claim, claim_mount = pods.storage(cluster)
    container: Manifest = {
        "name": CONTAINER,
        "image": trainer["image"],
        "command": trainer["command"],
        "args": trainer["args"],
        "env": [*pods.variables(pods.ENVIRONMENT), *trainer["env"]],
        "resources": trainer["resourcesPerNode"],
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, *claim_mount],
    }
    give(container, placement)
    pod: Manifest = {
        "automountServiceAccountToken": False,
        **({"serviceAccountName": cluster.service_account} if cluster.service_account else {}),
        "securityContext": pods.pod_security(),
        "containers": [container],
        "volumes": [*volumes, *claim],
    }
    place_pod(pod, placement)
    return pod
