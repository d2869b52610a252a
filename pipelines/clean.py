"""Making room: kept work that nothing refers to."""

from __future__ import annotations

import shutil

from goldpath.core import settings
from goldpath.core.errors import InputError
from goldpath.pipelines import runs


def clean_store() -> int:
    """Remove finished work kept for reuse, except the folders that registered models live in. Returns bytes freed.

    Raises:
        InputError: a run is going on, and would lose what it reads.
    """
    for run in runs.all_runs():
        if run.alive():
            raise InputError(f"run {run.name!r} is running", "Wait for it, or cancel it, then clean.")
    from goldpath.registry import models

    kept = {str(folder) for folder in models.folders()}
    freed = 0
    for slot in (settings.home() / "store").glob("*/*"):
        if not slot.is_dir() or any(folder.startswith(str(slot)) for folder in kept):
            continue
        freed += sum(file.stat().st_size for file in slot.rglob("*") if file.is_file())
        shutil.rmtree(slot)
    return freed
