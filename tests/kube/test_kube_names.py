"""Names and labels."""

from __future__ import annotations

import re

import pytest

from goldpath.core.errors import SpecError
from goldpath.core.kubernetes import label_value, object_name

LABEL = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"


@pytest.mark.parametrize(
    ("run", "step", "part"),
    [
        ("finetune-1", "fine_tune", ""),
        ("7b0c2a9e-0b0e-4b61-9b62-7f2b8f0a1d11", "tune", "trial"),
        ("R" * 200, "Warm Cache", "Ü/ü"),
        ("---", "___", ""),
    ],
)
def test_a_name_is_a_dns_label_and_the_same_each_time(run: str, step: str, part: str) -> None:
    name = object_name(run, step, part)
    assert re.fullmatch(LABEL, name)
    assert name == object_name(run, step, part)
    assert len(object_name(run, step, part, most=30)) <= 30


def test_no_two_of_run_step_and_part_share_a_name() -> None:
    given = [
        ("a-b", "c", ""),
        ("a", "b-c", ""),
        ("a", "b", "c"),
        ("A", "b", "c"),
        ("a", "b_c", ""),
        ("x" * 90, "c", ""),
        ("x" * 91, "c", ""),
    ]
    assert len({object_name(*names) for names in given}) == len(given)


def test_a_name_without_a_run_is_refused() -> None:
    with pytest.raises(SpecError, match="needs a run and a step"):
        object_name("", "tune")


@pytest.mark.parametrize("text", ["fine_tune", "", "a.b-c", "x" * 63])
def test_what_can_be_a_label_stays(text: str) -> None:
    assert label_value(text) == text


@pytest.mark.parametrize("text", ["x" * 64, "a b", "_a", "ü", "a/"])
def test_what_cannot_be_a_label_becomes_one(text: str) -> None:
    made = label_value(text)
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", made)
    assert made != label_value(text + "x")
