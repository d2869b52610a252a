"""What a pipeline's form asks, as specs: overrides win, and mistakes are named by their field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from goldpath.core.errors import SpecError
from goldpath.training.specs import DatasetSpec, EvalSpec, SearchSpec, TrainSpec


def data(overrides: dict[str, Any]) -> DatasetSpec:
    return DatasetSpec.from_form(dataset="rows.jsonl", seed=3, overrides=overrides)


def searched(overrides: dict[str, Any]) -> SearchSpec:
    return SearchSpec.from_form(max_trials=5, algorithm="random", seed=3, overrides=overrides)


def trained(overrides: dict[str, Any], **more: Any) -> TrainSpec:
    return TrainSpec.from_form(method="full", max_steps=9, seed=3, overrides=overrides, **more)


def judged(overrides: dict[str, Any]) -> EvalSpec:
    return EvalSpec.from_form(min_loss_drop=0.2, max_pii_leak_rate=0.1, seed=3, overrides=overrides)


def test_the_form_says_what_is_asked_and_overrides_win() -> None:
    others = {"probe": {"repeats": 1}}
    assert data(others) == DatasetSpec(source="rows.jsonl", seed=3)
    assert data({"prepare_data": {"max_rows": 20.0, "seed": 4}}) == DatasetSpec(
        source="rows.jsonl", seed=4, max_rows=20
    )
    assert searched(others) == SearchSpec(max_trials=5, algorithm="random", seed=3)
    assert searched({"tune": {"trial_steps": 2, "max_trials": 1}}) == SearchSpec(
        max_trials=1, algorithm="random", seed=3, trial_steps=2
    )
    assert trained(others) == TrainSpec(method="full", max_steps=9, seed=3)
    assert trained({"fine_tune": {"max_steps": 2}}) == TrainSpec(method="full", max_steps=2, seed=3)


def test_what_a_search_found_wins_over_the_overrides() -> None:
    asked = {"fine_tune": {"learning_rate": 1e-4, "packing": False}}
    found = trained(asked, hyperparameters={"learning_rate": 3e-3, "batch_size": 8.0})
    assert (found.learning_rate, found.batch_size, found.packing) == (3e-3, 8, False)
    trial = TrainSpec.from_form(method="lora", seed=3, overrides=asked)
    assert trial == TrainSpec(seed=3, learning_rate=1e-4, packing=False)


def test_overrides_change_single_fields_of_the_gate() -> None:
    found = judged({"evaluate": {"loss_rows": 4, "gate": {"min_refusal_rate": 0.5, "min_loss_drop": 0}}})
    assert (found.seed, found.loss_rows) == (3, 4)
    assert found.gate.model_dump() == {
        "min_loss_drop": 0,
        "min_champion_gain": 0,
        "max_pii_leak_rate": 0.1,
        "min_refusal_rate": 0.5,
    }
    assert judged({}).gate.min_loss_drop == 0.2


@pytest.mark.parametrize(
    ("build", "step"),
    [(data, "prepare_data"), (searched, "tune"), (trained, "fine_tune"), (judged, "evaluate")],
)
def test_fields_that_are_no_object_are_named(build: Callable[[Any], Any], step: str) -> None:
    with pytest.raises(SpecError, match=f"overrides.{step} is 4"):
        build({step: 4})


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"min_los_drop": 1}, r"min_los_drop is not a field of GateSpec.*min_loss_drop"),
        ({"max_pii_leak_rate": 2}, "max_pii_leak_rate is 2"),
        (3, "overrides for GateSpec are 3"),
    ],
)
def test_mistakes_in_the_gate_are_named(gate: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        judged({"evaluate": {"gate": gate}})
    assert "\n" not in caught.value.line()


def test_a_run_keeps_its_work_in_the_storage_of_all_steps() -> None:
    overrides = {"fine_tune": {"cluster": {"storage": "s3://other"}}}
    with pytest.raises(SpecError, match=r"keeps its work in GOLDPATH_STORAGE.*cluster\.claim"):
        TrainSpec.from_form(method="lora", seed=1, overrides=overrides)
