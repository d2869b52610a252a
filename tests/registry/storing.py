"""Models as a step leaves them: in a slot of the store that is kept in the storage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from goldpath.core.reuse import reuse
from goldpath.core.spec import Result
from goldpath.core.uris import local_path
from goldpath.registry.results import Lineage


class Nothing(Result):
    """The result of a step that makes a model."""


def stored(model: Callable[..., tuple[Path, Lineage]], seed: int) -> tuple[Path, Lineage]:
    """The folder where the next step finds it, and its lineage."""
    folder, lineage = model(seed)

    def build(slot: Path) -> Nothing:
        shutil.copytree(folder, slot / "model")
        return Nothing()

    slot = reuse("fine-tune", {"seed": seed}, Nothing, build)
    return local_path(slot.uri) / "model", lineage
