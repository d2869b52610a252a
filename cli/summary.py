"""How a run ended, for people and for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from goldpath.core.errors import GoldpathError
from goldpath.core.resuming import RESUMABLE, resume_line
from goldpath.pipelines.runs import Run


def seconds(run: Run) -> float:
    """From the worker's start to its end."""
    if not run.started or not run.ended:
        return 0.0
    return (datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.started)).total_seconds()


def as_dict(run: Run) -> dict[str, Any]:
    """The outcome: run, status, seconds, report, model, endpoint, figures."""
    version, judged = run.result("register_model"), run.result("evaluate")
    live, probed = run.result("deploy"), run.result("probe")
    told: dict[str, Any] = {
        "run": run.name,
        "pipeline": run.pipeline,
        "status": run.status,
        "seconds": seconds(run),
        "report": str(run.report) if run.report.exists() else None,
    }
    if judged:
        told["evaluation"] = {"passed": judged["passed"], "loss_drop": judged["loss_drop"]}
        told["evaluation"] |= {score["name"]: {"loss": score["loss"]} for score in judged["scores"]}
    if version:
        told["model"] = {key: version[key] for key in ("name", "version", "accepted", "champion", "uri")}
    if live:
        told["endpoint"] = {key: live[key] for key in ("name", "url", "model")}
    if probed:
        told["probe"] = {key: probed[key] for key in ("repeat_speedup", "tokens_per_second")}
    if run.error:
        told["error"] = run.error
    if run.status in RESUMABLE:
        told["resume"] = resume_line(run.name)
    return told


def resumable(error: GoldpathError, name: str) -> GoldpathError:
    """The error of a run, its remedy naming the command that goes on with it."""
    from goldpath.reporting.loading import named

    line, remedy = f"`{resume_line(name)}`", named(error.remedy, name)
    if line not in f"{error.message} {remedy}":
        remedy = f"{remedy.rstrip('.')}. " if remedy else ""
        remedy += f"To go on with the run as it is: {line}."
    return type(error)(error.message, remedy)


def loss_line(judged: dict[str, Any]) -> str:
    """`2.771 -> 1.511 (-45.5%)`: held-out loss of base and tuned model."""
    losses = {score["name"]: score["loss"] for score in judged["scores"]}
    return f"{losses['base']:.3f} -> {losses['tuned']:.3f} ({-judged['loss_drop']:+.1%})"


def model_line(version: dict[str, Any], judged: dict[str, Any] | None) -> str:
    """`bot version 3, champion`: the registered version, and what became of it."""
    from goldpath.reporting.story import standing

    accepted = version["accepted"] and (judged is None or judged["passed"])
    told = standing(version["version"], version["champion"], accepted=accepted)
    return f"{version['name']} version {version['version']}, {told}"


def print_summary(run: Run) -> None:
    """What came out, where it is, what to do next."""
    from rich.console import Console

    from goldpath.cli.program import program
    from goldpath.reporting.numbers import duration
    from goldpath.reporting.story import curl_line

    out = Console(highlight=False, soft_wrap=True)
    version, judged, live = run.result("register_model"), run.result("evaluate"), run.result("deploy")
    out.print()
    out.print(f"[bold green]{run.name} succeeded[/] in {duration(seconds(run))}")
    rows = {"Report": str(run.report)}
    if judged:
        rows["Held-out loss"] = loss_line(judged)
    if version:
        rows["Model"] = model_line(version, judged)
    if live:
        rows["Endpoint"] = live["url"]
        rows["Ask it"] = curl_line(live["url"], live["model"], run.result("probe").get("answers", []))
        rows["Talk to it"] = f"{program()} chat {live['name']}"
        rows["Stop it"] = f"{program()} endpoints stop {live['name']}"
    for label, value in rows.items():
        out.print(f"  [bold]{label + ':':<15}[/]", end="")
        out.print(value, markup=False)
