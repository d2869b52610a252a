"""What all pods of trainings have in common: Pod Security "restricted", folders to write to, and credentials."""

from __future__ import annotations

from typing import Any

from goldpath.training.cluster import MOUNT, ClusterSpec

Manifest = dict[str, Any]
USER = 1000
HOME = "/home/goldpath"
MANAGER = "goldpath.io/train"
"""Owner of our `runtimePatches`; the GPU placement's has another."""
KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "HF_TOKEN",
)
"""What a Secret for object storage may hold."""
ENVIRONMENT = {"HOME": HOME, "HF_HOME": f"{HOME}/huggingface", "PYTHONUNBUFFERED": "1"}
_STORAGE = "goldpath-storage"


def pod_security(user: int = USER) -> Manifest:
    """`securityContext` of a pod. The group owns volumes, so that a claim can be written to."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(read_only: bool = True) -> Manifest:
    """`securityContext` of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        **({"readOnlyRootFilesystem": True} if read_only else {}),
    }


def folders(home: bool = True) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts to write to beside a read-only root: /tmp, the home with its caches, shared memory."""
    paths = {"tmp": "/tmp", **({"home": HOME} if home else {}), "shm": "/dev/shm"}  # noqa: S108
    volumes: list[Manifest] = [
        {"name": name, "emptyDir": {"medium": "Memory"} if name == "shm" else {}} for name in paths
    ]
    return volumes, [{"name": name, "mountPath": path} for name, path in paths.items()]


def variables(values: dict[str, str]) -> list[Manifest]:
    """`env` of a container; a dollar sign is doubled, for Kubernetes expands `$(NAME)`."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in values.items()]


def credentials(secret: str) -> list[Manifest]:
    """`env` from a Secret: the keys that it has."""
    if not secret:
        return []
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
        for key in KEYS
    ]


def storage(cluster: ClusterSpec) -> tuple[list[Manifest], list[Manifest]]:
    """Volume and mount of the claim, where there is one."""
    if not cluster.claim:
        return [], []
    volume = {"name": _STORAGE, "persistentVolumeClaim": {"claimName": cluster.claim}}
    return [volume], [{"name": _STORAGE, "mountPath": MOUNT}]
