"""What happened, in words: the verdict, the headline figures, a sentence for each section."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from goldpath.registry.results import RegisteredVersion
from goldpath.reporting.charts import objective_name
from goldpath.reporting.comparison import check_rows
from goldpath.reporting.loading import SERVING, TITLES, RunRecord
from goldpath.reporting.numbers import count, decimal, duration, known, latency, percent, plural, times
from goldpath.reporting.timeline import Timeline
from goldpath.serving.results import Endpoint, ProbeResult
from goldpath.training.results import DataCard, EvalResult, Scores, SearchResult, TrainResult

Outcome = Literal["promoted", "kept", "rejected", "stopped", "open"]


@dataclass(frozen=True)
class Verdict:
    """How the run ended."""

    outcome: Outcome
    label: str
    headline: str
    told: str


@dataclass(frozen=True)
class Figure:
    """A headline figure."""

    number: str
    label: str
    note: str


def verdict(run: RunRecord) -> Verdict:
    """The run's outcome in words."""
    registered = run.get("register_model", RegisteredVersion)
    judged = run.get("evaluate", EvalResult)
    if run.error:
        return _stopped(run, registered)
    if registered:
        return _registered(run, registered, judged)
    if judged:
        passed = "passed the gate" if judged.passed else "did not pass the gate"
        outcome: Outcome = "open" if judged.passed else "rejected"
        label = "Passed" if judged.passed else "Rejected"
        return Verdict(
            outcome, label, f"The tuned model {passed}", _loss_told(judged) or "It is not registered."
        )
    done = f"{len(run.steps)} of {len(TITLES)} steps have a result."
    return Verdict("open", "Unfinished", "No verdict yet", done)


def _stopped(run: RunRecord, registered: RegisteredVersion | None) -> Verdict:
    assert run.error is not None  # noqa: S101
    at = TITLES.get(run.stopped_at, run.stopped_at.replace("_", " "))
    headline = f"The run stopped at “{at}”" if at else "The run stopped"
    if registered:
        told = f"Version {registered.version} of {registered.name} was registered before that."
    else:
        told = "No model was registered, and nothing that was served before has changed."
    return Verdict("stopped", "Stopped", headline, told)


def go_on(run: RunRecord) -> str:
    """How to go on with a run that ended early, in a sentence."""
    return f"To go on with the run as it is: `{run.resume}`. What is finished is not done again."


def go_on_once(run: RunRecord) -> str:
    """The same, to stand below the error; empty where there is none, or where it says so itself."""
    said = " ".join((run.error or {}).values())
    return go_on(run) if run.error and f"`{run.resume}`" not in said else ""


def _registered(run: RunRecord, registered: RegisteredVersion, judged: EvalResult | None) -> Verdict:
    if not registered.accepted or (judged and not judged.passed):
        return _rejected(run, registered, judged)
    version, champion = f"Version {registered.version}", registered.champion
    told = [_loss_told(judged)] if judged else []
    endpoint = run.get("deploy", Endpoint)
    if endpoint:
        told.append(f"It is served at {endpoint.url}.")
    if champion != registered.version:
        told.append(f"Version {champion} stays champion." if champion else "There is no champion.")
        return Verdict("kept", "Passed", f"{version} passed the gate", " ".join(filter(None, told)))
    before = registered.previous_champion
    if before == champion or (registered.adopted and not before):
        told.insert(0, _known_already(run, registered))
        return Verdict(
            "promoted", "Champion", f"{version} remains the champion", " ".join(filter(None, told))
        )
    if before:
        told.insert(0, f"It takes over from version {before}.")
    return Verdict("promoted", "Promoted", f"{version} is the new champion", " ".join(filter(None, told)))


def _rejected(run: RunRecord, registered: RegisteredVersion, judged: EvalResult | None) -> Verdict:
    told = [row.told for row in check_rows(judged) if row.state == "failed"] if judged else []
    if judged and not told:
        told = [_loss_told(judged)]
    version, champion = registered.version, registered.champion
    if registered.adopted:
        told.append(_known_already(run, registered))
    if champion == version:
        # The gate compares with thresholds of this run; what an earlier run has promoted, it does not take back.
        headline = "The gate rejected this run’s model"
        told.append(
            f"Version {version} was accepted then, and stays champion: a later run takes nothing back."
        )
    else:
        headline = f"Version {version} was rejected by the gate"
        told.append(f"Version {champion} stays champion." if champion else "There is no champion yet.")
    return Verdict("rejected", "Rejected", headline, " ".join(told))


