"""Making room: work that was kept for reuse."""

from __future__ import annotations

import shutil

from goldpath.core import settings
from goldpath.core.errors import InputError
from goldpath.pipelines import runs


def clean_store() -> int:
    """Remove finished work kept for reuse; registered models have links of their own. Returns bytes freed.

    Raises:
        InputError: a run is going on, and would lose what it reads.
    """
    for run in runs.all_runs():
        if run.alive():
            raise InputError(f"run {run.name!r} is running", "Wait for it, or cancel it, then clean.")
    freed = 0
    for slot in (settings.home() / "store").glob("*/*"):
        if not slot.is_dir():
            continue
        freed += sum(file.stat().st_size for file in slot.rglob("*") if file.is_file())
        shutil.rmtree(slot)
    return freed
