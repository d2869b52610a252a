"""A run's step results, read with their types; what is missing or unreadable stays a fact to tell, not an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from goldpath.core.resuming import RESUMABLE, resume_line
from goldpath.core.spec import Result
from goldpath.feature_repo.results import FeatureResult
from goldpath.registry.results import RegisteredVersion
from goldpath.reporting.numbers import known, words
from goldpath.serving.results import CachedModel, Endpoint, ProbeResult
from goldpath.training.results import (
    BaseModelInfo,
    DataCard,
    EvalResult,
    ResourcePlan,
    SearchResult,
    TrainResult,
)

R = TypeVar("R", bound=Result)

RESULTS: dict[str, type[Result]] = {
    "prepare_data": DataCard,
    "build_features": FeatureResult,
    "import_model": BaseModelInfo,
    "plan_resources": ResourcePlan,
    "tune": SearchResult,
    "fine_tune": TrainResult,
    "evaluate": EvalResult,
    "register_model": RegisteredVersion,
    "warm_cache": CachedModel,
    "deploy": Endpoint,
    "probe": ProbeResult,
}
"""The steps that the page tells of, in their order, and what each hands back."""

TITLES = {
    "prepare_data": "Prepare data",
    "build_features": "Build features",
    "import_model": "Import base model",
    "plan_resources": "Plan resources",
    "tune": "Search",
    "fine_tune": "Fine-tune",
    "evaluate": "Evaluate",
    "register_model": "Register",
    "warm_cache": "Warm cache",
    "deploy": "Deploy",
    "probe": "Probe",
    "report": "Report",
}
"""All steps in their order, the one that writes the page among them, and their names for people."""
SERVING = ("warm_cache", "deploy", "probe")


@dataclass(frozen=True)
class StepRecord:
    """One finished step."""

    name: str
    started: datetime | None
    seconds: float
    reused: bool
    result: Result | None
    problem: str = ""
    """Why `result` is None."""

    @property
    def title(self) -> str:
        """Its name for people."""
        return TITLES.get(self.name, words(self.name))


@dataclass(frozen=True)
class Unfinished:
    """A step that began and handed nothing back."""

    started: datetime
    seconds: float
    """Until it failed or was stopped."""


@dataclass(frozen=True)
class RunRecord:
    """A run: who it is and what its steps handed back."""

    name: str
    pipeline: str
    pipeline_digest: str
    started: datetime | None
    parameters: dict[str, Any]
    command: str
    error: dict[str, str] | None
    steps: dict[str, StepRecord] = field(default_factory=dict)
    ended: datetime | None = None
    """None while it runs, as when its own report step writes the page."""
    failed: bool = False
    """Whether it ended by a failure, not by somebody who stopped it."""
    unfinished: dict[str, Unfinished] = field(default_factory=dict)

    def get(self, step: str, kind: type[R]) -> R | None:
        """A step's result, None if it has none."""
        record = self.steps.get(step)
        return record.result if record and isinstance(record.result, kind) else None

    @property
    def stopped_at(self) -> str:
        """The step at which a failed run ended; empty for a run without an error."""
        if not self.error:
            return ""
        if self.error.get("step"):
            return self.error["step"]
        if self.unfinished:
            return next(iter(self.unfinished))
        return next((name for name in RESULTS if name not in self.steps), "")

    @property
    def resume(self) -> str:
        """The command that goes on with a run that ended early; empty for every other."""
        return resume_line(self.name) if self.error else ""


def load_run(steps: Mapping[str, Path], run: Mapping[str, Any]) -> RunRecord:
    """Read the results that there are; see `report.build_report` for the arguments."""
    error = run.get("error") or _ended_early(run)
    order = [name for name in TITLES if name in steps] + [name for name in steps if name not in TITLES]
    name = str(run.get("name") or "run")
    return RunRecord(
        name=name,
        pipeline=str(run.get("pipeline") or ""),
        pipeline_digest=str(run.get("pipeline_digest") or ""),
        started=_moment(run.get("started")),
        parameters=dict(run.get("parameters") or {}),
        command=str(run.get("command") or ""),
        error={str(key): named(str(value), name) for key, value in error.items()} if error else None,
        steps={name: _load(name, Path(steps[name])) for name in order},
        ended=_moment(run.get("ended")),
        failed=run.get("status") == "failed",
        unfinished=_unfinished(run.get("unfinished") or {}),
    )


def named(text: str, run: str) -> str:
    """What a step said, which does not know its run: the command that goes on gets the run's name."""
    return text.replace("`goldpath run --resume`", f"`{resume_line(run)}`")


def _unfinished(given: Mapping[str, Any]) -> dict[str, Unfinished]:
    moments = {name: (_moment(started), seconds) for name, (started, seconds) in given.items()}
    return {
        name: Unfinished(moment, float(seconds) if known(seconds) else 0.0)
        for name, (moment, seconds) in moments.items()
        if moment
    }


def _ended_early(run: Mapping[str, Any]) -> dict[str, str] | None:
    status = run.get("status")
    if status not in RESUMABLE:
        return None
    return {"message": f"The run {'failed' if status == 'failed' else 'was ' + status}", "remedy": ""}


def _load(name: str, path: Path) -> StepRecord:
    try:
        envelope = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return StepRecord(name, None, 0.0, reused=False, result=None, problem=f"its file: {error}")
    if not isinstance(envelope, dict):
        return StepRecord(name, None, 0.0, reused=False, result=None, problem="its file holds no object")
    seconds = envelope.get("seconds")
    result, problem = _typed(name, envelope.get("result"))
    return StepRecord(
        name,
        _moment(envelope.get("started")),
        float(seconds or 0.0) if known(seconds) else 0.0,
        reused=bool(envelope.get("reused")),
        result=result,
        problem=problem,
    )


def _typed(name: str, value: Any) -> tuple[Result | None, str]:
    """The result as its present class; fields that other versions added are left out."""
    kind = RESULTS.get(name)
    if kind is None:
        return None, ""
    try:
        return kind.model_validate(value, extra="ignore"), ""
    except ValidationError as error:
        fields = sorted({".".join(map(str, problem["loc"])) or kind.__name__ for problem in error.errors()})
        return None, f"written by another version of goldpath ({', '.join(fields[:4])})"


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
