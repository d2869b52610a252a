"""When each step ran: a Gantt chart's rows, with long pauses (a run that was resumed) taken out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from goldpath.reporting.loading import RESULTS, SERVING, TITLES, RunRecord
from goldpath.reporting.numbers import duration

State = Literal["done", "reused", "failed", "missing"]
_PAUSE_S = 60.0
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400, 604_800)


@dataclass(frozen=True)
class Row:
    """One step's bar; `left` and `width` are percent of the chart."""

    step: str
    title: str
    state: State
    left: float
    width: float
    seconds: float
    told: str
    """What stands at its end."""


@dataclass(frozen=True)
class Timeline:
    """All rows, the ticks (percent, label), and how long it took."""

    rows: list[Row]
    ticks: list[tuple[float, str]]
    elapsed: float
    """Seconds from the first start to the last end, pauses left out."""
    paused: float
    """Seconds in which the run stood still."""
    reused: list[str]
    """Titles of the steps whose work stood there already."""


def timeline(run: RunRecord) -> Timeline:
    """Lay the steps out in time."""
    spans, elapsed, paused = _spans(run)
    scale = max(elapsed, 1e-9)
    rows = []
    for name in [*RESULTS, *(step for step in run.steps if step not in RESULTS)]:
        record = run.steps.get(name)
        if record is None:
            state, told = _absent(run, name)
            rows.append(Row(name, TITLES[name], state, 0, 0, 0, told))
            continue
        begin, end = spans.get(name, (0.0, 0.0))
        rows.append(
            Row(
                name,
                record.title,
                "reused" if record.reused else "done",
                round(100 * begin / scale, 3),
                round(100 * (end - begin) / scale, 3),
                record.seconds,
                duration(record.seconds),
            )
        )
    reused = [record.title for record in run.steps.values() if record.reused]
    return Timeline(rows, _ticks(elapsed), elapsed, paused, reused)


def _spans(run: RunRecord) -> tuple[dict[str, tuple[float, float]], float, float]:
    """Begin and end of each step in seconds from the run's start, without pauses; the time in all; the pauses."""
    timed = sorted(
        (record for record in run.steps.values() if record.started), key=lambda r: (r.started, r.seconds)
    )
    if not timed or timed[0].started is None:
        return {}, 0.0, 0.0
    first = timed[0].started
    spans: dict[str, tuple[float, float]] = {}
    paused, end = 0.0, 0.0
    for record in timed:
        assert record.started is not None  # noqa: S101
        begin = (record.started - first) / timedelta(seconds=1) - paused
        if begin - end > _PAUSE_S:
            paused += begin - end
            begin = end
        spans[record.name] = (begin, begin + record.seconds)
        end = max(end, begin + record.seconds)
    return spans, end, paused


def _absent(run: RunRecord, name: str) -> tuple[State, str]:
    if name == run.stopped_at:
        return "failed", "stopped here"
    if run.error:
        return "missing", "not reached"
    return "missing", "not served" if name in SERVING else "not run"


def _ticks(elapsed: float) -> list[tuple[float, str]]:
    """Four to seven round moments."""
    if elapsed <= 0:
        return []
    gap = next((gap for gap in _TICKS if elapsed / gap <= 6), _TICKS[-1])
    return [
        (round(100 * gap * number / elapsed, 3), _tick(gap * number))
        for number in range(int(elapsed // gap) + 1)
    ]


def _tick(seconds: int) -> str:
    if seconds == 0:
        return "0"
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3_600:
        return f"{seconds // 60}:{seconds % 60:02d} min" if seconds % 60 else f"{seconds // 60} min"
    return f"{seconds / 3_600:g} h"
