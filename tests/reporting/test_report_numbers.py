"""Figures are written one way everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from goldpath.reporting import numbers

NAN = math.nan


@pytest.mark.parametrize(
    ("form", "given", "expected"),
    [
        (numbers.count, 5120, "5,120"),
        (numbers.count, None, "–"),
        (numbers.count, True, "–"),
        (numbers.compact, 134_515_008, "135 M"),
        (numbers.compact, 1_711_000_000, "1.71 B"),
        (numbers.compact, 38_912, "38.9 k"),
        (numbers.compact, 900, "900"),
        (numbers.compact, "x", "–"),
        (numbers.decimal, -1.23456, "−1.235"),
        (numbers.decimal, NAN, "–"),
        (numbers.percent, 0.4119, "41.2%"),
        (numbers.percent, -0.05, "−5.0%"),
        (numbers.percent, math.inf, "–"),
        (numbers.signed, "5.0%", "+5.0%"),
        (numbers.signed, "−5.0%", "−5.0%"),
        (numbers.signed, "0.0%", "0.0%"),
        (numbers.duration, 0.01, "under 0.1 s"),
        (numbers.duration, 0.4, "0.4 s"),
        (numbers.duration, 9.96, "10 s"),
        (numbers.duration, 59.6, "1 min 00 s"),
        (numbers.duration, 312, "5 min 12 s"),
        (numbers.duration, 3_900, "1 h 05 min"),
        (numbers.duration, None, "–"),
        (numbers.latency, 4.913, "4.91 s"),
        (numbers.latency, 0.056, "56 ms"),
        (numbers.latency, 0.0042, "4.2 ms"),
        (numbers.latency, NAN, "–"),
        (numbers.size, 269_060_552, "269 MB"),
        (numbers.size, 12, "12 B"),
        (numbers.size, None, "–"),
        (numbers.times, 37.5, "38×"),
        (numbers.times, 1.44, "1.4×"),
        (numbers.times, NAN, "–"),
        (numbers.short, "a" * 64, "a" * 12),
        (numbers.short, "", "–"),
        (numbers.value, 2.63e-3, "2.6e-3"),
        (numbers.value, -3e-4, "−3e-4"),
        (numbers.value, 0.05, "0.05"),
        (numbers.value, 8.0, "8"),
        (numbers.value, True, "yes"),
        (numbers.value, None, "–"),
        (numbers.value, NAN, "–"),
        (numbers.value, "cosine", "cosine"),
        (numbers.value, -5, "−5"),
        (numbers.value, {"tune": {"trial_steps": 2}}, '{"tune": {"trial_steps": 2}}'),
        (numbers.spelled, "lora_rank", "LoRA rank"),
        (numbers.words, "near_duplicate", "Near duplicate"),
        (numbers.words, "lora_rank", "LoRA rank"),
    ],
)
def test_a_figure_is_written(form: Callable[[Any], str], given: Any, expected: str) -> None:
    assert form(given) == expected


def test_a_long_text_is_clipped_and_says_so() -> None:
    assert numbers.clip("word " * 1000, 20) == "word word word word…"
    assert numbers.clip("short", 20) == "short"
