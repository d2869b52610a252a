"""The command as it is typed."""

import subprocess
import sys

import pytest

from goldpath.cli.main import main


def in_this_process(patch: pytest.MonkeyPatch, *words: str) -> int:
    """The same without a process of its own, for what ends before it begins; the exit code."""
    patch.setattr(sys, "argv", ["goldpath", *words])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def goldpath(*words: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "goldpath.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=120,
        **more,
    )
