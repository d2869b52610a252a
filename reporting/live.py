"""A run as it goes: finished steps as lines, the present work as bars; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from goldpath.core.progress import count_and_figures
from goldpath.reporting.numbers import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Event = dict[str, Any]
_PLAIN_GAP_S = 10.0


@contextmanager
def watching(stream: TextIO | None = None) -> Iterator[Callable[[Event], None]]:
    """A function that shows a run's events on `stream` (stderr)."""
    out = stream or sys.stderr
    if out.isatty():
        with _Live(out) as live:
            yield live
    else:
        yield _Plain(out)


class _Plain:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "step-started":
            self._say(f"{event['step']}: started")
        elif kind == "step-finished":
            self._say(f"{event['step']}: {finished(event)}")
        elif kind == "step-failed":
            self._say(f"{event['step']}: failed after {duration(event['seconds'])}")
        elif kind == "waiting":
            self._say(f"{event['step']}: waiting, another run is doing the same {event['what']}")
        elif kind == "progress":
            now = time.monotonic()
            if event["final"] or now - self._last.get(event["bar"], now - _PLAIN_GAP_S) >= _PLAIN_GAP_S:
                self._last[event["bar"]] = now
                self._say(f"{event['step']}:   {event['label']}: {_figures(event)}")

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class _Live:
    """Bars below, lines above."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=out, highlight=False)
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress

    def __enter__(self) -> _Live:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", style="dim"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        kind, step = event["kind"], event.get("step", "")
        if kind == "step-started":
            self._tasks[step] = self._bars.add_task(step, total=None, text="")
        elif kind == "step-finished":
            self._clear()
            mark = "[cyan]↻[/]" if event["reused"] else "[green]✓[/]"
            self._console.print(f"{mark} [bold]{step:<15}[/] {finished(event)}")
        elif kind == "step-failed":
            self._clear()
            self._console.print(f"[red]✗ [bold]{step:<15}[/][/] failed after {duration(event['seconds'])}")
        elif kind == "waiting":
            self._console.print(f"  [yellow]waiting: another run is doing the same {event['what']}[/]")
        elif kind == "progress":
            self._progress(event)

    def _progress(self, event: Event) -> None:
        bar = event["bar"]
        if bar not in self._tasks:
            self._tasks[bar] = self._bars.add_task(f"  {event['label']}", total=event["total"], text="")
        self._bars.update(
            self._tasks[bar], completed=event["done"], total=event["total"], text=_figures(event)
        )
        if event["final"]:
            self._bars.update(self._tasks[bar], visible=False)

    def _clear(self) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()


def finished(event: Event) -> str:
    """`9.3 s  5,120 of 6,003 chats kept (reused)`; the time as the report writes it."""
    reused = " (reused)" if event["reused"] else ""
    return f"{duration(event['seconds']):>11}  {event['summary']}{reused}"


def _figures(event: Event) -> str:
    return count_and_figures(event["done"], event["total"], event["unit"], event["info"])
