"""Fixtures for the core's tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of one megabyte; where mounting is not permitted, a folder in which large writes fail as there."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return
    real = Path.write_text

    def write_text(self: Path, data: str, *args: Any, **options: Any) -> int:
        if len(data) > 1_000_000 and folder in self.parents:
            return real(Path("/dev/full"), data, *args, **options)
        return real(self, data, *args, **options)

    monkeypatch.setattr(Path, "write_text", write_text)
    yield folder
