"""Progress in a run, in a terminal and in a log."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from goldpath.core import progress
from goldpath.core.errors import DataError, MachineError
from goldpath.core.progress import Bar, count_and_figures, emit, parse_event

THREE_STEPS = """
from goldpath.core.progress import progress
with progress("Training", 3, "steps") as outer:
    for step in range(3):
        outer.advance(loss=2.0 - step / 2)
    with progress("Scoring", None, "rows") as inner:
        inner.update(7, note="inside")
"""


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_in_a_run_bars_are_events(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "events.jsonl"
    monkeypatch.setenv("GOLDPATH_EVENTS", str(journal))
    monkeypatch.setenv("GOLDPATH_STEP", "tune")
    with progress.progress("Trials", 3, "trials") as bar:
        for _ in range(3):
            bar.advance(loss=1.5)
    seen = events(journal)
    assert {event["kind"] for event in seen} == {"progress"}
    assert {event["step"] for event in seen} == {"tune"}
    assert len({event["bar"] for event in seen}) == 1
    assert (seen[0]["done"], seen[0]["final"]) == (0, False)
    last = seen[-1]
    assert (last["done"], last["total"], last["unit"], last["final"]) == (3, 3, "trials", True)
    assert last["info"] == {"loss": 1.5}
    assert len(seen) < 5  # thinned out: at most five a second


def test_a_failed_block_still_ends_its_bar(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "events.jsonl"
    monkeypatch.setenv("GOLDPATH_EVENTS", str(journal))
    with pytest.raises(ValueError, match="broke"), progress.progress("Work", 10):
        raise ValueError("broke")
    assert events(journal)[-1]["final"] is True


def test_lines_of_many_processes_do_not_mix(tmp_path: Path) -> None:
    journal = tmp_path / "events.jsonl"
    code = (
        "import sys\n"
        "from goldpath.core.progress import emit\n"
        "for i in range(100): emit('note', who=sys.argv[1], i=i, text='x' * 20_000)"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(n)], env={**os.environ, "GOLDPATH_EVENTS": str(journal)}
        )
        for n in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    seen = events(journal)
    assert len(seen) == 300
    for who in "012":
        assert [event["i"] for event in seen if event["who"] == who] == list(range(100))


def test_an_event_does_not_join_half_a_line_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "events.jsonl"
    journal.write_bytes(b'{"kind": "whole"}\n{"kind": "ha')
    monkeypatch.setenv("GOLDPATH_EVENTS", str(journal))
    emit("next")
    emit("last")
    found = [parse_event(line) for line in journal.read_bytes().splitlines()]
    assert [event and event["kind"] for event in found] == ["whole", None, "next", "last"]


@pytest.fixture
def full_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    journal = tmp_path / "events.jsonl"
    journal.symlink_to("/dev/full")
    monkeypatch.setenv("GOLDPATH_EVENTS", str(journal))
    return journal


def test_a_full_disk_is_named(full_journal: Path) -> None:
    with pytest.raises(MachineError, match=rf"the disk is full: cannot write {full_journal}"):
        emit("note")


def test_a_bar_that_cannot_be_written_does_not_hide_why_its_block_ended(
    full_journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up_and_fail() -> None:
        monkeypatch.setenv("GOLDPATH_EVENTS", str(full_journal))
        raise DataError("row 7 is bad")

    monkeypatch.setenv("GOLDPATH_EVENTS", str(tmp_path / "good.jsonl"))
    with pytest.raises(DataError, match="row 7"), progress.progress("Work", 10):
        fill_up_and_fail()


def test_outside_a_run_nothing_is_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    emit("note", what=1)
    assert list(tmp_path.rglob("*")) == []


def test_without_a_terminal_there_are_plain_lines() -> None:
    env = {name: value for name, value in os.environ.items() if name != "GOLDPATH_EVENTS"}
    done = subprocess.run(
        [sys.executable, "-c", THREE_STEPS], env=env, capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert lines[0] == "Training: 0/3 steps"
    assert lines[-1] == "Training: 3/3 steps, loss 1"
    assert "Scoring: 7 rows, note inside" in lines
    assert "\x1b" not in done.stderr
    assert done.stdout == ""


def test_in_a_terminal_there_are_live_bars() -> None:
    env = {name: value for name, value in os.environ.items() if name != "GOLDPATH_EVENTS"}
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", THREE_STEPS],
        env={**env, "TERM": "xterm-256color", "COLUMNS": "100"},
        stderr=theirs,
        stdout=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert child.wait() == 0, shown.decode()
    text = shown.decode()
    assert "\x1b[" in text
    assert "3/3 steps, loss 1" in text
    assert "7 rows, note inside" in text
    assert "Traceback" not in text


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, float | None, bool]] = []

    def show(self, bar: Bar, *, final: bool) -> None:
        self.shown.append((bar.done, bar.total, final))


def test_a_bar_can_advance_jump_and_learn_its_total() -> None:
    sink = Kept()
    bar = Bar("Rows", None, "rows", sink)
    bar.advance(2)
    bar.update(5, total=10)
    bar.advance()
    bar.finish()
    assert sink.shown == [(2, None, False), (5, 10, False), (6, 10, False), (6, 10, True)]


def test_work_that_goes_on_starts_where_it_was(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLDPATH_EVENTS", str(tmp_path / "events.jsonl"))
    with progress.progress("Training", 30, "steps", done=20) as bar:
        bar.advance(10)
    assert [event["done"] for event in events(tmp_path / "events.jsonl")] == [20, 30]


def test_the_last_plain_line_is_not_said_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_GAP_S", 0)
    bar = Bar("Rows", 2, "rows", progress.PlainSink())
    bar.advance()
    bar.advance()
    bar.finish()
    assert capsys.readouterr().err.splitlines() == ["Rows: 1/2 rows", "Rows: 2/2 rows"]


@pytest.mark.parametrize(
    ("done", "total", "unit", "info", "text"),
    [
        (
            40,
            120,
            "steps",
            {"loss": 1.8349, "tokens_per_second": 350.0},
            "40/120 steps, loss 1.835, tokens per second 350",
        ),
        (12_345, None, "rows", {}, "12,345 rows"),
        (5e6, 269e6, "B", {}, "5/269 MB"),
        (5e6, None, "B", {}, "5 MB"),
        (1, 2, "", {"state": "waiting"}, "1/2, state waiting"),
    ],
)
def test_figures_are_readable(
    done: float, total: float | None, unit: str, info: dict[str, float | str], text: str
) -> None:
    assert count_and_figures(done, total, unit, info) == text