def _known_already(run: RunRecord, registered: RegisteredVersion) -> str:
    """That the model of this run is not new, and who made it first."""
    first = registered.lineage.run
    by = f" by {first}" if first and first != run.name else ""
    return f"The model has the same content as version {registered.version}, registered earlier{by}."


def standing(version: str, champion: str | None, *, accepted: bool) -> str:
    """What became of a version in a run whose gate said `accepted`, for the terminal.

    Args:
        version: its number.
        champion: the number of the champion after the run; None or empty where there is none.
    """
    if champion == version:
        return "champion" if accepted else "champion as before; this run's gate rejected the same model"
    told = "accepted" if accepted else "rejected by the gate, not served"
    return f"{told}; version {champion} is champion" if champion else told


def lineage_told(registered: RegisteredVersion, judged: EvalResult | None) -> str:
    """What stands below the registered version in the lineage."""
    champion = registered.champion == registered.version
    told = ["champion" if champion else "accepted" if registered.accepted else "rejected, kept as evidence"]
    if registered.adopted:
        told.append("registered by an earlier run")
    if registered.accepted and judged and not judged.passed:
        told.append("rejected by the gate of this run")
    return "; ".join(told)


def _loss_told(judged: EvalResult) -> str:
    if not known(judged.loss_drop):
        return "Its held-out loss could not be measured."
    way = "fell" if judged.loss_drop >= 0 else "rose"
    return f"Held-out loss {way} by {percent(abs(judged.loss_drop))} against the base model."


def losses(judged: EvalResult) -> dict[str, Scores]:
    """Scores by model name."""
    return {score.name: score for score in judged.scores}


def figures(run: RunRecord, line: Timeline) -> list[Figure]:
    """The headline figures of what the run got to."""
    found = []
    judged, probe = run.get("evaluate", EvalResult), run.get("probe", ProbeResult)
    if judged:
        by_name = losses(judged)
        ends = [decimal(by_name[name].loss) for name in ("base", "tuned") if name in by_name]
        drop = percent(abs(judged.loss_drop)) if known(judged.loss_drop) else "–"
        label = (
            "lower held-out loss"
            if not known(judged.loss_drop) or judged.loss_drop >= 0
            else "higher held-out loss"
        )
        found.append(Figure(drop, label, " → ".join(ends) + " nats a token"))
    if probe:
        typical = {
            timing.name: median(timing.ttft_seconds) for timing in probe.timings if timing.ttft_seconds
        }
        note = "cold against repeated context"
        if "cold" in typical and "repeated" in typical:
            note = f"{latency(typical['cold'])} cold → {latency(typical['repeated'])} repeated"
        found.append(Figure(times(probe.repeat_speedup), "faster first token", note))
        found.append(Figure(decimal(probe.tokens_per_second, 1), "tokens a second", "one stream, generating"))
    card = run.get("prepare_data", DataCard)
    if card and not probe:
        found.append(Figure(count(card.rows_out), "chats prepared", f"of {count(card.rows_in)} read"))
    training = run.get("fine_tune", TrainResult)
    if training and not judged:
        found.append(Figure(decimal(training.train_loss), "training loss", train_loss_note(training)))
    if run.steps or line.elapsed:
        label = "in all" if run.ended or run.error else "until this page"
        found.append(Figure(duration(line.elapsed), label, _reused(run, line)))
    return found


def _reused(run: RunRecord, line: Timeline) -> str:
    if line.reused:
        return f"{len(line.reused)} of {plural(line.steps, 'step')} reused"
    return (
        f"{plural(line.steps, 'step')} finished"
        if run.error
        else f"{plural(line.steps, 'step')}, none reused"
    )


def train_loss_note(training: TrainResult) -> str:
    """What the training loss of a result is: one step's loss is mostly noise of its batch."""
    last = training.loss_steps
    return f"mean of the last {plural(last, 'step')}" if last > 1 else "of the last step"


