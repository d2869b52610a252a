"""The gate, on given figures."""

from __future__ import annotations

import math
from typing import Any

import pytest

from goldpath.core.errors import SpecError
from goldpath.training.gate import judge
from goldpath.training.results import EvalResult, Scores
from goldpath.training.specs import GateSpec


def scores(name: str, **figures: float) -> Scores:
    usual = {
        "loss": 2.0,
        "perplexity": 7.4,
        "bits_per_byte": 1.0,
        "token_accuracy": 0.5,
        "overlap": 0.3,
        "pii_leak_rate": 0.0,
        "refusal_rate": 0.8,
    }
    return Scores(name=name, **{**usual, **figures})


BASE = scores("base", loss=4.0, bits_per_byte=2.0)


@pytest.mark.parametrize(
    ("tuned", "champion", "gate", "failed"),
    [
        ({}, None, {}, []),
        ({"loss": 3.0}, None, {"min_loss_drop": 0.25}, []),
        ({"loss": 3.01}, None, {"min_loss_drop": 0.25}, ["min_loss_drop"]),
        ({"loss": 4.2}, None, {"min_loss_drop": -0.1}, []),
        ({"loss": math.nan}, None, {"min_loss_drop": -10}, ["min_loss_drop"]),
        ({"loss": math.inf}, None, {"min_loss_drop": -10}, ["min_loss_drop"]),
        ({}, {"bits_per_byte": 1.0}, {}, []),
        ({}, {"bits_per_byte": 0.99}, {}, ["min_champion_gain"]),
        ({}, {"bits_per_byte": 0.99}, {"min_champion_gain": -0.02}, []),
        ({}, {"bits_per_byte": 1.0}, {"min_champion_gain": 0.05}, ["min_champion_gain"]),
        ({}, {"bits_per_byte": math.nan}, {}, ["min_champion_gain"]),
        ({"bits_per_byte": math.nan}, {}, {"min_champion_gain": -1}, ["min_champion_gain"]),
        ({}, {"loss": 0.1, "bits_per_byte": 1.5}, {}, []),  # another tokenizer: more tokens, each easier
        ({"pii_leak_rate": 0.02}, None, {"max_pii_leak_rate": 0.02}, []),
        ({"pii_leak_rate": 0.03}, None, {"max_pii_leak_rate": 0.02}, ["max_pii_leak_rate"]),
        ({"pii_leak_rate": math.nan}, None, {"max_pii_leak_rate": 1}, ["max_pii_leak_rate"]),
        ({"refusal_rate": 0.8}, None, {"min_refusal_rate": 0.8}, []),
        ({"refusal_rate": 0.7}, None, {"min_refusal_rate": 0.8}, ["min_refusal_rate"]),
        ({"refusal_rate": math.nan}, None, {"min_refusal_rate": 0}, ["min_refusal_rate"]),
        ({"loss": 4.0, "pii_leak_rate": 1.0}, None, {}, ["min_loss_drop", "max_pii_leak_rate"]),
    ],
)
def test_each_threshold_decides(
    tuned: dict[str, float], champion: dict[str, float] | None, gate: dict[str, Any], failed: list[str]
) -> None:
    given = [BASE, scores("tuned", **tuned)]
    if champion is not None:
        given.append(scores("champion", **champion))
    verdict = judge(given, GateSpec.parse({"min_refusal_rate": 0.5, **gate}))
    assert [check["name"] for check in verdict.checks if not check["passed"]] == failed
    assert verdict.passed is (not failed)
    names = {check["name"] for check in verdict.checks}
    assert ("min_champion_gain" in names) is (champion is not None)
    for check in verdict.checks:
        assert check["text"].endswith(".")
        assert len(check["text"].split()) > 6


def test_a_base_whose_loss_says_nothing_never_passes() -> None:
    for loss in (math.nan, math.inf, 0.0):
        verdict = judge([scores("base", loss=loss), scores("tuned")], GateSpec(min_loss_drop=-10))
        assert math.isnan(verdict.loss_drop)
        assert not verdict.passed
        assert "could not be compared" in verdict.checks[0]["text"]


def test_the_sentences_tell_figures_and_direction() -> None:
    verdict = judge([BASE, scores("tuned", loss=5.0), scores("champion", bits_per_byte=0.8)], GateSpec())
    texts = {check["name"]: check["text"] for check in verdict.checks}
    assert "rose by 25.0%, from 4.000 to 5.000" in texts["min_loss_drop"]
    assert "rose by 25.0%, from 0.800 to 1.000; they must not rise" in texts["min_champion_gain"]
    assert verdict.loss_drop == pytest.approx(-0.25)


@pytest.mark.parametrize(
    ("gate", "idle"),
    [
        ({}, ["min_refusal_rate"]),
        ({"min_refusal_rate": 0.1}, []),
        ({"max_pii_leak_rate": 1.0}, ["max_pii_leak_rate", "min_refusal_rate"]),
        ({"min_loss_drop": 0.0, "min_champion_gain": 0.0, "max_pii_leak_rate": 0.0}, ["min_refusal_rate"]),
    ],
)
def test_a_threshold_that_nothing_can_miss_is_said_to_require_nothing(
    gate: dict[str, Any], idle: list[str]
) -> None:
    verdict = judge([BASE, scores("tuned"), scores("champion")], GateSpec.parse(gate))
    assert [check["name"] for check in verdict.checks if not check["required"]] == idle
    for check in verdict.checks:
        said_so = "no share is required" in check["text"] or "no limit is set" in check["text"]
        assert said_so is (check["name"] in idle)


def test_base_and_tuned_are_needed() -> None:
    with pytest.raises(SpecError, match="got base"):
        judge([BASE], GateSpec())


def test_figures_that_are_not_finite_survive_json() -> None:
    tuned = scores("tuned", loss=math.nan, perplexity=math.inf)
    verdict = judge([BASE, tuned], GateSpec())
    made = EvalResult(
        scores=[BASE, tuned],
        samples=[],
        loss_drop=verdict.loss_drop,
        passed=verdict.passed,
        checks=verdict.checks,
        rows=1,
        tokens=1,
    )
    again = EvalResult.model_validate(made.model_dump(mode="json"))
    assert math.isnan(again.scores[1].loss)
    assert again.scores[1].perplexity == math.inf
    assert math.isnan(again.loss_drop)
