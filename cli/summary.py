"""How a run ended, for people and for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

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
    return told


def _standing(version: dict[str, Any], judged: dict[str, Any] | None) -> str:
    """What became of the model."""
    champion = version["champion"]
    rejected = not version["accepted"] or (judged is not None and not judged["passed"])
    if champion == version["version"]:
        return "champion as before; this run's gate rejected the same model" if rejected else "champion"
    told = f"not champion (version {champion or 'none'} is)"
    return f"{told}; rejected by the gate, not served" if rejected else told


def print_summary(run: Run) -> None:
    """What came out, where it is, what to do next."""
    from rich.console import Console

    from goldpath.reporting.numbers import duration
    from goldpath.reporting.story import curl_line

    out = Console(highlight=False, soft_wrap=True)
    version, judged, live = run.result("register_model"), run.result("evaluate"), run.result("deploy")
    out.print()
    out.print(f"[bold green]{run.name} succeeded[/] in {duration(seconds(run))}")
    rows = {"Report": str(run.report)}
    if judged:
        losses = {score["name"]: score["loss"] for score in judged["scores"]}
        rows["Held-out loss"] = f"{losses['base']:.3f} -> {losses['tuned']:.3f} ({-judged['loss_drop']:+.1%})"
    if version:
        rows["Model"] = f"{version['name']} version {version['version']}, {_standing(version, judged)}"
    if live:
        rows["Endpoint"] = live["url"]
        rows["Ask it"] = curl_line(live["url"], live["model"], run.result("probe").get("answers", []))
        rows["Talk to it"] = f"goldpath chat {live['name']}"
        rows["Stop it"] = f"goldpath endpoints stop {live['name']}"
    for label, value in rows.items():
        out.print(f"  [bold]{label + ':':<15}[/]", end="")
        out.print(value, markup=False)
