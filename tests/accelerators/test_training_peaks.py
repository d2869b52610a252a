"""The estimate against the peak that torch's own MemTracker sees of whole optimizer steps, and the kept results."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from goldpath.accelerators.architecture import from_config
from goldpath.accelerators.training_memory import estimate

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("method", "precision", "checkpointing"),
    [("full", "fp32", False), ("full", "bf16", True), ("lora", "bf16", False), ("lora", "fp32", True)],
)
def test_the_peak_of_two_steps_is_met_within_three_per_cent(
    monkeypatch: pytest.MonkeyPatch, method: str, precision: str, checkpointing: bool
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from training_memory_models import Combination
    from training_memory_tracker import track

    case = Combination("tiny", CONFIG, method, precision, 256, 4, gradient_checkpointing=checkpointing)
    peak = track(case)
    guess = estimate(from_config(CONFIG, "tiny"), case.shape("cpu"))
    assert guess.tensors == pytest.approx(peak, rel=0.03)


KEPT: dict[str, Any] = json.loads(
    (BENCHMARKS / "results" / "training_memory.json").read_text(encoding="utf-8")
)


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """How far today's estimate is off each kept measurement, by instrument."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from training_memory_models import LARGE, SMALL

    cases = {case.label: case for case in (*SMALL, *LARGE)}
    found: dict[str, list[float]] = {}
    for row in KEPT["rows"]:
        case = cases[row["combination"]]
        guess = estimate(from_config(case.config, case.name), case.shape("cpu"))
        # MemTracker sees tensors; resident memory is the whole process.
        needed = guess.total if row["instrument"] == "resident memory" else guess.tensors
        found.setdefault(row["instrument"], []).append(needed / row["measured"] - 1)
    return found


@pytest.mark.parametrize("instrument", ["resident memory", "MemTracker"])
def test_todays_estimate_meets_the_kept_measurements(instrument: str, errors: dict[str, list[float]]) -> None:
    """A mean error of at most 3 %, and no underestimate that would come near the margin of 10 %."""
    found = errors[instrument]
    assert len(found) >= {"resident memory": 12, "MemTracker": 6}[instrument]
    assert mean(map(abs, found)) <= 0.03
    assert min(found) > -0.01


@pytest.mark.parametrize("instrument", ["resident memory", "MemTracker"])
def test_the_figures_of_the_docs_are_those_of_todays_estimate(
    instrument: str, errors: dict[str, list[float]]
) -> None:
    """What changes the estimate wants its table made anew: `python benchmarks/bench_training_memory.py`."""
    kept = KEPT[instrument]
    assert kept["combinations"] == len(errors[instrument])
    assert kept["mean_absolute_error"] == pytest.approx(mean(map(abs, errors[instrument])), abs=0.0002)
    assert kept["largest_underestimate"] == pytest.approx(min(errors[instrument]), abs=0.0002)
