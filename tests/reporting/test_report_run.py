"""The page of a run's folder: from its record, its results and its journal."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from goldpath.reporting.run import report_of_folder
from tests.reporting import samples


def folder_of(place: Path, values: dict[str, Any], events: list[dict[str, Any]], **changes: Any) -> Path:
    samples.write_steps(place / "results", samples.without_charts(values))
    ended = (samples.BEGAN + timedelta(seconds=214)).isoformat()
    (place / "run.json").write_text(json.dumps(samples.run_record(ended=ended, **changes)))
    (place / "events.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in events) + '{"kind": "st'
    )
    return place


def event(kind: str, at: float, step: str = "", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time": samples.BEGAN.timestamp() + at, "step": step, **fields}


BEGUN = [
    event("run-started", -900),
    event("step-started", -899, "evaluate"),  # of a try that was killed
    event("run-started", 0),
    event("step-started", 54, "tune"),
    event("step-finished", 140, "tune"),
    event("step-started", 141, "fine_tune"),
]


def test_the_step_that_failed_has_its_time_from_the_journal(tmp_path: Path) -> None:
    failed = event("step-failed", 213.4, "fine_tune", seconds=72.4)
    error = samples.FAILED | {"step": "fine_tune"}
    run = folder_of(tmp_path, samples.failed(), [*BEGUN, failed], status="failed", error=error)
    page = report_of_folder(run).read_text()
    assert "failed after 1 min 12 s" in page
    assert "stopped after" not in page
    assert ">3 min 34 s</dd>" in page


@pytest.mark.parametrize("status", ["cancelled", "interrupted"])
def test_a_step_that_was_stopped_lasted_until_the_end(tmp_path: Path, status: str) -> None:
    run = folder_of(tmp_path, samples.failed(), BEGUN, status=status)
    page = report_of_folder(run).read_text()
    assert "The run stopped at “Fine-tune”" in page
    assert "stopped after 1 min 13 s" in page


def test_a_failed_step_does_not_show_the_result_of_an_earlier_try(tmp_path: Path) -> None:
    values = samples.failed() | {"fine_tune": samples.training()}
    failed = event("step-failed", 213.4, "fine_tune", seconds=72.4)
    error = samples.FAILED | {"step": "fine_tune"}
    page = report_of_folder(folder_of(tmp_path, values, [*BEGUN, failed], status="failed", error=error))
    assert "The run stopped here: the disk is full" in page.read_text()
    assert "LoRA for 60 steps" not in page.read_text()


def test_a_remedy_that_knows_no_run_gets_its_name(tmp_path: Path) -> None:
    error = {"message": "fine_tune was killed", "remedy": "Then go on with `goldpath run --resume`."}
    page = report_of_folder(folder_of(tmp_path, samples.failed(), BEGUN, status="failed", error=error))
    told = page.read_text()
    assert "Then go on with <code>goldpath run --resume finetune-7</code>." in told
    assert told.count("To go on with the run as it is") == 1  # at the step; the remedy on top has said so


def test_a_run_without_a_journal_has_a_page(tmp_path: Path) -> None:
    run = folder_of(tmp_path, samples.failed(), [], status="failed", error=samples.FAILED)
    (run / "events.jsonl").unlink()
    assert "stopped here" in report_of_folder(run).read_text()
