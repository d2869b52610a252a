"""Errors that a person can act on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from goldpath.core import errors
from goldpath.core.errors import GoldpathError, MachineError, from_os_error

KINDS = [
    errors.GoldpathError,
    errors.InputError,
    errors.SpecError,
    errors.DataError,
    errors.ModelError,
    errors.MachineError,
    errors.StepError,
    errors.Interrupted,
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_a_process_boundary_as_itself(kind: type[GoldpathError]) -> None:
    error = kind("row 7 of chats.jsonl has no answer", "Add one.")
    back = GoldpathError.from_dict(error.to_dict())
    assert type(back) is kind
    assert (back.message, back.remedy) == (error.message, error.remedy)


@pytest.mark.parametrize(
    ("message", "remedy", "line"),
    [
        ("port 80 is taken", "Choose another.", "port 80 is taken. Choose another."),
        ("ends with a stop.", "", "ends with a stop."),
        ("which pipeline?", "Type `goldpath run finetune`.", "which pipeline? Type `goldpath run finetune`."),
        ("which pipeline?", "", "which pipeline?"),
        ("it said: no!", "Ask again.", "it said: no! Ask again."),
        ("two stops..", "", "two stops."),
        ("over\n  two\tlines", "And\n so on.", "over two lines. And so on."),
    ],
)
def test_an_error_is_one_line(message: str, remedy: str, line: str) -> None:
    error = GoldpathError(message, remedy)
    assert error.line() == str(error) == line


def test_a_close_match_is_suggested() -> None:
    assert errors.did_you_mean("finetun-1", ["other", "finetune-1"]) == "Did you mean 'finetune-1'? "
    assert errors.did_you_mean("ghost", ["finetune-1"]) == ""


def test_an_unknown_kind_of_error_still_arrives() -> None:
    back = GoldpathError.from_dict({"type": "OfAnotherVersion", "message": "it broke"})
    assert type(back) is GoldpathError
    assert back.line() == "it broke."


@pytest.mark.parametrize(
    ("number", "says", "remedy"),
    [
        (errno.ENOSPC, "the disk is full: cannot write /data/x", "Free some space"),
        (errno.EDQUOT, "the disk is full: cannot write /data/x", "Free some space"),
        (errno.EROFS, "no permission to write /data/x", "GOLDPATH_HOME"),
        (errno.EACCES, "no permission to write /data/x", "GOLDPATH_HOME"),
        (errno.EPERM, "no permission to write /data/x", "GOLDPATH_HOME"),
        (errno.ENOENT, "/data/x: No such file or directory", "Check the path"),
    ],
)
def test_a_failed_file_operation_is_explained(number: int, says: str, remedy: str) -> None:
    shown = from_os_error(OSError(number, os.strerror(number), "/data/x"))
    assert isinstance(shown, MachineError)
    assert shown.message == says
    assert remedy in shown.remedy


def test_the_path_that_is_given_wins_over_the_one_in_the_error() -> None:
    assert "/a" in from_os_error(OSError(errno.EIO, "broken", "/b"), Path("/a")).message
    assert from_os_error(OSError("no number")).message == "the file system: no number"
