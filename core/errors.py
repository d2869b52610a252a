"""The errors that goldpath raises on purpose.

::

    GoldpathError            anything a person can act on: one line, with a remedy
    ├── InputError           the caller gave something that cannot work
    │   ├── SpecError        a field of a spec: which, what was given, what is allowed
    │   ├── DataError        a data set: which file, which row
    │   └── ModelError       a model: unknown, unsafe or damaged files
    ├── MachineError         the machine: port taken, disk full or read-only, too little memory
    ├── StepError            a step or a child process failed
    └── Interrupted          Ctrl-C or SIGTERM

On the command line each ends the program with exit code 2 and its one line, without a traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

EXIT_CODE = 2


class GoldpathError(Exception):
    """An error with a remedy.

    Args:
        message: what is wrong, naming the thing.
        remedy: what to do about it, as an imperative sentence.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = " ".join(message.split()).rstrip(".")
        self.remedy = " ".join(remedy.split())
        super().__init__(self.line())

    def line(self) -> str:
        """The message and its remedy on one line."""
        said = self.message if self.message.endswith(("?", "!")) else f"{self.message}."
        return f"{said} {self.remedy}" if self.remedy else said

    def to_dict(self) -> dict[str, str]:
        """A form that crosses a process boundary; see `from_dict`."""
        return {"type": type(self).__name__, "message": self.message, "remedy": self.remedy}

    @staticmethod
    def from_dict(data: dict[str, str]) -> GoldpathError:
        """The error that `to_dict` described; an unknown type becomes a plain GoldpathError."""
        kind = {cls.__name__: cls for cls in _tree(GoldpathError)}.get(data.get("type", ""), GoldpathError)
        return kind(data.get("message", "unknown error"), data.get("remedy", ""))


class InputError(GoldpathError):
    """The caller gave something that cannot work."""


class SpecError(InputError):
    """A field of a spec has a value that is not allowed."""


class DataError(InputError):
    """A data set is missing, unreadable or has a bad row."""


class ModelError(InputError):
    """A model is unknown, unsafe to load or damaged."""


class MachineError(GoldpathError):
    """The machine cannot do it: port taken, disk full or read-only, too little memory."""


class StepError(GoldpathError):
    """A step or a child process failed."""


class Interrupted(GoldpathError):
    """Ctrl-C or SIGTERM ended the work."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`Did you mean 'finetune-1'? `, to put before a remedy; empty where nothing comes close."""
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def _tree(root: type[GoldpathError]) -> list[type[GoldpathError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


def from_os_error(error: OSError, path: str | Path = "") -> MachineError:
    """Say what a failed file operation means and what to do about it."""
    where = str(path or error.filename or "the file system")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(
            f"the disk is full: cannot write {where}",
            "Free some space (`goldpath runs clean` removes old runs) or set GOLDPATH_HOME to another disk.",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return MachineError(
            f"no permission to write {where}", "Set GOLDPATH_HOME to a folder that you can write to."
        )
    return MachineError(
        f"{where}: {error.strerror or error}", "Check the path and the disk, then run it again."
    )
