"""What all pods of trainings have in common: Pod Security "restricted", folders to write to, and credentials."""

from __future__ import annotations

from typing import Any

from goldpath.core import environment
from goldpath.training.cluster import MOUNT, ClusterSpec

Manifest = dict[str, Any]
USER = 1000
HOME = "/home/goldpath"
MANAGER = "goldpath.io/train"
"""Owner of our `runtimePatches`; the GPU placement's has another."""
ENVIRONMENT = {
    "HOME": HOME,
    "GOLDPATH_HOME": f"{HOME}/state",
    "HF_HOME": f"{HOME}/huggingface",
    "PYTHONUNBUFFERED": "1",
}
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
    """Volumes and mounts beside a read-only root: /tmp, shared memory; for our worker its home and certificates."""
    paths = {"tmp": "/tmp", **({"home": HOME} if home else {}), "shm": "/dev/shm"}  # noqa: S108
    volumes: list[Manifest] = [
        {"name": name, "emptyDir": {"medium": "Memory"} if name == "shm" else {}} for name in paths
    ]
    mounts = [{"name": name, "mountPath": path} for name, path in paths.items()]
    if home:
        trusted = environment.CERTIFICATES
        volumes.append({"name": trusted, "configMap": {"name": trusted, "optional": True}})
        mounts.append({"name": trusted, "mountPath": environment.CERTIFICATES_AT})
    return volumes, mounts


def variables(values: dict[str, str]) -> list[Manifest]:
    """`env` of a container; a dollar sign is doubled, for Kubernetes expands `$(NAME)`."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in values.items()]


def credentials(secret: str) -> list[Manifest]:
    """`env` from the Secret of the storage and the settings of the namespace: the keys that they have."""
    made = [_key("configMapKeyRef", environment.SETTINGS, *pair) for pair in _read(environment.SETTINGS)]
    if secret:
        made = [*(_key("secretKeyRef", secret, *pair) for pair in _read(environment.STORAGE)), *made]
    return made


def from_secrets(values: dict[str, str]) -> list[Manifest]:
    """`env` from SECRET/KEY each, which must be there."""
    parts = {name: value.split("/", 1) for name, value in values.items()}
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for name, (secret, key) in parts.items()
    ]


def _read(source: str) -> list[tuple[str, str]]:
    return list(environment.variables(source, jobs=True).items())


def _key(kind: str, source: str, key: str, variable: str) -> Manifest:
    return {"name": variable, "valueFrom": {kind: {"name": source, "key": key, "optional": True}}}


def storage(cluster: ClusterSpec) -> tuple[list[Manifest], list[Manifest]]:
    """Volume and mount of the claim, where there is one."""
    if not cluster.claim:
        return [], []
    volume = {"name": _STORAGE, "persistentVolumeClaim": {"claimName": cluster.claim}}
    return [volume], [{"name": _STORAGE, "mountPath": MOUNT}]
