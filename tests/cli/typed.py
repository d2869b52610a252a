"""The command as it is typed."""

import subprocess
import sys


def goldpath(*words: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "goldpath.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=120,
        **more,
    )
