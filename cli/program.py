"""How the command is typed here: `goldpath` where the shell finds it, else its path."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """What to type for this installation's command, such as `goldpath` or `.venv/bin/goldpath`."""
    own = Path(sys.executable).parent / "goldpath"
    found = shutil.which("goldpath")
    if not own.exists():
        return "goldpath" if found else f"{shlex.quote(sys.executable)} -m goldpath.cli.main"
    if found and own.samefile(found):
        return "goldpath"
    here = Path.cwd()
    return shlex.quote(str(own.relative_to(here) if own.is_relative_to(here) else own))


def as_typed(text: str) -> str:
    """A text whose commands (`goldpath ...` between backquotes) work as they stand."""
    return text.replace("`goldpath ", f"`{program()} ")
