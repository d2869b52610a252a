"""The report of the present run, or of a run's folder."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from goldpath.core import settings
from goldpath.core.errors import GoldpathError
from goldpath.core.files import read_json, write_beside, write_text
from goldpath.core.progress import parse_event
from goldpath.core.resuming import RESUMABLE
from goldpath.core.spec import Result
from goldpath.reporting.fragments import summary_markdown
from goldpath.reporting.report import build_report


class Page(Result):
    """A report that was written."""

    path: str
    """Where to open it."""
    bytes: int


def report_of_run(steps: dict[str, Path], page: Path, summary: Path) -> Page:
    """Write the page and its headline where KFP expects them; in a run on this machine also its `report.html`.

    Args:
        steps: step to its result file (`core.steps`).
        page: HTML to write.
        summary: Markdown to write.
    """
    folder = settings.run_dir()
    about = (
        _about(folder) if folder else {"name": settings.run_id() or "run", "pipeline": "", "parameters": {}}
    )
    build_report(steps, page, run=about)
    write_text(summary, summary_markdown(steps, run=about))
    if folder is None:
        return Page(path=str(page), bytes=page.stat().st_size)
    with write_beside(folder / "report.html") as fresh:
        shutil.copyfile(page, fresh)
    return Page(path=str(folder / "report.html"), bytes=page.stat().st_size)


def report_of_folder(folder: Path) -> Path:
    """Write `report.html` of a run that has ended: its steps, its time, and why it ended early if it did."""
    about = _about(folder)
    unfinished = about.get("unfinished", {})  # such a step may have a result of an earlier try
    found = sorted((folder / "results").glob("*.json"))
    steps = {file.stem: file for file in found if file.stem not in unfinished}
    return build_report(steps, folder / "report.html", run=about)


def _about(folder: Path) -> dict[str, Any]:
    try:
        run = read_json(folder / "run.json")
    except GoldpathError:
        return {"name": folder.name, "pipeline": "", "parameters": {}}
    kept = ("name", "pipeline", "started", "parameters", "pipeline_digest", "command", "status", "error")
    about: dict[str, Any] = {key: run[key] for key in kept} | {"ended": run.get("ended", "")}
    if run["status"] in RESUMABLE:
        about["unfinished"] = _unfinished(folder / "events.jsonl", about["ended"])
    return about


def _unfinished(journal: Path, ended: str) -> dict[str, tuple[str, float]]:
    """Steps of the run's last try that did not finish: when they began, and seconds until they ended."""
    found: dict[str, tuple[float, float | None]] = {}
    last = 0.0
    for event in _events(journal):
        kind, step = event["kind"], event.get("step", "")
        last = event.get("time", last)
        if kind == "run-started":
            found.clear()
        elif kind == "step-started":
            found[step] = (last, None)
        elif kind == "step-finished":
            found.pop(step, None)
        elif kind == "step-failed" and step in found:
            found[step] = (found[step][0], event.get("seconds"))
    with suppress(ValueError):  # it was killed, and nobody has written down when
        last = max(last, datetime.fromisoformat(ended).timestamp())
    return {
        step: (
            datetime.fromtimestamp(begun, UTC).isoformat(timespec="milliseconds"),
            round(last - begun, 2) if seconds is None else seconds,
        )
        for step, (begun, seconds) in found.items()
    }


def _events(journal: Path) -> list[dict[str, Any]]:
    try:
        return list(filter(None, map(parse_event, journal.read_bytes().splitlines())))
    except OSError:
        return []
