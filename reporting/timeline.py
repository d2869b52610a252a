"""When each step ran: a Gantt chart's rows, with long pauses (a run that was resumed) taken out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from goldpath.reporting.loading import SERVING, TITLES, RunRecord
from goldpath.reporting.numbers import duration, words

State = Literal["done", "reused", "failed", "missing", "writing", "absent"]
"""`writing`: the step that makes the page, while it does."""
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
    """In the order in which they began; those that did not begin come last."""
    ticks: list[tuple[float, str]]
    elapsed: float
    """Seconds from the run's start to its end, pauses left out; while it runs, to the end of its last step."""
    paused: float
    """Seconds in which the run stood still."""
    reused: list[str]
    """Titles of the steps whose work stood there already."""

    @property
    def steps(self) -> int:
        """How many steps were done, the one that writes the page among them."""
        return sum(row.state in ("done", "reused", "writing") for row in self.rows)


def timeline(run: RunRecord) -> Timeline:
    """Lay the steps out in time."""
    spans, elapsed, paused = _spans(run)
    last = max([elapsed, *(end for _, end in spans.values())])
    scale = max(last, 1e-9)
    names = [*TITLES, *(step for step in [*run.steps, *run.unfinished] if step not in TITLES)]
    rows = []
    for name in sorted(names, key=lambda name: spans.get(name, (math.inf, 0.0))[0]):
        record, unfinished = run.steps.get(name), run.unfinished.get(name)
        seconds = record.seconds if record else unfinished.seconds if unfinished else 0.0
        state, told = _state(run, name)
        if state == "absent":
            continue
        begin, end = spans.get(name, (0.0, 0.0))
        left, width = round(100 * begin / scale, 3), round(100 * (end - begin) / scale, 3)
        rows.append(Row(name, TITLES.get(name, words(name)), state, left, width, seconds, told))
    reused = [record.title for record in run.steps.values() if record.reused]
    return Timeline(rows, _ticks(last if spans else 0.0), elapsed, paused, reused)


def _spans(run: RunRecord) -> tuple[dict[str, tuple[float, float]], float, float]:
    """Begin and end of each step in seconds from the run's start, without pauses; the time in all; the pauses."""
    begun = [(step.started, step.seconds, name) for name, step in run.steps.items() if step.started]
    begun += [(step.started, step.seconds, name) for name, step in run.unfinished.items()]
    if not begun:
        return {}, _seconds(run), 0.0
    begun.sort(key=lambda step: step[0])  # equal ones stay in the pipeline's order
    first = begun[0][0]
    whole = run.started is not None and first >= run.started  # else there are results of an earlier try
    if run.started and whole:
        first = run.started
    spans: dict[str, tuple[float, float]] = {}
    paused, end = 0.0, 0.0
    for started, seconds, name in begun:
        begin = (started - first) / timedelta(seconds=1) - paused
        if spans and begin - end > _PAUSE_S:
            paused += begin - end
            begin = end
        spans[name] = (begin, begin + seconds)
        end = max(end, begin + seconds)
    # Between and after the steps there is time, too: the record has what the terminal shows.
    return spans, _seconds(run) or end if whole and not paused else end, paused


def _seconds(run: RunRecord) -> float:
    """From start to end, as the run's record has it; 0 where it has not ended."""
    return max((run.ended - run.started) / timedelta(seconds=1), 0.0) if run.started and run.ended else 0.0


def _state(run: RunRecord, name: str) -> tuple[State, str]:
    """How the step stands, and what is told at the end of its row."""
    if record := run.steps.get(name):
        return "reused" if record.reused else "done", duration(record.seconds)
    if unfinished := run.unfinished.get(name):
        how = "failed" if run.failed and name == run.stopped_at else "stopped"
        return "failed", f"{how} after {duration(unfinished.seconds)}"
    if name == run.stopped_at:
        return "failed", "stopped here"
    if run.error:
        return "missing", "not reached"
    if name == "report":
        return ("absent", "") if run.ended or not run.steps else ("writing", "this page")
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
