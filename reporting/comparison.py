"""Base, tuned and champion beside each other, and the gate's checks in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from goldpath.reporting.numbers import NONE, decimal, known, percent, signed, value, words
from goldpath.training.results import EvalResult, Scores

ORDER = ("base", "tuned", "champion")


@dataclass(frozen=True)
class Metric:
    """How one metric is named, written and read."""

    label: str
    note: str
    form: Callable[[Any], str]
    lower_is_better: bool
    relative: bool
    """Its change is told as a fraction of the base; else in percentage points."""


METRICS = {
    "loss": Metric("Held-out loss", "nats an answer token", decimal, lower_is_better=True, relative=True),
    "perplexity": Metric(
        "Perplexity", "e to the loss", lambda x: decimal(x, 2), lower_is_better=True, relative=True
    ),
    "bits_per_byte": Metric(
        "Bits per byte", "comparable between tokenizers", decimal, lower_is_better=True, relative=True
    ),
    "token_accuracy": Metric(
        "Token accuracy", "next answer token right", percent, lower_is_better=False, relative=False
    ),
    "overlap": Metric(
        "Answer overlap", "ROUGE-L F1", lambda x: decimal(x, 3), lower_is_better=False, relative=True
    ),
    "pii_leak_rate": Metric(
        "PII leak rate", "answers with personal data", percent, lower_is_better=True, relative=False
    ),
    "refusal_rate": Metric(
        "Refusal rate", "planted instructions not followed", percent, lower_is_better=False, relative=False
    ),
}

_CHECKS = {
    "min_loss_drop": ("Drop in held-out loss against base", percent),
    "min_champion_gain": ("Gain on the champion", percent),
    "max_pii_leak_rate": ("PII leak rate", percent),
    "min_refusal_rate": ("Planted instructions not followed", percent),
}


@dataclass(frozen=True)
class MetricRow:
    """A row of the table: `values` by model, `change` of tuned against base, `better` None where nothing changed."""

    label: str
    note: str
    values: dict[str, str]
    change: str
    better: bool | None


@dataclass(frozen=True)
class CheckRow:
    """One of the gate's checks, as a sentence."""

    told: str
    state: Literal["passed", "failed", "not required"]
    """Not required: its threshold lets every measured value pass, so that passing says nothing."""


def models(evaluation: EvalResult) -> list[str]:
    """The judged models, base first."""
    names = [score.name for score in evaluation.scores]
    return [name for name in ORDER if name in names] + [name for name in names if name not in ORDER]


def metric_rows(evaluation: EvalResult) -> list[MetricRow]:
    """Every metric of every model; metrics that we do not know are shown as they are."""
    by_name = {score.name: score.model_dump() for score in evaluation.scores}
    fields = [name for name in Scores.model_fields if name not in ("name", "tokens", "seconds")]
    rows = []
    for name in fields:
        values = {model: scores.get(name) for model, scores in by_name.items()}
        if not any(known(given) for given in values.values()):
            continue
        metric = METRICS.get(name) or Metric(words(name), "", value, lower_is_better=False, relative=True)
        change, better = _change(metric, values.get("base"), values.get("tuned"))
        shown = {model: metric.form(given) for model, given in values.items()}
        rows.append(MetricRow(metric.label, metric.note, shown, change, better if name in METRICS else None))
    return rows


def _change(metric: Metric, base: Any, tuned: Any) -> tuple[str, bool | None]:
    if not known(base) or not known(tuned):
        return NONE, None
    if abs(tuned - base) < 5e-5:
        return "same", None
    better = (tuned < base) == metric.lower_is_better
    if not metric.relative:
        return signed(f"{decimal((tuned - base) * 100, 1)} pp"), better
    if base == 0:
        return signed(decimal(tuned - base)), better
    return signed(percent((tuned - base) / abs(base))), better


def check_rows(evaluation: EvalResult) -> list[CheckRow]:
    """The gate's checks, in the gate's own words where it has some, else what was measured and asked."""
    rows = []
    for check in evaluation.checks:
        name, text = str(check.get("name", "check")), str(check.get("text") or "")
        label, form = _CHECKS.get(name, (words(name), value))
        measured, asked = check.get("value"), check.get("threshold")
        told = f"{label}: {form(measured) if known(measured) else 'not measured'}"
        if known(asked):
            told += f"; {'at most' if name.startswith('max_') else 'at least'} {form(asked)} is asked"
        rows.append(CheckRow(text or f"{told}.", _state(check)))
    return rows


def _state(check: dict[str, Any]) -> Literal["passed", "failed", "not required"]:
    if not check.get("passed"):
        return "failed"
    return "passed" if check.get("required", not _idle(check)) else "not required"


def _idle(check: dict[str, Any]) -> bool:
    """Whether the threshold lets everything pass, for results of versions that did not say so."""
    asked: Any = check.get("threshold")
    if not known(asked):
        return False
    idle = {"min_refusal_rate": asked <= 0, "max_pii_leak_rate": asked >= 1}
    return bool(idle.get(str(check.get("name"))))


def loss_bars(evaluation: EvalResult) -> list[tuple[str, str, float, str]]:
    """Label, the loss as text, the bar's width in percent of the largest, and the bar's role."""
    losses = {score.name: score.loss for score in evaluation.scores}
    top = max((loss for loss in losses.values() if known(loss)), default=0) or 1
    return [
        (words(name), decimal(losses[name]), _share(losses[name], top), name if name in ORDER else "base")
        for name in models(evaluation)
    ]


def _share(part: float, whole: float) -> float:
    return round(100 * part / whole, 2) if known(part) else 0.0
