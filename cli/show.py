"""One run in full: what was asked, what each step did, what came out, how to go on."""

from __future__ import annotations

from typing import Any

import click

from goldpath.cli import summary
from goldpath.cli.program import as_typed
from goldpath.core import marks
from goldpath.core.errors import GoldpathError
from goldpath.core.files import read_json
from goldpath.core.resuming import RESUMABLE, resume_line
from goldpath.pipelines.runs import Run
from goldpath.reporting.loading import named
from goldpath.reporting.numbers import duration


def as_dict(run: Run) -> dict[str, Any]:
    """For programs: the outcome, the parameters that were given, the defaults of the others, the steps."""
    steps = [{key: step[key] for key in ("step", "started", "seconds", "reused")} for step in _steps(run)]
    told = {**summary.as_dict(run), "parameters": run.parameters, "defaults": defaults(run), "steps": steps}
    return {**told, "failed_step": stopped_at(run) or None}


def print_run(run: Run) -> None:
    """For people."""
    click.echo(f"{run.name}: {run.pipeline}, {run.status}")
    click.echo(f"  folder   {run.folder}")
    for key, value in run.parameters.items():
        click.echo(f"  {key} = {value}")
    for key, value in defaults(run).items():
        click.echo(f"  {key} = {value} (default)")
    for step in _steps(run):
        click.echo(
            f"  {duration(step['seconds']):>11}  {step['step']}{' (reused)' if step['reused'] else ''}"
        )
    if at := stopped_at(run):
        click.echo(f"  {'failed' if run.status == 'failed' else 'stopped':>11}  {at}")
    for label, value in _outcome(run).items():
        click.echo(f"  {label:<9}{value}")


def defaults(run: Run) -> dict[str, Any]:
    """Parameters that were not given, with the values of the YAML that ran; empty where it was never compiled."""
    import yaml

    file = run.folder / "pipeline.yaml"
    if not file.exists():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    compiled = next(iter(yaml.load_all(file.read_text(encoding="utf-8"), loader)), None) or {}
    inputs = compiled.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return {
        name: _whole(entry)
        for name, entry in inputs.items()
        if name not in run.parameters and "defaultValue" in entry
    }


def _whole(entry: dict[str, Any]) -> Any:
    """The YAML has every number as a float."""
    value = entry["defaultValue"]
    return int(value) if entry.get("parameterType") == "NUMBER_INTEGER" else value


def stopped_at(run: Run) -> str:
    """The step that failed, or that a run which was stopped was at; empty where it is not known."""
    if run.status not in RESUMABLE:
        return ""
    if run.error and run.error.get("step"):
        return run.error["step"]
    failure = marks.first_failure(run.folder)
    return failure.step if failure else ""


def _steps(run: Run) -> list[dict[str, Any]]:
    return sorted((read_json(file) for file in run.results().values()), key=lambda step: str(step["started"]))


def _outcome(run: Run) -> dict[str, str]:
    version, judged, live = run.result("register_model"), run.result("evaluate"), run.result("deploy")
    told: dict[str, str] = {}
    if judged:
        failed = [check["text"] for check in judged.get("checks", []) if not check["passed"]]
        why = f" ({'; '.join(text.rstrip('.') for text in failed)})" if failed else ""
        told["verdict"] = f"accepted{why}" if judged["passed"] else f"rejected by the gate{why}"
        told["loss"] = summary.loss_line(judged)
    if version:
        told["model"] = summary.model_line(version, judged)
    if live:
        told["endpoint"] = f"{live['name']}, {live['url']}"
    if run.report.exists():
        told["report"] = str(run.report)
    if run.error:
        line = GoldpathError.from_dict(run.error).line()
        told["error"] = as_typed(named(line, run.name))
    if run.status in RESUMABLE:
        told["go on"] = as_typed(f"`{resume_line(run.name)}`").strip("`")
    return told
