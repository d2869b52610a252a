"""A canary's figures against those of the model that serves."""

from __future__ import annotations

from typing import Any

import pytest

from goldpath.core.errors import InputError, SpecError
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.results import ProbeResult, Timing
from goldpath.serving.rollout import RolloutSpec, decide, promoted, rolled_back


def figures(
    cold: float = 1.0,
    repeated: float = 0.2,
    speed: float = 50,
    answers: tuple[str, ...] = ("yes", "no"),
    tokens: int = 2000,
) -> ProbeResult:
    timings = [
        Timing(name=name, prompt_tokens=tokens, ttft_seconds=[ttft * 3, ttft, ttft * 0.9])
        for name, ttft in (("cold", cold), ("repeated", repeated))
    ]
    return ProbeResult(
        model="chat",
        answers=[{"question": "?", "answer": answer} for answer in answers],
        streamed_chunks=4,
        tokens_per_second=speed,
        timings=timings,
        repeat_speedup=round(cold / repeated, 2),
        retrieval_examples=[],
    )


def test_a_canary_that_is_as_good_is_promoted_and_the_figures_say_why() -> None:
    found = decide(figures(), figures(cold=1.2, repeated=0.25, speed=45), RolloutSpec())
    assert found.promote
    assert (
        found.reasons[0]
        == "time to first token, cold: 1.200 s against 1.000 s (1.20 times), at most 1.25 is allowed"
    )
    assert len(found.reasons) == len(found.checks) == 4


@pytest.mark.parametrize(
    ("canary", "spec", "reason"),
    [
        ({"cold": 1.3}, {}, "time to first token, cold: 1.300 s"),
        ({"repeated": 0.4}, {}, "time to first token, repeated: 0.400 s"),
        ({"speed": 39}, {}, "tokens per second: 39.0 against 50.0 (0.78 times), 0.8 is wanted"),
        ({"answers": ("yes", "  ")}, {}, "1 of 2 answers are empty, 0 may be"),
        (
            {"repeated": 0.9},
            {"min_repeat_speedup": 2, "max_repeated_ttft_ratio": 9},
            "1.11 times as fast, 2 is wanted",
        ),
    ],
)
def test_each_threshold_alone_rolls_back(canary: dict[str, Any], spec: dict[str, Any], reason: str) -> None:
    found = decide(figures(), figures(**canary), RolloutSpec.parse(spec))
    assert not found.promote
    assert len(found.reasons) == 1
    assert reason in found.reasons[0]


def test_thresholds_are_the_spec_s() -> None:
    worse = figures(cold=2, repeated=0.4, speed=10, answers=("", ""))
    loose = {
        "max_cold_ttft_ratio": 2,
        "max_repeated_ttft_ratio": 2,
        "min_speed_ratio": 0.2,
        "max_empty_answers": 2,
    }
    assert decide(figures(), worse, RolloutSpec.parse(loose)).promote
    assert len(decide(figures(), worse, RolloutSpec()).reasons) == 4


def test_one_slow_answer_is_not_held_against_a_canary() -> None:
    slow = figures()
    slow.timings[0].ttft_seconds[0] = 60
    assert decide(figures(), slow, RolloutSpec()).promote


@pytest.mark.parametrize(
    ("canary", "message"),
    [
        (figures(tokens=200), "cold prompts have 2,000 and 200 tokens"),
        (figures(answers=("yes",)), "asked 2 and 1 questions"),
        (figures().model_copy(update={"timings": []}), "the probe of the canary has no cold timing"),
    ],
)
def test_figures_that_cannot_be_compared_decide_nothing(canary: ProbeResult, message: str) -> None:
    with pytest.raises(InputError) as refused:
        decide(figures(), canary, RolloutSpec())
    assert message in refused.value.message
    assert refused.value.remedy


@pytest.mark.parametrize("field", ["max_cold_ttft_ratio", "min_speed_ratio"])
def test_a_ratio_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(SpecError, match=f"{field} is 0"):
        RolloutSpec.parse({field: 0})


def service(kind: str) -> ClusterServeSpec:
    canary = {"revision": "v2", "model_uri": "s3://models/chat/2"}
    fields = {
        "kind": kind,
        "name": "chat",
        "model_uri": "s3://models/chat/1",
        "revision": "v1",
        "gpu": "whole",
    }
    return ClusterServeSpec.parse({**fields, "canary": canary})


def test_a_promoted_canary_keeps_its_pods() -> None:
    after = promoted(service("inference-service"))
    assert (after.model_uri, after.revision, after.canary) == ("s3://models/chat/2", "v2", None)
    other = promoted(service("llm-inference-service"))
    assert (other.model_uri, other.revision, other.canary) == ("s3://models/chat/2", "v1", None)


def test_a_rollback_leaves_what_served() -> None:
    before = service("inference-service")
    after = rolled_back(before)
    assert after == before.model_copy(update={"canary": None})
    with pytest.raises(SpecError, match="chat has no canary"):
        rolled_back(after)
    with pytest.raises(SpecError, match="chat has no canary"):
        promoted(after)
