"""Making room: work that was kept for reuse."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from goldpath.core import settings
from goldpath.core.errors import InputError, from_os_error
from goldpath.pipelines import runs

_KEPT = ("store/*/*", "features/*", "spool/*")
"""Slots of `core.reuse`, feature stores, and what killed runs left of data sets that they had fetched."""


def clean_store() -> tuple[int, int]:
    """Remove finished work kept for reuse; registered models have links of their own.

    Returns:
        Bytes removed, and the number of slots that are in use and were left alone.

    Raises:
        InputError: a run is going on, and would lose what it reads.
        MachineError: something cannot be removed.
    """
    for run in runs.all_runs():
        if run.busy():
            raise InputError(f"run {run.name!r} is running", "Wait for it, or cancel it, then clean.")
    freed = in_use = 0
    with runs.store_lock().open("ab") as lock:  # until its end, who starts a run waits for us
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError("a run has just started", "Wait for it, or cancel it, then clean.") from None
        for pattern in _KEPT:
            for slot in settings.home().glob(pattern):
                if not slot.is_dir():
                    continue  # a lock
                try:
                    freed += _remove(slot)
                except Timeout:
                    in_use += 1
    return freed, in_use


def _remove(slot: Path) -> int:
    """Remove a slot under its lock, `.<slot>.lock` beside it; scratch of its builder is `.<slot>.<anything>`."""
    name = slot.name.lstrip(".").partition(".")[0]
    try:
        with FileLock(slot.parent / f".{name}.lock").acquire(timeout=0) as lock:
            sizes = [file.stat() for file in slot.rglob("*") if file.is_file()]
            size = sum(
                each.st_size for each in sizes if each.st_nlink == 1
            )  # others stay where they are linked
            shutil.rmtree(slot)
            if slot.parent.name == "spool":  # its name is used once; others' locks may be waited for
                Path(lock.lock_file).unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, Timeout):
            raise
        raise from_os_error(error, slot) from error
    return size
