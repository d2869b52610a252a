"""A run that did not end well, and the command that goes on with it."""

from __future__ import annotations

RESUMABLE = ("failed", "cancelled", "interrupted")
"""How a run can have ended that one can go on with."""


def resume_line(name: str) -> str:
    """The command that goes on with the run of that name."""
    return f"goldpath run --resume {name}"
