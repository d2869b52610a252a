"""Small self-contained pages for KFP's artifact viewer, and the run's summary as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from goldpath.reporting import charts, comparison, latency, story
from goldpath.reporting.loading import load_run
from goldpath.reporting.numbers import clip
from goldpath.reporting.page import render
from goldpath.reporting.timeline import timeline
from goldpath.serving.results import ProbeResult
from goldpath.training.results import EvalResult, SearchResult, TrainResult


def trials_html(search: SearchResult) -> str:
    """The trials of a search: picture, learning curves, table."""
    drawn = [charts.trials_chart(search), charts.trial_curves_chart(search)]
    return render(
        "fragment.html",
        kind="trials",
        title="Trials",
        search=search,
        objective=charts.objective_name(search.objective),
        charts=list(filter(None, drawn)),
    )


def curves_html(training: TrainResult) -> str:
    """The curves of a fine-tuning."""
    drawn = [charts.loss_chart(training), charts.throughput_chart(training), charts.schedule_chart(training)]
    return render("fragment.html", kind="curves", title="Fine-tuning", charts=list(filter(None, drawn)))


def comparison_html(judged: EvalResult) -> str:
    """Base against tuned: metrics, the gate's checks, samples."""
    return render(
        "fragment.html",
        kind="comparison",
        title="Base vs tuned",
        charts=[],
        judged=judged,
        metric_rows=comparison.metric_rows(judged),
        check_rows=comparison.check_rows(judged),
        loss_bars=comparison.loss_bars(judged),
        models=comparison.models(judged),
    )


def ttft_html(probe: ProbeResult) -> str:
    """Time to first token of cold and repeated prompts."""
    chart = latency.ttft_chart(probe)
    return render(
        "fragment.html",
        kind="ttft",
        title="Time to first token",
        probe=probe,
        charts=[chart] if chart else [],
    )


def summary_markdown(steps: Mapping[str, Path], run: Mapping[str, Any]) -> str:
    """The headline of a run; the arguments are those of `report.build_report`."""
    record = load_run(steps, run)
    line = timeline(record)
    told = story.verdict(record)
    rows = [f"# {_plain(told.headline)}", "", _plain(told.told), ""]
    if record.error:
        rows += [
            f"**{_plain(record.error.get('message', 'error'))}.** {_plain(record.error.get('remedy', ''))}",
            "",
            *filter(None, [_plain(story.go_on_once(record))]),
            "",
        ]
    figures = story.figures(record, line)
    if figures:
        rows += ["| figure | | |", "|---|---|---|"]
        rows += [f"| **{_plain(f.number)}** | {_plain(f.label)} | {_plain(f.note)} |" for f in figures]
        rows.append("")
    rows += ["| step | time | |", "|---|---|---|"]
    rows += [
        f"| {_plain(row.title)} | {row.told if row.state in ('done', 'reused') else '–'} | "
        f"{'' if row.state == 'done' else row.state if row.state == 'reused' else row.told} |"
        for row in line.rows
    ]
    if judged := record.get("evaluate", EvalResult):
        rows += ["", "| gate | |", "|---|---|"]
        rows += [f"| {_plain(check.told)} | {check.state} |" for check in comparison.check_rows(judged)]
    return "\n".join(rows) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown and its HTML leave alone."""
    flat = " ".join(clip(text, 600).split())
    for char in "\\`*_[]|#":
        flat = flat.replace(char, f"\\{char}")
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
