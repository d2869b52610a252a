"""Progress of long work: events in a run, rich bars in a terminal, plain lines elsewhere.

Inside a run every process appends to one events file (`GOLDPATH_EVENTS`), which the command line draws; the
events also stay as the run's journal. A full disk or a kill can leave half a line in it, which `parse_event` passes
over.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from goldpath.core.errors import MachineError, from_os_error

_EVENT_GAP_S = 0.2
_PLAIN_GAP_S = 5.0


class Sink(Protocol):
    """Draws or keeps the state of one bar."""

    def show(self, bar: Bar, *, final: bool) -> None:
        """Take the bar's present state; `final` once, at its end."""


class Bar:
    """One piece of long work. Advance it; `info` holds figures shown beside it (loss, tokens per second)."""

    def __init__(self, label: str, total: float | None, unit: str, sink: Sink, done: float = 0) -> None:
        self.id = uuid.uuid4().hex[:8]
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self.info: dict[str, float | str] = {}
        self._sink = sink

    def advance(self, amount: float = 1, **info: float | str) -> None:
        """Add to what is done."""
        self.info.update(info)
        self.update(self.done + amount)

    def update(self, done: float, total: float | None = None, **info: float | str) -> None:
        """Set what is done."""
        self.done = done
        self.total = total if total is not None else self.total
        self.info.update(info)
        self._sink.show(self, final=False)

    def finish(self) -> None:
        """Show the last state."""
        self._sink.show(self, final=True)


@contextmanager
def progress(label: str, total: float | None = None, unit: str = "", done: float = 0) -> Iterator[Bar]:
    """A progress bar for the block.

    Args:
        label: what is worked on.
        total: how much there is, where that is known.
        unit: what is counted (`rows`, `steps`, `B`).
        done: how much was done before: work that goes on starts there.
    """
    sink = _sink()
    bar = Bar(label, total, unit, sink, done)
    sink.show(bar, final=False)
    try:
        yield bar
    except BaseException:
        with suppress(MachineError):  # what ended the block is the reason to show
            bar.finish()
        raise
    bar.finish()


def emit(kind: str, **fields: Any) -> None:
    """Append one event to the run's journal; nothing outside a run.

    Raises:
        MachineError: the disk is full or read-only.
    """
    target = os.environ.get("GOLDPATH_EVENTS")
    if not target:
        return
    event = {
        "time": round(time.time(), 3),
        "kind": kind,
        "step": os.environ.get("GOLDPATH_STEP", ""),
        **fields,
    }
    line = json.dumps(event, default=str) + "\n"
    try:
        _append(Path(target), line.encode())
    except OSError as error:
        raise from_os_error(error, target) from error


def _append(journal: Path, line: bytes) -> None:
    """One line at a time, whichever process writes it, and never behind a half line that somebody left."""
    with journal.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line
        while line:
            line = line[file.write(line) :]


def parse_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line of the journal; None where the line is empty or was cut off."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None


class EventSink:
    """Writes the bar's state to the run's journal, at most five times a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def show(self, bar: Bar, *, final: bool) -> None:
        """Append an event, if one is due."""
        now = time.monotonic()
        if final or now - self._last >= _EVENT_GAP_S:
            self._last = now
            emit(
                "progress",
                bar=bar.id,
                label=bar.label,
                done=bar.done,
                total=bar.total,
                unit=bar.unit,
                info=bar.info,
                final=final,
            )


class PlainSink:
    """A line now and then, for logs; none twice."""

    def __init__(self) -> None:
        self._last, self._said = 0.0, ""

    def show(self, bar: Bar, *, final: bool) -> None:
        """Print a line, if one is due."""
        now, line = time.monotonic(), describe(bar)
        if line != self._said and (final or now - self._last >= _PLAIN_GAP_S):
            self._last, self._said = now, line
            print(line, file=sys.stderr, flush=True)  # noqa: T201


class RichSink:
    """A live bar in a terminal or notebook."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
        )
        self._task: Any = None

    def show(self, bar: Bar, *, final: bool) -> None:
        """Redraw."""
        if self._task is None:
            self._live.start()
            self._task = self._live.add_task(bar.label, total=bar.total, text="")
        self._live.update(self._task, completed=bar.done, total=bar.total, text=figures(bar))
        if final:
            self._live.stop()


def _sink() -> Sink:
    if os.environ.get("GOLDPATH_EVENTS"):
        return EventSink()
    return RichSink() if sys.stderr.isatty() else PlainSink()


def describe(bar: Bar) -> str:
    """The bar as one plain line."""
    return f"{bar.label}: {figures(bar)}"


def figures(bar: Bar) -> str:
    """Count and figures of a bar; see `count_and_figures`."""
    return count_and_figures(bar.done, bar.total, bar.unit, bar.info)


def count_and_figures(done: float, total: float | None, unit: str, info: Mapping[str, float | str]) -> str:
    """Count and figures: `40/120 steps, loss 1.83, tokens per second 350`."""
    if unit == "B":
        count = f"{done / 1e6:.0f}" + (f"/{total / 1e6:.0f} MB" if total else " MB")
    else:
        count = f"{done:,.10g}" + (f"/{total:,.10g}" if total else "") + (f" {unit}" if unit else "")
    shown = [
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in info.items()
    ]
    return ", ".join([count, *shown])
