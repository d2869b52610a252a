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
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from goldpath.core.digest import manifest
from goldpath.core.errors import GoldpathError, InputError, MachineError, SpecError
from goldpath.core.fetch import fetch
from goldpath.core.locks import locked
from goldpath.core.progress import progress
from goldpath.core.settings import backend, state
from goldpath.core.sources import explain

_KEPT = re.compile(r"(?P<root>.+://.+)/store/(?P<build>[^/]+/[0-9a-f]{32}/[0-9a-f]{32})(/(?P<inside>.*))?")
SCHEMES = ("s3://", "file://")
"""Of `GOLDPATH_STORAGE`: S3, and a folder for trials on one machine."""
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
            "Set it to a URI that every pod can read and write (s3://bucket/goldpath) in the ConfigMap "
            "goldpath-settings; a pipeline of your own reads that where it calls "
            "goldpath.pipelines.kubeflow.for_kubeflow(task).",
        )
    if uri and not uri.startswith(SCHEMES):
        raise SpecError(
            f"GOLDPATH_STORAGE is {uri!r}, and goldpath keeps work in what speaks S3",
            "Give s3://bucket/folder; AWS_ENDPOINT_URL names another store than Amazon's.",
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
        return f"{slot}/{json.loads(read(f'{slot}/{_BUILD}') or '')['build']}"
    except (KeyError, ValueError):
        return None


def keep(kind: str, key: str, folder: Path) -> str:
    """Copy a finished slot into the storage and say that it counts; returns its URI.

    Raises:
        MachineError: the storage cannot be reached or written.
    """
    build = uuid.uuid4().hex
    slot = f"{storage()}/store/{kind}/{key}"
    put(folder, f"{slot}/{build}")
    write(json.dumps({"build": build}).encode(), f"{slot}/{_BUILD}")
    return f"{slot}/{build}"


def where(path: Path) -> str:
    """The URI in the storage of a finished folder of this pod, or of one that was brought; the reverse of `here`.

    Raises:
        InputError: the path is of neither kind.
    """
    for root, depth in ((state("brought"), 3), (state("store"), 2)):
        if path.is_relative_to(root) and len(parts := path.relative_to(root).parts) >= depth:
            build = f"{storage()}/store/{'/'.join(parts[:3])}" if depth == 3 else kept(*parts[:2])
            if build:
                return "/".join([build, *parts[depth:]])
    raise InputError(f"{path} is not in the storage", "Hand over what a step of the pipeline has made.")


def put(folder: Path, uri: str) -> None:
    """Copy the files of a folder to `uri`, their digests last: without SHA256SUMS the copy is not whole.

    Raises:
        MachineError: the storage cannot be reached or written.
    """
    files = manifest(folder)
    with progress("Keeping", sum((folder / name).stat().st_size for name in files), "B") as bar:
        for name in files:
            put_file(folder / name, f"{uri}/{name}")
            bar.advance((folder / name).stat().st_size)
    write("".join(f"{digest}  {name}\n" for name, digest in files.items()).encode(), f"{uri}/{_SUMS}")


def put_file(file: Path, uri: str) -> None:
    """Copy one file.

    Raises:
        FileNotFoundError: there is no such file here.
        MachineError: the storage cannot be reached or written.
    """
    if file.stat().st_size == 0:
        return write(b"", uri)
    with _writing(uri) as (fs, path):
        fs.put_file(str(file), path)
    return None


def write(content: bytes, uri: str) -> None:
    """Make one object.

    Raises:
        MachineError: the storage cannot be reached or written.
    """
    with _writing(uri) as (fs, path):
        fs.pipe_file(path, content)


def read(uri: str) -> bytes | None:
    """The content of one object; None where there is none.

    Raises:
        MachineError: the storage cannot be reached.
        InputError: it may not be read.
    """
    try:
        fs, path = _open(uri)
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        return None
    except Exception as failure:
        raise explain(failure, uri) from failure


def listed(uri: str) -> list[str]:
    """Names of the objects below `uri`, relative, sorted; none where there is nothing.

    Raises:
        MachineError: the storage cannot be reached.
        InputError: it may not be read.
    """
    try:
        fs, path = _open(uri)
        return sorted(str(name).removeprefix(f"{path}/") for name in fs.find(path))
    except FileNotFoundError:
        return []
    except Exception as failure:
        raise explain(failure, uri) from failure


def remove(uri: str) -> None:
    """Remove what lies at and below `uri`; nothing there is no error.

    Raises:
        MachineError: the storage cannot be reached or written.
    """
    with _writing(uri) as (fs, path), suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def bring(uri: str, folder: Path) -> None:
    """Copy a whole build into `folder`, each file checked against its digest.

    Raises:
        InputError: there is nothing, or no whole copy, at `uri`; a file has another digest.
        MachineError: no network; the disk is full.
    """
    found = fetch(uri, folder, label="Bringing")
    if _SUMS not in found:
        raise InputError(f"the copy at {uri} is not whole", "Run the step that makes it again.")
    if lacking := _named((folder / _SUMS).read_bytes()) - set(found):
        raise InputError(
            f"the copy at {uri} is not whole: {min(lacking)} is gone", "Run the step that makes it again."
        )
    (folder / _SUMS).unlink()


def whole(uri: str) -> bool:
    """Whether a build has all its files; what is in them is not read.

    Raises:
        MachineError: the storage cannot be reached.
    """
    said = read(f"{uri}/{_SUMS}")
    return said is not None and _named(said) <= set(listed(uri))


def _named(sums: bytes) -> set[str]:
    """The files of a list of digests."""
    return {line.split("  ", 1)[1] for line in sums.decode().splitlines() if "  " in line}


def is_build(uri: str) -> bool:
    """Whether it names finished work of a storage, or something inside it: whole, and never changed."""
    return _KEPT.fullmatch(uri) is not None


def here(uri: str) -> Path:
    """A local copy of what lies at `uri` in a storage; brought once, for nothing there ever changes.

    A training's pod has no GOLDPATH_STORAGE: the URI alone says where.

    Args:
        uri: a build's URI, or that of a folder or file inside it.

    Raises:
        InputError: `uri` is no build of the storage, or there is nothing.
        MachineError: no network; the disk is full.
    """
    found = _KEPT.fullmatch(uri)
    if found is None:
        raise InputError(
            f"{uri} is not on this machine",
            "Run the step where it can be read, or fetch it first (`warm_cache`).",
        )
    build = found["build"]
    copy = state("brought") / build
    mark = copy.with_name(f"{copy.name}.whole")
    with locked(copy.with_name(f".{copy.name}.lock"), "storage"):
        if not mark.exists():
            bring(f"{found['root']}/store/{build}", copy)
            mark.touch()
    return copy / (found["inside"] or "")


def _open(uri: str) -> tuple[Any, str]:
    import fsspec

    fs, path = fsspec.url_to_fs(uri)
    fs.invalidate_cache()
    return fs, str(path).rstrip("/")


@contextmanager
def _writing(uri: str) -> Iterator[tuple[Any, str]]:
    """The file system and path to write to, the folders of a local one made, and failures explained."""
    try:
        fs, path = _open(uri)
        if "file" in fs.protocol:  # elsewhere there are no folders, and a bucket is not ours to make
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        yield fs, path
    except Exception as failure:
        raise _unwritten(failure, uri) from failure


def _unwritten(failure: BaseException, uri: str) -> GoldpathError:
    told = explain(failure, uri)
    if isinstance(told, MachineError):
        return told
    return MachineError(
        f"cannot write {uri} ({type(failure).__name__}: {str(failure)[:120]})",
        "Check GOLDPATH_STORAGE, its credentials and that the bucket exists.",
    )
