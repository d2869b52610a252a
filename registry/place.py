"""Where a registered model's files lie: beside the embedded registry, or in the storage that the pods share.

A registry on a server cannot hold paths of this machine. What the pipeline has made lies in the storage already
(`core.storage`), by content and checked, so a version points there and no weights are copied or uploaded again.
"""

from __future__ import annotations

from pathlib import Path

from goldpath.core import settings, storage
from goldpath.core.errors import InputError, ModelError
from goldpath.core.tracking_store import database
from goldpath.registry import kubeflow
from goldpath.registry.results import RegisteredVersion


def embedded() -> bool:
    """Whether MLflow's store is a SQLite file on this machine."""
    return database() is not None


def require() -> None:
    """See that what is registered has a place that the registry's readers reach.

    Raises:
        InputError: the registry is a server, and `GOLDPATH_STORAGE` is not set, or is no bucket for MLflow's server.
    """
    address = kubeflow.address()
    if embedded() and not address:
        return
    asked = (
        f"GOLDPATH_MODEL_REGISTRY is {address}"
        if address
        else f"MLFLOW_TRACKING_URI is {settings.tracking_uri()}"
    )
    uri = storage.storage()
    if not uri:
        raise InputError(
            f"{asked}, and there is no storage that its readers reach",
            "Set GOLDPATH_STORAGE (s3://bucket/goldpath). Unset it to register on this machine.",
        )
    if not address and uri.startswith("file://"):
        raise InputError(
            f"{asked}, and a server of MLflow's takes no model from {uri}",
            "Set GOLDPATH_STORAGE to a bucket (s3://bucket/goldpath).",
        )


def stored(folder: Path) -> str:
    """The URI in the storage of a folder that a step has made.

    Raises:
        InputError: it is not there.
    """
    # A file:// URI of a shared volume is read in place, so nothing of it was brought here.
    uri = folder.as_uri()
    return uri if uri.startswith(f"{storage.storage()}/store/") else storage.where(folder)


def missing(uri: str) -> list[str]:
    """Files below `uri`, a build in the storage or a folder in one, that are not there any more.

    Raises:
        MachineError: the storage cannot be reached.
    """
    root = f"{storage.storage()}/store/"
    parts = uri.removeprefix(root).split("/")
    if not uri.startswith(root) or len(parts) < 3:
        return [uri]
    build, inside = root + "/".join(parts[:3]), "/".join(parts[3:])
    sums = storage.read(f"{build}/SHA256SUMS")
    if sums is None:
        return ["SHA256SUMS"]
    made = [line.partition("  ")[2] for line in sums.decode("utf-8").splitlines()]
    there = set(storage.listed(build))
    return [name for name in made if name.startswith(inside) and name not in there]


def require_files(champion: RegisteredVersion) -> None:
    """See that the files of a champion are there.

    Raises:
        ModelError: some are gone.
    """
    if gone := missing(champion.uri):
        raise ModelError(
            f"files of {champion.name} version {champion.version}, its champion, are missing at "
            f"{champion.uri}: {', '.join(gone[:3])}",
            "Restore them or check GOLDPATH_STORAGE; else take the champion's standing from it in the registry "
            "(docs/cluster-registry.md) and run the pipeline again.",
        )
