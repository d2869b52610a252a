"""Marks that a run's steps leave in its folder: for the other steps, and for whoever asks why the run ended.

A step that works has `running-<step>`. When it fails, it renames that file `failed-<step>` and writes why over it,
which takes no room on the disk that it did not take at its start: so the reason gets through a full disk. A step
that is killed leaves `running-<step>` behind.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldpath.core.errors import GoldpathError, StepError, from_os_error
from goldpath.core.process import is_same_process, started_at

_ROOM = 4096
_RUNNING, _FAILED = "running-", "failed-"


@dataclass(frozen=True)
class Failure:
    """The first step of a run that failed, and why."""

    step: str
    error: GoldpathError
    killed_after: float | None = None
    """Seconds from its start until now, where it was killed and told nobody."""

    def to_dict(self) -> dict[str, str]:
        """The error as the run's record keeps it, with the step's name."""
        return {**self.error.to_dict(), "step": self.step}


def begin(run_dir: Path, step: str) -> None:
    """Note that this process works on `step`.

    Raises:
        MachineError: the disk is full or read-only.
    """
    mark, pid = run_dir / f"{_RUNNING}{step}", os.getpid()
    try:
        mark.write_bytes(_padded({"pid": pid, "pid_started": started_at(pid) or time.time()}))
    except OSError as error:
        raise from_os_error(error, mark) from error


def end(run_dir: Path, step: str) -> None:
    """Note that `step` ended well."""
    (run_dir / f"{_RUNNING}{step}").unlink(missing_ok=True)


def fail(run_dir: Path, step: str, error: GoldpathError) -> None:
    """Note that `step` failed; as far as that can be done on a disk that is full from the start."""
    running, failed = run_dir / f"{_RUNNING}{step}", run_dir / f"{_FAILED}{step}"
    with suppress(OSError):
        running.touch()
        running.replace(failed)
        with failed.open("r+b") as file:
            file.write(_padded(error.to_dict()))


def clear(run_dir: Path) -> None:
    """Forget what earlier tries of the run have left."""
    for mark in _marks(run_dir):
        mark.unlink(missing_ok=True)


def survivors(run_dir: Path) -> list[int]:
    """The pids of steps that still work, or end: of an earlier try, where a new one begins."""
    kept = [_read(mark) for mark in _marks(run_dir)]
    return [each["pid"] for each in kept if "pid" in each and not _orphaned(each)]


def lost(run_dir: Path) -> bool:
    """Whether a step of the run has failed or was killed, so that no other need begin."""
    return any(mark.name.startswith(_FAILED) or _orphaned(_read(mark)) for mark in _marks(run_dir))


def first_failure(run_dir: Path) -> Failure | None:
    """The first step that failed or was killed, asked once no step runs any more; None where none left a mark."""
    for mark in _marks(run_dir):
        kept, step = _read(mark), mark.name.partition("-")[2]
        if "message" in kept:
            return Failure(step, GoldpathError.from_dict(kept))
        if _orphaned(kept):  # one that was killed before it had written why has its pid in `failed-` too
            killed = StepError(
                f"{step} was killed, most often because the machine ran out of memory",
                "Close other programs or make the work smaller (batch_size, sequence_length, max_rows), "
                "then go on with `goldpath run --resume`.",
            )
            return Failure(step, killed, round(time.time() - mark.stat().st_mtime, 2))
    return None


def _marks(run_dir: Path) -> list[Path]:
    """All marks, in the order of their last change."""
    found = []
    for mark in (*run_dir.glob(f"{_RUNNING}*"), *run_dir.glob(f"{_FAILED}*")):
        with suppress(FileNotFoundError):  # a step that has just ended
            found.append((mark.stat().st_mtime_ns, mark))
    return [mark for _, mark in sorted(found)]


def _read(mark: Path) -> dict[str, Any]:
    try:
        kept = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _orphaned(kept: dict[str, Any]) -> bool:
    return "pid" in kept and not is_same_process(kept["pid"], kept["pid_started"])


def _padded(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode().ljust(_ROOM)
