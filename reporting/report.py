"""The report of a run: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from goldpath.core.files import write_text
from goldpath.feature_repo.results import FeatureResult
from goldpath.registry.results import RegisteredVersion
from goldpath.reporting import charts, comparison, latency, plan, story
from goldpath.reporting.loading import RunRecord, load_run
from goldpath.reporting.page import render
from goldpath.reporting.svg import Chart
from goldpath.reporting.timeline import timeline
from goldpath.serving.results import CachedModel, Endpoint, ProbeResult
from goldpath.training.results import BaseModelInfo, DataCard, EvalResult, SearchResult, TrainResult

SECTIONS = (
    ("steps", "Steps"),
    ("data", "Data"),
    ("memory", "Memory"),
    ("search", "Search"),
    ("training", "Fine-tuning"),
    ("comparison", "Base vs tuned"),
    ("serving", "Serving"),
    ("lineage", "Lineage"),
    ("reproduce", "Reproduce"),
)


def build_report(steps: Mapping[str, Path], out: Path, *, run: Mapping[str, Any]) -> Path:
    """Write the page, whole or not at all; steps that are missing or unreadable are told, not an error.

    Args:
        steps: step name to its result file, `{step, started, seconds, reused, result}` (`core.steps`).
        out: where the page goes.
        run: name, pipeline, started, ended (ISO 8601; none while it runs), parameters, command, pipeline_digest,
            status, unfinished (step to when it began and the seconds until it failed or was stopped), and error
            (`{type, message, remedy}`, None for a run that went well); any of them may be missing.

    Returns:
        `out`.

    Raises:
        MachineError: the disk is full or read-only.
    """
    return write_text(out, report_html(load_run(steps, run)))


def report_html(run: RunRecord) -> str:
    """The page's HTML."""
    line = timeline(run)
    endpoint, probe = run.get("deploy", Endpoint), run.get("probe", ProbeResult)
    judged, search = run.get("evaluate", EvalResult), run.get("tune", SearchResult)
    training, registered = run.get("fine_tune", TrainResult), run.get("register_model", RegisteredVersion)
    answers = probe.answers if probe else []
    return render(
        "report.html",
        run=run,
        line=line,
        sections=SECTIONS,
        verdict=story.verdict(run),
        figures=story.figures(run, line),
        ledes=story.ledes(run, line) | plan.lede(run),
        why=lambda step: story.why_missing(run, step),
        card=run.get("prepare_data", DataCard),
        features=run.get("build_features", FeatureResult),
        base=run.get("import_model", BaseModelInfo),
        **plan.context(run),
        search=search,
        objective=charts.objective_name(search.objective) if search else "",
        training=training,
        judged=judged,
        metric_rows=comparison.metric_rows(judged) if judged else [],
        check_rows=comparison.check_rows(judged) if judged else [],
        loss_bars=comparison.loss_bars(judged) if judged else [],
        models=comparison.models(judged) if judged else [],
        registered=registered,
        cached=run.get("warm_cache", CachedModel),
        endpoint=endpoint,
        probe=probe,
        command=story.repeated_command(run.command),
        go_on=story.go_on_once(run),
        loss_note=training and story.train_loss_note(training),
        registered_told=registered and story.lineage_told(registered, judged),
        curl=story.curl_line(endpoint.url, endpoint.model, answers) if endpoint else "",
        charts=_charts(run),
    )


def _charts(run: RunRecord) -> dict[str, Chart | None]:
    search, training = run.get("tune", SearchResult), run.get("fine_tune", TrainResult)
    probe = run.get("probe", ProbeResult)
    names = ("trials", "trial_curves", "loss", "throughput", "schedule", "ttft")
    drawn: dict[str, Chart | None] = dict.fromkeys(names)
    if search:
        drawn |= {"trials": charts.trials_chart(search), "trial_curves": charts.trial_curves_chart(search)}
    if training:
        drawn |= {
            "loss": charts.loss_chart(training),
            "throughput": charts.throughput_chart(training),
            "schedule": charts.schedule_chart(training),
        }
    if probe:
        drawn["ttft"] = latency.ttft_chart(probe)
    return drawn
