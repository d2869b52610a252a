"""What a search may ask for, and the space it becomes."""

from __future__ import annotations

from typing import get_args

import pytest

from goldpath.core.errors import SpecError
from goldpath.pipelines import catalogue
from goldpath.training import samplers
from goldpath.training.specs import Hyperparameters, SearchSpec

RATE = {"name": "learning_rate", "type": "double", "min": 0.001, "max": 0.003, "step": 0.001}
RANK = {"name": "lora_rank", "type": "int", "min": 8, "max": 24, "step": 8}
SCHEDULE = {"name": "schedule", "type": "categorical", "list": ["linear", "cosine"]}
ALPHA = {"name": "lora_alpha", "type": "discrete", "list": [16, 32]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": []}, ["one or more parameters"]),
        ({"parameters": [RATE, RATE]}, ["distinct names"]),
        ({"parameters": [{**RATE, "name": "hidden_size"}]}, ["hidden_size", "learning_rate"]),
        ({"parameters": [{**RATE, "min": 0.01}]}, ["min < max"]),
        ({"parameters": [{**RATE, "max": None}]}, ["min < max"]),
        ({"parameters": [{**RATE, "min": -1, "step": None}]}, ["learning_rate cannot be -1"]),
        ({"parameters": [{**RATE, "max": 2}]}, ["learning_rate cannot be 2"]),
        ({"parameters": [{**RATE, "log": True}]}, ["log: true and a step"]),
        ({"parameters": [{**RATE, "step": 1}]}, ["step 1"]),
        ({"parameters": [{**RATE, "list": [0.1]}]}, ["not a list"]),
        (
            {"parameters": [{"name": "weight_decay", "type": "double", "min": 0, "max": 0.1, "log": True}]},
            ["above 0"],
        ),
        ({"parameters": [{**RANK, "type": "double"}]}, ["use type int"]),
        ({"parameters": [{**RANK, "min": 8.5}]}, ["whole min"]),
        ({"parameters": [{**SCHEDULE, "list": ["wavy"]}]}, ["schedule cannot be wavy"]),
        ({"parameters": [{**SCHEDULE, "list": []}]}, ["list of distinct values"]),
        ({"parameters": [{**SCHEDULE, "min": 1}]}, ["takes a list"]),
        ({"parameters": [{"name": "schedule", "type": "int", "min": 1, "max": 3}]}, ["use type categorical"]),
        ({"goal": "maximize"}, ["eval_loss", "Set goal to minimize"]),
        ({"objective": "eval_token_accuracy"}, ["Set goal to maximize"]),
        ({"algorithm": "annealing"}, ["algorithm", "tpe"]),
        (
            {"algorithm": "cmaes", "parameters": [RATE, SCHEDULE]},
            ["schedule has a list", "choose algorithm tpe"],
        ),
        ({"algorithm": "cmaes", "parameters": [RATE, ALPHA]}, ["lora_alpha has a list"]),
        ({"algorithm": "cmaes", "parameters": [RATE]}, ["two or more parameters"]),
        (
            {"algorithm": "grid", "parameters": [{**RATE, "step": None}]},
            ["step for the double learning_rate", '"type": "discrete", "list": [0.001, 0.003]'],
        ),
        (
            {"algorithm": "grid", "parameters": [RATE, RANK], "max_trials": 8},
            ["9 points", "Raise max_trials to 9"],
        ),
        (
            {"trial_steps": 8, "early_stopping": {"algorithm": "medianstop", "start_step": 8}},
            ["only 8 steps"],
        ),
        ({"max_trials": -1}, ["max_trials"]),
    ],
)
def test_a_search_that_cannot_work_is_refused_by_name(change: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        SearchSpec.parse(change)
    for word in words:
        assert word in caught.value.line()
    assert "\n" not in caught.value.line()
    assert caught.value.remedy


ALGORITHMS = get_args(SearchSpec.model_fields["algorithm"].annotation)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_works_with_the_defaults_of_the_form(algorithm: str) -> None:
    fields = {field.name: field for field in catalogue.form("finetune")}
    assert algorithm in fields["algorithm"].help
    form = {name: fields[name].default for name in ("max_trials", "seed", "overrides")}
    spec = SearchSpec.from_form(**form, algorithm=algorithm)
    assert set(samplers.space(spec)) <= set(Hyperparameters.model_fields)
    if algorithm == "grid":
        assert samplers.grid(spec) == [{"learning_rate": rate} for rate in (0.001, 0.002, 0.004)]


@pytest.mark.parametrize(
    ("trials", "sizes"),
    [
        (1, [1]),
        (2, [2]),
        (4, [4]),
        (5, [4]),
        (6, [3, 2]),
        (8, [4, 2]),
        (9, [3, 3]),
        (12, [4, 3]),
        (500, [4, 3]),
    ],
)
def test_the_default_grid_fits_into_the_trials_and_holds_the_defaults(trials: int, sizes: list[int]) -> None:
    spec = SearchSpec.parse({"algorithm": "grid", "max_trials": trials})
    assert [len(parameter.list) for parameter in spec.parameters] == sizes
    names = [parameter.name for parameter in spec.parameters]
    assert names == ["learning_rate", "lora_rank"][: len(sizes)]
    points = samplers.grid(spec)
    assert len({tuple(point.values()) for point in points}) == len(points) <= trials
    assert Hyperparameters().model_dump(include=set(names)) in points


def test_a_grid_of_ones_own_is_left_alone() -> None:
    spec = SearchSpec.parse({"algorithm": "grid", "parameters": [RATE]})
    assert [parameter.model_dump(exclude_defaults=True) for parameter in spec.parameters] == [RATE]


def test_no_trials_need_no_fitting_algorithm() -> None:
    assert SearchSpec.parse({"algorithm": "grid", "max_trials": 0}).max_trials == 0


def test_floats_from_kfp_become_integers_where_they_are_meant() -> None:
    spec = SearchSpec.parse(
        {"max_trials": 4.0, "parameters": [{**RANK, "min": 8.0, "max": 24.0, "step": 8.0}]}
    )
    assert samplers.space(spec)["lora_rank"].to_internal_repr(16) == 16.0
    assert [point["lora_rank"] for point in samplers.grid(spec)] == [8, 16, 24]


def test_the_grid_is_the_product_of_the_axes() -> None:
    spec = SearchSpec.parse(
        {"algorithm": "grid", "max_trials": 36, "parameters": [RATE, RANK, SCHEDULE, ALPHA]}
    )
    points = samplers.grid(spec)
    assert len(points) == 3 * 3 * 2 * 2
    assert len({tuple(point.items()) for point in points}) == 36
    assert {point["learning_rate"] for point in points} == {0.001, 0.002, 0.003}
    assert points[1] == {**points[0], "lora_alpha": 32}


def test_an_enormous_grid_is_counted_not_built() -> None:
    huge = {"name": "batch_size", "type": "int", "min": 1, "max": 4096}
    with pytest.raises(SpecError, match="16777216 points"):
        SearchSpec.parse({"algorithm": "grid", "parameters": [huge, {**huge, "name": "lora_alpha"}]})


@pytest.mark.parametrize(
    ("parameter", "given", "inside"),
    [
        (RATE, {"learning_rate": 0.002}, True),
        (RATE, {"learning_rate": 0.0025}, False),
        ({**RATE, "step": None}, {"learning_rate": 0.0025}, True),
        (RATE, {"learning_rate": 0.01}, False),
        (ALPHA, {"lora_alpha": 16}, True),
        (ALPHA, {"lora_alpha": 17}, False),
        (SCHEDULE, {"schedule": "constant"}, False),
    ],
)
def test_the_given_point_is_tried_first_where_it_lies_in_the_space(
    parameter: dict[str, object], given: dict[str, object], inside: bool
) -> None:
    spec = SearchSpec.parse({"parameters": [parameter]})
    expected = [given] if inside else []
    assert samplers.fixed_points(spec, Hyperparameters.parse(given)) == expected
    without = SearchSpec.parse({"parameters": [parameter], "start_from_given": False})
    assert samplers.fixed_points(without, Hyperparameters.parse(given)) == []


@pytest.mark.parametrize(
    ("early", "steps", "interval"),
    [("none", 8, 8), ("medianstop", 8, 2), ("hyperband", 40, 4), ("medianstop", 2, 1)],
)
def test_trials_are_measured_often_enough_to_be_stopped(early: str, steps: int, interval: int) -> None:
    stopping = {"algorithm": early, "start_step": min(4, steps - 1)}
    spec = SearchSpec.parse({"trial_steps": steps, "early_stopping": stopping})
    assert samplers.evaluation_interval(spec) == interval
