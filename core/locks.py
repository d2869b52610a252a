"""A file lock that says when it has to wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from goldpath.core.errors import from_os_error
from goldpath.core.progress import emit


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`, made if missing; where another process holds it, say so and wait.

    Args:
        path: the lock file.
        what: what is locked, for the event `waiting`.

    Raises:
        MachineError: the lock file cannot be made.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            emit("waiting", what=what)
            lock.acquire()
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        yield
    finally:
        lock.release()
