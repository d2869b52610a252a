"""Whether a canary is promoted: its probe's figures against those of the model that serves. Pure functions."""

from __future__ import annotations

from statistics import median
from typing import Annotated

from pydantic import Field

from goldpath.core.errors import InputError, SpecError
from goldpath.core.spec import Result, Spec
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.cluster_parts import Canary
from goldpath.serving.results import ProbeResult, Timing

_ALIKE = 0.2
"""Prompts may differ in length by so much: contexts are made up anew for each probe."""


class RolloutSpec(Spec):
    """How much worse than the model that serves a canary may be."""

    max_cold_ttft_ratio: Annotated[float, Field(gt=0, le=100)] = 1.25
    """Time to first token of a context never seen before, over that of the model that serves."""
    max_repeated_ttft_ratio: Annotated[float, Field(gt=0, le=100)] = 1.5
    """The same for a context seen before. It is short, so it varies more."""
    min_speed_ratio: Annotated[float, Field(gt=0, le=100)] = 0.8
    """Tokens per second, over those of the model that serves."""
    min_repeat_speedup: Annotated[float, Field(ge=0, le=1_000)] = 0
    """Cold over repeated TTFT of the canary itself; 0: not required. Above 1 it proves that KV reuse works."""
    max_empty_answers: Annotated[int, Field(ge=0, le=1_000)] = 0
    """Questions that the canary may leave without an answer."""


class Check(Result):
    """One threshold."""

    name: str
    stable: float
    canary: float
    allowed: float
    passed: bool
    said: str
    """In words."""


class Decision(Result):
    """What to do with a canary."""

    promote: bool
    """Else it is rolled back."""
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    """What speaks against it; where nothing does, what speaks for it."""


def decide(stable: ProbeResult, canary: ProbeResult, spec: RolloutSpec) -> Decision:
    """Promote or roll back.

    Args:
        stable: what the probe saw of the model that serves.
        canary: what the same probe saw of the canary.
        spec: how much worse it may be.

    Raises:
        InputError: the probes asked different things, so that their figures cannot be compared.
    """
    cold = _pair(stable, canary, "cold")
    repeated = _pair(stable, canary, "repeated")
    if len(stable.answers) != len(canary.answers):
        raise InputError(
            f"the probes asked {len(stable.answers)} and {len(canary.answers)} questions",
            "Probe both with the same ProbeSpec.",
        )
    speedup = cold[1] / repeated[1] if repeated[1] > 0 else 0.0
    empty = [sum(not answer.get("answer", "").strip() for answer in one.answers) for one in (stable, canary)]
    checks = [
        _at_most("time to first token, cold", *cold, spec.max_cold_ttft_ratio),
        _at_most("time to first token, repeated", *repeated, spec.max_repeated_ttft_ratio),
        _at_least_as_fast(stable.tokens_per_second, canary.tokens_per_second, spec.min_speed_ratio),
        Check(
            name="answers left empty",
            stable=empty[0],
            canary=empty[1],
            allowed=spec.max_empty_answers,
            passed=empty[1] <= spec.max_empty_answers,
            said=f"{empty[1]} of {len(canary.answers)} answers are empty, {spec.max_empty_answers} may be",
        ),
    ]
    if spec.min_repeat_speedup:
        checks.append(
            Check(
                name="gain of a repeated context",
                stable=stable.repeat_speedup,
                canary=round(speedup, 2),
                allowed=spec.min_repeat_speedup,
                passed=speedup >= spec.min_repeat_speedup,
                said=f"a repeated context is {speedup:.2f} times as fast, {spec.min_repeat_speedup:g} is wanted",
            )
        )
    against = tuple(check.said for check in checks if not check.passed)
    return Decision(
        promote=not against, checks=tuple(checks), reasons=against or tuple(one.said for one in checks)
    )


def promoted(spec: ClusterServeSpec) -> ClusterServeSpec:
    """The service once its canary is what serves. An InferenceService takes over the canary's pods as they run.

    Raises:
        SpecError: it has no canary.
    """
    canary = _canary_of(spec)
    name = canary.revision if spec.kind == "inference-service" else spec.revision
    return _changed(spec, model_uri=canary.model_uri, revision=name)


def rolled_back(spec: ClusterServeSpec) -> ClusterServeSpec:
    """The service without its canary.

    Raises:
        SpecError: it has none.
    """
    _canary_of(spec)
    return _changed(spec)


def _changed(spec: ClusterServeSpec, **fields: str) -> ClusterServeSpec:
    return ClusterServeSpec.parse({**spec.model_dump(), "canary": None, **fields})


def _canary_of(spec: ClusterServeSpec) -> Canary:
    if spec.canary is None:
        raise SpecError(f"{spec.name} has no canary", "Set canary in its spec first.")
    return spec.canary


def _pair(stable: ProbeResult, canary: ProbeResult, name: str) -> tuple[float, float]:
    """Medians of both, in seconds."""
    one, other = _timing(stable, name, "the model that serves"), _timing(canary, name, "the canary")
    if abs(one.prompt_tokens - other.prompt_tokens) > _ALIKE * max(one.prompt_tokens, other.prompt_tokens):
        raise InputError(
            f"the probes' {name} prompts have {one.prompt_tokens:,} and {other.prompt_tokens:,} tokens",
            "Probe both with the same ProbeSpec.",
        )
    return median(one.ttft_seconds), median(other.ttft_seconds)


def _timing(result: ProbeResult, name: str, whose: str) -> Timing:
    for timing in result.timings:
        if timing.name == name and timing.ttft_seconds:
            return timing
    raise InputError(f"the probe of {whose} has no {name} timing", "Probe it again.")


def _at_most(name: str, stable: float, canary: float, ratio: float) -> Check:
    return Check(
        name=name,
        stable=stable,
        canary=canary,
        allowed=ratio,
        passed=canary <= stable * ratio,
        said=f"{name}: {canary:.3f} s against {stable:.3f} s{_times(canary, stable)}, at most {ratio:g} is allowed",
    )


def _at_least_as_fast(stable: float, canary: float, ratio: float) -> Check:
    return Check(
        name="tokens per second",
        stable=stable,
        canary=canary,
        allowed=ratio,
        # One-token answers have no speed: what was not measured of the one is not held against the other.
        passed=canary >= stable * ratio,
        said=f"tokens per second: {canary:.1f} against {stable:.1f}{_times(canary, stable)}, {ratio:g} is wanted",
    )


def _times(canary: float, stable: float) -> str:
    return f" ({canary / stable:.2f} times)" if stable > 0 else ""
