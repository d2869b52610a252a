"""Live objects of the Trainer and of Katib, read into our own results. Values arrive as strings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from goldpath.core.spec import Result
from goldpath.training.results import SearchResult, Trial
from goldpath.training.search import result
from goldpath.training.specs import SearchSpec, TrainSpec

Object = Mapping[str, Any]
State = Literal["waiting", "running", "suspended", "succeeded", "failed"]
_DONE: dict[str, State] = {"Complete": "succeeded", "Succeeded": "succeeded", "Failed": "failed"}
"""A TrainJob's, a PyTorchJob's and an Experiment's last conditions."""
_TRIALS = {"Succeeded": "succeeded", "EarlyStopped": "stopped", "Failed": "failed", "Killed": "failed",
           "MetricsUnavailable": "failed"}  # fmt: skip
UNAVAILABLE = "unavailable"
"""What Katib writes for a measure that never came."""


class Verdict(Result):
    """How an object stands."""

    state: State
    reason: str = ""
    """The condition's reason: one word."""
    message: str = ""
    """In words, for people."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("succeeded", "failed")


class Progress(Result):
    """What the trainer in a TrainJob reports of itself; empty where it reports nothing."""

    percent: int | None = None
    remaining_seconds: int | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    updated: str = ""
    """RFC 3339."""


def verdict(thing: Object) -> Verdict:
    """How a TrainJob, a PyTorchJob or an Experiment stands, from its conditions."""
    status = thing.get("status") or {}
    true = {one["type"]: one for one in status.get("conditions") or [] if one.get("status") == "True"}
    for kind, state in _DONE.items():
        if kind in true:
            return _said(state, true[kind], status)
    if "Suspended" in true:
        return _said("suspended", true["Suspended"], status)
    active = any(job.get("active") or job.get("ready") for job in status.get("jobsStatus") or [])
    working = active or "Running" in true or _reported(thing)
    return _said("running" if working else "waiting", true.get("Running", {}), status)


def _reported(thing: Object) -> bool:
    return bool((thing.get("status") or {}).get("trainerStatus"))


def _said(state: State, condition: Object, status: Object) -> Verdict:
    reason, message = condition.get("reason", ""), " ".join(str(condition.get("message") or "").split())
    if state == "failed":
        failed = [job["name"] for job in status.get("jobsStatus") or [] if job.get("failed")]
        if reason == "DeadlineExceeded":
            message = f"it took longer than its activeDeadlineSeconds. {message}".strip()
        if failed:
            message = f"{message} (failed: {', '.join(failed)})".strip()
    return Verdict(state=state, reason=reason, message=message)


def progress(job: Object) -> Progress:
    """A TrainJob's `status.trainerStatus`."""
    found = (job.get("status") or {}).get("trainerStatus") or {}
    metrics = {one["name"]: number(one.get("value")) for one in found.get("metrics") or []}
    return Progress(
        percent=found.get("progressPercentage"),
        remaining_seconds=found.get("estimatedRemainingSeconds"),
        metrics={name: value for name, value in metrics.items() if value is not None},
        updated=found.get("lastUpdatedTime") or "",
    )


def number(text: Any) -> float | None:
    """A measure; None for one that never came, or that is none."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def search_result(
    trials: Sequence[Object],
    search: SearchSpec,
    train: TrainSpec,
    curves: Mapping[str, Sequence[Any]] | None = None,
) -> SearchResult:
    """The result of a search, as `training.search.tune` gives it.

    Args:
        trials: Katib's Trials of the Experiment, ended or not; those that have not are left out.
        search: what was searched.
        train: the given hyperparameters.
        curves: name of a Trial to its (step, objective) pairs, where they are at hand; else its last measure alone.
    """
    ordered = sorted(
        trials, key=lambda one: (one["metadata"].get("creationTimestamp") or "", one["metadata"]["name"])
    )
    rows = [
        trial(one, number, search, (curves or {}).get(one["metadata"]["name"]))
        for number, one in enumerate(ordered)
    ]
    return result(search, train, [row for row in rows if row is not None])


def trial(thing: Object, place: int, search: SearchSpec, curve: Sequence[Any] | None = None) -> Trial | None:
    """A Katib Trial as one of ours; None while it has not ended.

    Args:
        thing: the Trial.
        place: its number in the order of creation.
        search: what was searched.
        curve: (step, objective) pairs, where they are at hand.
    """
    status = thing.get("status") or {}
    true = {one["type"]: one for one in status.get("conditions") or [] if one.get("status") == "True"}
    kind = next((kind for kind in _TRIALS if kind in true), None)
    if kind is None:
        return None
    given = {one["name"]: one["value"] for one in thing["spec"].get("parameterAssignments") or []}
    steps = int(float(given.pop("max_steps", search.trial_steps)))
    measured = _measure(status, search.objective)
    state = _TRIALS[kind]
    error = " ".join(str(true[kind].get("message") or kind).split()) if state == "failed" else ""
    if state == "succeeded" and measured is None:
        state, error = "failed", f"no {search.objective} was measured"
    points = [(int(step), float(value)) for step, value in curve or ()]
    if not points and measured is not None:
        points = [(steps, measured)]
    return Trial(
        number=place,
        parameters=_typed(search, given),
        objective=measured,
        status=state,
        seconds=_seconds(status),
        curve=points,
        error=error,
    )


def _typed(search: SearchSpec, given: dict[str, Any]) -> dict[str, float | int | str]:
    from goldpath.training.specs import search_values

    return search_values(search, given)


def _measure(status: Object, name: str) -> float | None:
    metrics = (status.get("observation") or {}).get("metrics") or []
    return next((number(one.get("latest")) for one in metrics if one.get("name") == name), None)


def _seconds(status: Object) -> float:
    began, ended = status.get("startTime"), status.get("completionTime")
    if not began or not ended:
        return 0.0
    return round((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds(), 2)
