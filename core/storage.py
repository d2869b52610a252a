"""Object storage between pods: finished work lies there once, by content, where every step and every job can read it.

Steps and jobs of a cluster share no disk. With `GOLDPATH_STORAGE` set (`s3://bucket/team`, any URI of fsspec) a slot
of `core.reuse` is kept below it besides:

    <storage>/store/<kind>/<key>/<build>/     the files, and SHA256SUMS of them, written last
    <storage>/store/<kind>/<key>/build.json   which build counts; one object, so that it is whole or not there

Two pods that do the same work at once write two builds, and the later word counts; neither ever reads a mixture.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from goldpath.core.digest import manifest
from goldpath.core.errors import GoldpathError, InputError, MachineError, SpecError
from goldpath.core.fetch import fetch
from goldpath.core.locks import locked
from goldpath.core.progress import progress
from goldpath.core.settings import backend, state
from goldpath.core.sources import explain

_SUMS = "SHA256SUMS"
_BUILD = "build.json"


def storage() -> str:
    """Where pods leave work for each other: `GOLDPATH_STORAGE` without a final slash; empty on one machine.

    Raises:
        SpecError: the backend is `kubernetes` and none is set; it is no URI.
    """
    uri = os.environ.get("GOLDPATH_STORAGE", "").strip().rstrip("/")
    if not uri and backend() == "kubernetes":
        raise SpecError(
            "GOLDPATH_STORAGE is not set, and the pods of a cluster share no disk",
            "Set it to a URI that every pod can read and write (s3://bucket/goldpath): deploy/base has its place.",
        )
    if uri and "://" not in uri:
        raise SpecError(
            f"GOLDPATH_STORAGE is {uri!r}, which is no URI", "Give s3://..., gs://... or file:///..."
        )
    return uri


def kept(kind: str, key: str) -> str | None:
    """The URI of the whole build of a slot; None where the storage has none, or is not used.

    Raises:
        MachineError: the storage cannot be reached.
        InputError: it may not be read.
    """
    if not (root := storage()):
        return None
    slot = f"{root}/store/{kind}/{key}"
    try:
        fs, path = _open(slot)
        told = json.loads(fs.cat_file(f"{path}/{_BUILD}"))
        return f"{slot}/{told['build']}"
    except (FileNotFoundError, KeyError, ValueError):
        return None
    except Exception as failure:
        raise explain(failure, slot) from failure


def keep(kind: str, key: str, folder: Path) -> str:
    """Copy a finished slot into the storage and say that it counts; returns its URI.

    Raises:
        MachineError: the storage cannot be reached or written.
    """
    build = uuid.uuid4().hex
    slot = f"{storage()}/store/{kind}/{key}"
    put(folder, f"{slot}/{build}")
    try:
        fs, path = _open(slot)
        fs.pipe_file(f"{path}/{_BUILD}", json.dumps({"build": build}).encode())
    except Exception as failure:
        raise _unwritten(failure, slot) from failure
    return f"{slot}/{build}"


def put(folder: Path, uri: str) -> None:
    """Copy the files of a folder to `uri`, their digests last: without SHA256SUMS the copy is not whole.

    Raises:
        MachineError: the storage cannot be reached or written.
    """
    files = manifest(folder)
    try:
        fs, root = _open(uri)
        with progress("Keeping", sum((folder / name).stat().st_size for name in files), "B") as bar:
            for name in files:
                fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                fs.put_file(str(folder / name), f"{root}/{name}")
                bar.advance((folder / name).stat().st_size)
        sums = "".join(f"{digest}  {name}\n" for name, digest in files.items())
        fs.pipe_file(f"{root}/{_SUMS}", sums.encode())
    except Exception as failure:
        raise _unwritten(failure, uri) from failure


def bring(uri: str, folder: Path) -> None:
    """Copy a whole build into `folder`, each file checked against its digest.

    Raises:
        InputError: there is nothing, or no whole copy, at `uri`; a file has another digest.
        MachineError: no network; the disk is full.
    """
    found = fetch(uri, folder, label="Bringing")
    if _SUMS not in found:
        raise InputError(f"the copy at {uri} is not whole", "Run the step that makes it again.")
    (folder / _SUMS).unlink()


def here(uri: str) -> Path:
    """A local copy of what lies at `uri` in the storage; brought once, for nothing there ever changes.

    Args:
        uri: a build's URI, or that of a folder or file inside it.

    Raises:
        InputError: `uri` is no build of the storage, or there is nothing.
        MachineError: no network; the disk is full.
    """
    parts = uri.removeprefix(f"{storage()}/store/").split("/")
    if not storage() or not uri.startswith(f"{storage()}/store/") or len(parts) < 3:
        raise InputError(
            f"{uri} is not on this machine",
            "Run the step where it can be read, or fetch it first (`warm_cache`).",
        )
    build, inside = "/".join(parts[:3]), parts[3:]
    copy = state("brought") / build
    mark = copy.with_name(f"{copy.name}.whole")
    with locked(copy.with_name(f".{copy.name}.lock"), "storage"):
        if not mark.exists():
            bring(f"{storage()}/store/{build}", copy)
            mark.touch()
    return copy.joinpath(*inside)


def _open(uri: str) -> tuple[Any, str]:
    import fsspec

    fs, path = fsspec.url_to_fs(uri)
    fs.invalidate_cache()
    return fs, str(path).rstrip("/")


def _unwritten(failure: BaseException, uri: str) -> GoldpathError:
    told = explain(failure, uri)
    if isinstance(told, MachineError):
        return told
    return MachineError(
        f"cannot write {uri} ({type(failure).__name__}: {str(failure)[:120]})",
        "Check GOLDPATH_STORAGE, its credentials and that the bucket exists.",
    )
