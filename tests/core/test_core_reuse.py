"""Work is done once for the same content, whoever asks and whatever happened before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.errors import InputError, MachineError
from goldpath.core.reuse import Reused, reuse
from goldpath.core.spec import Result


class Sum(Result):
    total: int


class OtherSum(Result):
    """What a later version of the code would hand back."""

    total: int
    parts: list[int]


def adding(*numbers: int, calls: list[Path] | None = None) -> Callable[[Path], Sum]:
    def build(folder: Path) -> Sum:
        if calls is not None:
            calls.append(folder)
        (folder / "numbers.txt").write_text(" ".join(map(str, numbers)))
        return Sum(total=sum(numbers))

    return build


def never(_: Path) -> Sum:
    raise AssertionError("it was built again")


def test_the_same_inputs_are_built_once(home: Path) -> None:
    first = reuse("sum", {"numbers": [1, 2]}, Sum, adding(1, 2))
    again = reuse("sum", {"numbers": [1, 2]}, Sum, never)
    assert (first.reused, again.reused) == (False, True)
    assert first.result == again.result == Sum(total=3)
    assert first.path == again.path
    assert (again.path / "numbers.txt").read_text() == "1 2"
    assert again.uri == f"file://{again.path}"


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [("sum", {"numbers": [1, 3]}), ("sum", {"numbers": [1, 2], "code": "x"}), ("other", {"numbers": [1, 2]})],
)
def test_other_work_has_another_slot(home: Path, kind: str, inputs: dict[str, Any]) -> None:
    first = reuse("sum", {"numbers": [1, 2]}, Sum, adding(1, 2))
    second = reuse(kind, inputs, Sum, adding(4))
    assert not second.reused
    assert second.key != first.key


def change(folder: Path) -> None:
    (folder / "numbers.txt").write_text("changed")


def add(folder: Path) -> None:
    (folder / "stray.txt").touch()


def remove(folder: Path) -> None:
    (folder / "numbers.txt").unlink()


def spoil(folder: Path) -> None:
    (folder / "result.json").write_text("{half")


def strip(folder: Path) -> None:
    (folder / "result.json").write_text("{}")


@pytest.mark.parametrize("keep_partial", [False, True])
@pytest.mark.parametrize("damage", [change, add, remove, spoil, strip])
def test_a_damaged_slot_is_built_again_from_nothing(
    home: Path, damage: Callable[[Path], None], keep_partial: bool
) -> None:
    damage(reuse("sum", {}, Sum, adding(1, 2)).path)
    seen: list[list[str]] = []

    def build(folder: Path) -> Sum:
        seen.append(sorted(os.listdir(folder)))  # noqa: PTH208
        return adding(1, 2)(folder)

    mended = reuse("sum", {}, Sum, build, keep_partial=keep_partial)
    assert not mended.reused
    assert seen == [[]]
    assert reuse("sum", {}, Sum, never).reused


def test_a_result_of_another_shape_is_built_again(home: Path) -> None:
    reuse("sum", {}, Sum, adding(1))

    def build(folder: Path) -> OtherSum:
        return OtherSum(total=1, parts=[1])

    assert not reuse("sum", {}, OtherSum, build).reused
    assert reuse("sum", {}, OtherSum, build).reused


def test_a_failed_build_is_no_result(home: Path) -> None:
    def fail(folder: Path) -> Sum:
        (folder / "half.txt").touch()
        raise InputError("bad row")

    with pytest.raises(InputError):
        reuse("sum", {}, Sum, fail)
    seen: list[list[Path]] = []

    def build(folder: Path) -> Sum:
        seen.append(list(folder.iterdir()))
        return Sum(total=0)

    assert not reuse("sum", {}, Sum, build).reused
    assert seen == [[]]


@pytest.mark.parametrize("why", [InputError("bad row"), KeyboardInterrupt(), SystemExit(2)])
def test_a_build_that_ends_early_leaves_no_half_of_it(home: Path, why: BaseException) -> None:
    def fail(folder: Path) -> Sum:
        (folder / "half.txt").write_text("half")
        raise why

    with pytest.raises(type(why)):
        reuse("sum", {}, Sum, fail)
    assert [path for path in (home / "store" / "sum").rglob("*") if path.suffix != ".lock"] == []


def test_an_interrupted_build_goes_on_from_what_it_left(home: Path) -> None:
    def train(folder: Path) -> Sum:
        checkpoint = folder / "checkpoint"
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        checkpoint.write_text(str(done + 1))
        if done == 0:
            raise KeyboardInterrupt
        return Sum(total=done)

    with pytest.raises(KeyboardInterrupt):
        reuse("train", {}, Sum, train, keep_partial=True)
    resumed = reuse("train", {}, Sum, train, keep_partial=True)
    assert (resumed.reused, resumed.result.total) == (False, 1)


CHILD = """
import os, sys, time
from pathlib import Path
from goldpath.core.reuse import reuse
from goldpath.core.spec import Result

class Sum(Result):
    total: int

def build(folder):
    (Path(sys.argv[1]) / f"built-{os.getpid()}").touch()
    print("building", flush=True)
    while not (Path(sys.argv[1]) / "go").exists():
        time.sleep(0.02)
    (folder / "numbers.txt").write_text("1 2")
    return Sum(total=3)

print("reused" if reuse("race", {"n": 1}, Sum, build).reused else "built", flush=True)
"""


def child(home: Path, marks: Path) -> subprocess.Popen[str]:
    """Builds until `marks/go` is there, and says so."""
    env = {**os.environ, "GOLDPATH_HOME": str(home), "GOLDPATH_EVENTS": str(marks / "events.jsonl")}
    command = [sys.executable, "-c", CHILD, str(marks)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_one_builds_and_the_other_waits_for_it(home: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    journal = marks / "events.jsonl"
    first = child(home, marks)
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = child(home, marks)
    while "waiting" not in (journal.read_text() if journal.exists() else ""):
        assert second.poll() is None
        time.sleep(0.02)
    (marks / "go").touch()
    said = [first.communicate()[0].split()[-1], second.communicate()[0].split()[-1]]
    assert said == ["built", "reused"]
    assert len(list(marks.glob("built-*"))) == 1
    assert [json.loads(line)["kind"] for line in journal.read_text().splitlines()] == ["waiting", "reused"]


def test_a_builder_that_is_killed_does_not_lock_the_slot(home: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    killed = child(home, marks)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "building\n"
    killed.kill()
    killed.communicate()
    (marks / "go").touch()
    after = child(home, marks)
    assert after.communicate()[0].split()[-1] == "built"


def test_what_is_kept_can_be_read_by_people(home: Path) -> None:
    made: Reused[Sum] = reuse("sum", {"numbers": [1, 2]}, Sum, adding(1, 2))
    kept = json.loads((made.path / "result.json").read_text())
    assert kept["kind"] == "sum"
    assert kept["inputs"] == {"numbers": [1, 2]}
    assert kept["result"] == {"total": 3}
    assert list(kept["files"]) == ["numbers.txt"]


def test_a_home_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_HOME", "/sys/goldpath")
    with pytest.raises(MachineError, match=r"/sys/goldpath.*Set GOLDPATH_HOME"):
        reuse("sum", {}, Sum, never)


def test_a_lock_that_cannot_be_made_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("goldpath.core.locks.FileLock.acquire", refuse)
    with pytest.raises(MachineError, match="the disk is full"):
        reuse("sum", {}, Sum, never)
