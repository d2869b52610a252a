"""Reuse by content: work whose inputs, parameters and code are the same is done once.

Each piece of work has a slot, `GOLDPATH_HOME/store/<kind>/<key>/`, where the key is a digest over the kind, the
inputs (by content digest, never by path), the parameters and our code. A slot is built under a lock, so that two
runs at once do it once; an interrupted build may leave its partial files (checkpoints) for the next try;
`result.json`, written last, makes it whole. A slot whose files changed or vanished is built again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from goldpath.core import storage
from goldpath.core.digest import digest_json, manifest
from goldpath.core.errors import GoldpathError, InputError
from goldpath.core.files import read_json, write_json
from goldpath.core.locks import locked
from goldpath.core.progress import emit
from goldpath.core.settings import state
from goldpath.core.spec import Result

R = TypeVar("R", bound=Result)
_RESULT = "result.json"


@dataclass(frozen=True)
class Reused(Generic[R]):
    """Finished work: its result, the folder of its files, and whether it stood there already."""

    result: R
    path: Path
    key: str
    reused: bool
    stored: str = ""
    """Its URI in the storage that pods share; empty where there is none."""

    @property
    def uri(self) -> str:
        """Where the next step finds the folder: in the storage, else a `file://` URI."""
        return self.stored or self.path.as_uri()


def reuse(
    kind: str,
    inputs: Mapping[str, Any],
    model: type[R],
    build: Callable[[Path], R],
    *,
    keep_partial: bool = False,
) -> Reused[R]:
    """Return the finished work for `inputs`, building it if need be.

    Args:
        kind: a short name, the folder in the store (`"fine-tune"`).
        inputs: everything the work depends on, JSON-able: digests, parameters, `code_digest(...)`.
        model: the type of the result.
        build: does the work into the folder it is given and returns the result.
        keep_partial: leave files of an interrupted build in place (checkpoints), so that the next build can go on
            from them; without it, a build that fails leaves nothing, and each starts in an empty folder.

    Raises:
        GoldpathError: whatever `build` raises.
    """
    key = digest_json({"kind": kind, **inputs})[:32]
    root = state("store", kind)
    slot = root / key
    with locked(root / f".{key}.lock", kind):
        stored = storage.kept(kind, key) or ""
        found = _load(slot, model)
        if found is None and stored:
            found = _brought(stored, slot, model)
            stored = stored if found is not None else ""
        if found is not None:
            emit("reused", what=kind, key=key)
            return Reused(found, slot, key, reused=True, stored=stored or _keep(kind, key, slot))
        damaged = (
            slot / _RESULT
        ).exists()  # once finished: its files are no checkpoints to trust and go on from
        if slot.exists() and (damaged or not keep_partial):
            shutil.rmtree(slot)
        slot.mkdir(parents=True, exist_ok=True)
        try:
            result = build(slot)
            files = manifest(slot)
            write_json(
                slot / _RESULT,
                {"kind": kind, "inputs": inputs, "result": result.model_dump(mode="json"), "files": files},
            )
        except BaseException:
            if not keep_partial:
                shutil.rmtree(slot, ignore_errors=True)
            raise
        return Reused(result, slot, key, reused=False, stored=_keep(kind, key, slot))


def _brought(stored: str, slot: Path, model: type[R]) -> R | None:
    """What another pod has made; None where its copy is damaged, and the work is to be done again."""
    shutil.rmtree(slot, ignore_errors=True)
    try:
        storage.bring(stored, slot)
    except InputError:
        emit("damaged", what=slot.parent.name, key=slot.name)
        return None
    return _load(slot, model)


def _keep(kind: str, key: str, slot: Path) -> str:
    return storage.keep(kind, key, slot) if storage.storage() else ""


def _load(slot: Path, model: type[R]) -> R | None:
    if not (slot / _RESULT).exists():
        return None
    try:
        kept = read_json(slot / _RESULT)
        now = manifest(slot)
        now.pop(_RESULT, None)
        if now != kept["files"]:
            emit("damaged", what=slot.parent.name, key=slot.name)
            return None
        return model.model_validate(kept["result"])
    except (GoldpathError, ValidationError, KeyError, TypeError):
        return None
