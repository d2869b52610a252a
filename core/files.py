"""Files written whole or not at all: write beside, then rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from goldpath.core.errors import MachineError, from_os_error


@contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place if the block ends well, remove it if not.

    The block may write a file or make a folder there. A folder that stands at `path` is replaced.

    Raises:
        MachineError: the disk is full or read-only.
    """
    target = Path(path)
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        fresh = scratch / target.name
        yield fresh
        if target.is_dir() and fresh.exists():
            target.replace(scratch / "old")
        fresh.replace(target)
    except OSError as error:
        elsewhere = error.filename if scratch and str(scratch) not in str(error.filename) else None
        raise from_os_error(error, elsewhere or target) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file atomically (UTF-8)."""
    with write_beside(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Write a JSON file atomically, indented, keys in their order."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        MachineError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise from_os_error(error, path) from error
    except ValueError as error:
        raise MachineError(
            f"{path} is not valid JSON ({error})", "Delete it and run the step again."
        ) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` to `target` where the file system can, else copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def require_space(folder: str | Path, bytes_needed: int) -> None:
    """Refuse early where the disk cannot hold what is about to be written.

    Raises:
        MachineError: less than `bytes_needed` is free.
    """
    free = shutil.disk_usage(Path(folder)).free
    if free < bytes_needed:
        raise MachineError(
            f"{folder} has {free / 1e9:.2f} GB free and {bytes_needed / 1e9:.2f} GB are needed",
            "Free some space (`goldpath runs clean` removes old runs) or set GOLDPATH_HOME to another disk.",
        )
