"""The report of the present run, or of a run's folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from goldpath.core import settings
from goldpath.core.errors import GoldpathError
from goldpath.core.files import read_json, write_beside, write_text
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
    """Write `report.html` of a run that did not get to its own report: the steps it finished, and why it ended."""
    steps = {file.stem: file for file in sorted((folder / "results").glob("*.json"))}
    return build_report(steps, folder / "report.html", run=_about(folder))


def _about(folder: Path) -> dict[str, Any]:
    try:
        run = read_json(folder / "run.json")
    except GoldpathError:
        return {"name": folder.name, "pipeline": "", "parameters": {}}
    return {
        "name": run["name"],
        "pipeline": run["pipeline"],
        "started": run["started"],
        "parameters": run["parameters"],
        "pipeline_digest": run["pipeline_digest"],
        "command": run["command"],
        "status": run["status"],
        "error": run["error"],
    }
