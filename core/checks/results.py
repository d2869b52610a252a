"""What a check of a cluster says."""

from __future__ import annotations

from enum import StrEnum

from goldpath.core.spec import Result


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "cannot tell"


class Check(Result):
    """One thing that was looked for."""

    name: str
    state: State
    required: bool = False
    """Whether the golden path cannot run without it."""
    note: str = ""
    """What was found, or why it cannot be told."""
    remedy: str = ""
    """How to get it; empty where it is there."""


def can_run(checks: list[Check]) -> bool:
    """Whether everything that the golden path needs was seen to be there."""
    return all(check.state is State.OK for check in checks if check.required)