def repeated_command(command: str) -> str:
    """The command that makes a run again: as it was typed, without the name, which is taken now."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    kept, given = [], iter(words)
    for word in given:
        if word in ("-p", "--param"):  # its value may look like anything
            kept += [word, next(given, "")]
        elif word in ("-n", "--name"):
            next(given, "")
        elif not (word.startswith("--name=") or (word.startswith("-n") and not word.startswith("--"))):
            kept.append(word)
    return shlex.join(kept)


def why_missing(run: RunRecord, step: str) -> str:
    """Why a section has nothing to show."""
    record = run.steps.get(step)
    title = TITLES[step]
    if record and record.problem:
        return f"The result of “{title}” cannot be read: {record.problem}."
    if run.error and step == run.stopped_at:
        return f"The run stopped here: {run.error.get('message', 'unknown error').rstrip('.')}. {go_on(run)}"
    if run.error:
        at = TITLES.get(run.stopped_at, run.stopped_at)
        return f"Not reached: the run stopped at “{at}”." if at else "Not reached: the run stopped."
    judged, registered = run.get("evaluate", EvalResult), run.get("register_model", RegisteredVersion)
    if step in SERVING and ((judged and not judged.passed) or (registered and not registered.accepted)):
        told = "Not served: the gate rejected the model, so this run warmed, deployed and probed nothing."
        if registered and registered.champion:
            told += f" An endpoint of the champion, version {registered.champion}, is as it was."
        return told
    return f"“{title}” has no result in this run."


def ledes(run: RunRecord, line: Timeline) -> dict[str, str]:
    """A sentence or two beside each section's heading, for the sections that have something to show."""
    told = {"steps": _steps_told(run, line)}
    if card := run.get("prepare_data", DataCard):
        dropped = card.rows_in - card.rows_out
        told["data"] = (
            f"{count(card.rows_out)} of {count(card.rows_in)} chats were kept; {count(dropped)} dropped."
        )
        if sum(card.groups.values()):
            told["data"] += " No group is in two splits."
    if search := run.get("tune", SearchResult):
        told["search"] = _search_told(search)
    if training := run.get("fine_tune", TrainResult):
        share = training.trainable_parameters / training.parameters if training.parameters else 0
        name = {"lora": "LoRA", "qlora": "QLoRA", "full": "Full fine-tuning"}.get(
            training.method, training.method
        )
        told["training"] = (
            f"{name} for {plural(training.steps, 'step')} over {count(training.tokens)} tokens; "
            f"{percent(share)} of the parameters were trained."
        )
    if judged := run.get("evaluate", EvalResult):
        gate = "passed the gate" if judged.passed else "did not pass the gate"
        told["comparison"] = (
            f"The tuned model {gate}. Scored on {count(judged.rows)} unseen chats, "
            f"{count(judged.tokens)} answer tokens."
        )
    if run.get("deploy", Endpoint):
        told["serving"] = "An OpenAI-compatible endpoint, and what a real client saw of it."
    return told


def _steps_told(run: RunRecord, line: Timeline) -> str:
    if not run.steps:
        return "No step has finished."
    steps, took = plural(line.steps, "step"), duration(line.elapsed)
    told = f"{steps} in {took}." if run.ended or run.error else f"{steps}, {took} until this page."
    if run.error:
        title = TITLES.get(run.stopped_at, run.stopped_at)
        told = f"{steps} finished in {took}; the run stopped at “{title}”."
    if line.reused:
        told += f" Reused by content, not done again: {', '.join(line.reused)}."
    if line.paused:
        told += f" The run stood still for {duration(line.paused)} in between; the chart leaves that out."
    return told


def _search_told(search: SearchResult) -> str:
    if not search.trials:
        return "No search was asked for; the given hyperparameters were used."
    algorithm = {"tpe": "TPE", "cmaes": "CMA-ES", "bayesianoptimization": "a Gaussian process"}.get(
        search.algorithm, search.algorithm
    )
    told = f"{plural(len(search.trials), 'trial')} by {algorithm}"
    if search.best and known(search.best.objective):
        named = objective_name(search.objective)
        named = named[:1].lower() + named[1:]
        return f"{told}; #{search.best.number} was best: {named} {decimal(search.best.objective)}."
    return f"{told}; none gave a figure."


ANSWER_TOKENS = 128
"""Of the answer to the line below: without a limit a small model may repeat itself for a minute."""


def curl_line(url: str, model: str, answers: Sequence[Mapping[str, str]] = ()) -> str:
    """A shell line that asks the endpoint at `url` (its base URL) what the probe asked it first."""
    question = answers[0].get("question") if answers else None
    said = question or "What can you help me with?"
    body = {"model": model, "max_tokens": ANSWER_TOKENS, "messages": [{"role": "user", "content": said}]}
    return (
        f"curl {shlex.quote(url.rstrip('/') + '/chat/completions')} "
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )
