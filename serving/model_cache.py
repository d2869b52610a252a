"""A content-addressed cache of models: fetched once, every file verified each time it is handed out.

::

    GOLDPATH_HOME/models/
      blobs/<sha256>           a file's content, read-only
      snapshots/<digest>/      a model: hard links into blobs; <digest> is over its file manifest
      index/<key>.json         what a source held when it was fetched: names, versions, digests
      incoming/<key>/          a fetch under way, or interrupted: the next one goes on from here

Reading and hashing is the only way to see a changed bit, so every warm-up verifies every file in full. A
damaged or missing file is fetched again, the others stay.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from goldpath.core import settings
from goldpath.core.digest import digest_bytes, digest_file, digest_manifest
from goldpath.core.errors import MachineError, ModelError, from_os_error
from goldpath.core.fetch import fetch
from goldpath.core.files import link_or_copy, read_json, write_json
from goldpath.core.locks import locked
from goldpath.core.modelfiles import check_model_folder
from goldpath.core.progress import emit
from goldpath.core.settings import state
from goldpath.core.sources import Source, is_network, open_source
from goldpath.serving.results import CachedModel
from goldpath.serving.specs import CacheSpec

_WHAT = "model cache"
# Weights in other formats that model repositories hold beside their safetensors.
_OTHER_WEIGHTS = (
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".onnx",
    ".gguf",
    ".pkl",
    ".tflite",
    ".ot",
)


def warm(spec: CacheSpec) -> CachedModel:
    """Bring a model into the cache, or verify that it is there, and hand it out; on a cluster, KServe's on its nodes.

    Raises:
        ModelError: nothing at the source, no permission to read it, pickled or damaged weights, another model than
            the one that `spec.model_digest` names.
        MachineError: no network and the model is not in the cache; the disk is full or read-only.
    """
    if settings.backend() == "kubernetes":
        from goldpath.serving.backends import kubernetes_cache

        return kubernetes_cache.warm(spec)
    began = monotonic()
    uri = spec.uri if "://" in spec.uri else str(Path(spec.uri).expanduser().absolute())
    root = state("models")
    slot = _Slot(root, digest_bytes(uri.encode())[:32])
    try:
        with locked(root / "locks" / f"{slot.key}.lock", _WHAT):
            fetched, files = _bring(spec, uri, slot)
            _require(spec, files)
            folder = root / "snapshots" / digest_manifest(files)
            with locked(root / "locks" / "commit.lock", _WHAT):
                _link_snapshot(root, folder, files)
            _check(folder, spec.uri)
    except OSError as error:
        raise from_os_error(error, root) from error
    return CachedModel(
        source=spec.uri,
        path=str(folder),
        digest=folder.name,
        files=len(files),
        bytes=sum((folder / name).stat().st_size for name in files),
        bytes_fetched=fetched,
        seconds=round(monotonic() - began, 3),
    )


@dataclass(frozen=True)
class _Slot:
    """What belongs to one source."""

    root: Path
    key: str

    @property
    def index(self) -> Path:
        return self.root / "index" / f"{self.key}.json"

    @property
    def incoming(self) -> Path:
        return self.root / "incoming" / self.key

    def known(self, digest: str) -> dict[str, dict[str, Any]]:
        """Name to `{"version", "size", "sha256"}` as of the last fetch; empty where that was another model.

        A source that was put right may have its old times: where another model is asked for, they prove nothing.
        """
        if not self.index.exists():
            return {}
        with suppress(MachineError, KeyError, TypeError):
            index = read_json(self.index)
            return dict(index["files"]) if digest in ("", index["digest"]) else {}
        return {}


def _bring(spec: CacheSpec, uri: str, slot: _Slot) -> tuple[int, dict[str, str]]:
    """Make all blobs of the model stand; returns the bytes fetched and the manifest."""
    known = slot.known(spec.model_digest)
    try:
        source = open_source(uri, ModelError)
    except MachineError:  # no network: what we have is verified, so it can be used
        manifest = {name: str(entry["sha256"]) for name, entry in known.items()}
        if not manifest or _damaged(slot.root, manifest, spec.parallel):
            raise
        emit("offline", what=spec.uri)
        return 0, manifest
    wanted = set(_model_files(spec.uri, [file.name for file in source.files]))
    versions = {file.name: file.version for file in source.files if file.name in wanted}
    manifest = {
        name: str(entry["sha256"])
        for name, entry in known.items()
        if versions.get(name) and entry["version"] == versions[name]
    }
    bad = _damaged(slot.root, manifest, spec.parallel)
    missing = sorted((wanted - set(manifest)) | bad)
    if missing or not wanted:
        manifest = {name: digest for name, digest in manifest.items() if name not in bad}
        manifest = _fetch_missing(spec, uri, slot, missing, manifest)
        _note(slot, uri, source, manifest)
    fetched = sum(file.size or 0 for file in source.files if file.name in missing)
    return fetched, dict(sorted(manifest.items()))


def _fetch_missing(
    spec: CacheSpec, uri: str, slot: _Slot, missing: list[str], standing: dict[str, str]
) -> dict[str, str]:
    """Fetch files, check the model that they make with the `standing` ones, and put them among the blobs."""
    slot.incoming.mkdir(parents=True, exist_ok=True)
    try:
        got = fetch(
            uri,
            slot.incoming,
            parallel=spec.parallel,
            label="Warming the model cache",
            select=lambda names: [name for name in names if name in missing],
            error=ModelError,
        )
        for name, digest in standing.items():
            link_or_copy(slot.root / "blobs" / digest, slot.incoming / name)
        _check(slot.incoming, spec.uri)
        _require(spec, {**standing, **got})
        for name, digest in got.items():
            _add_blob(slot.incoming / name, slot.root / "blobs" / digest)
    except (ModelError, MachineError) as error:
        if error.__cause__ is None or not is_network(error.__cause__):
            # A bad source or a full disk: nothing half-written stays. No network: what arrived is kept.
            shutil.rmtree(slot.incoming, ignore_errors=True)
        raise
    shutil.rmtree(slot.incoming, ignore_errors=True)
    return {**standing, **got}


def _check(folder: Path, uri: str) -> None:
    try:
        check_model_folder(folder)
    except ModelError as error:  # the user knows the source, not our folder
        raise ModelError(error.message.replace(str(folder), uri), error.remedy) from error


def _require(spec: CacheSpec, manifest: dict[str, str]) -> None:
    """Refuse what is not the model that was asked for, before it can be served."""
    digest = digest_manifest(manifest)
    if spec.model_digest and digest != spec.model_digest:
        raise ModelError(
            f"{spec.uri} was changed after it was registered: its digest is {digest[:12]}, the registered one's "
            f"{spec.model_digest[:12]}",
            "Run the pipeline again: it makes damaged files anew.",
        )


def _note(slot: _Slot, uri: str, source: Source, manifest: dict[str, str]) -> None:
    sizes = {file.name: (file.version, file.size) for file in source.files}
    files = {
        name: {"version": sizes[name][0], "size": sizes[name][1], "sha256": digest}
        for name, digest in sorted(manifest.items())
    }
    write_json(slot.index, {"uri": uri, "digest": digest_manifest(manifest), "files": files})


def _model_files(uri: str, names: list[str]) -> Iterator[str]:
    """The files that serving needs: not the hidden ones, nor the same weights in formats that we would not load."""
    tensors = any(name.endswith(".safetensors") for name in names)
    if not tensors and (pickled := [name for name in names if name.endswith(_OTHER_WEIGHTS)]):
        raise ModelError(
            f"{uri} holds {pickled[0]} and no safetensors",
            "Convert it: load it where you trust it and save it with `save_pretrained(folder)`.",
        )
    for name in names:
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden and not name.endswith(_OTHER_WEIGHTS):
            yield name


def _damaged(root: Path, manifest: dict[str, str], threads: int) -> set[str]:
    """Names whose blob is missing or holds other bytes; a damaged blob is removed."""

    def good(digest: str) -> bool:
        path = root / "blobs" / digest
        if path.is_file() and digest_file(path) == digest:
            return True
        path.unlink(missing_ok=True)
        return False

    with ThreadPoolExecutor(threads) as pool:
        verdicts = list(pool.map(good, manifest.values()))
    bad = {name for name, fine in zip(manifest, verdicts, strict=True) if not fine}
    for name in sorted(bad):
        emit("damaged", what="model cache", file=name)
    return bad


def _add_blob(path: Path, blob: Path) -> None:
    blob.parent.mkdir(parents=True, exist_ok=True)
    path.chmod(0o444)
    _place(path, blob)


def _place(source: Path, target: Path) -> None:
    """Link `source` at `target`, replacing what stands there in one move."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    link_or_copy(source, beside)
    beside.replace(target)
    beside.unlink(missing_ok=True)  # rename does nothing where both are links to the same file


def _link_snapshot(root: Path, folder: Path, files: dict[str, str]) -> None:
    """Make `folder` hold exactly `files`, as links to the blobs."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for name, digest in files.items():
        target, blob = folder / name, root / "blobs" / digest
        if not (target.is_file() and (target.samefile(blob) or digest_file(target) == digest)):
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(blob, target)
