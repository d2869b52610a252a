"""Specs: one line that says which field, what was given, what is allowed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, model_validator

from goldpath.core.errors import SpecError
from goldpath.core.spec import Result, Spec, matching


class Inner(Spec):
    rate: Annotated[float, Field(ge=0, le=1)] = 0.5


class Sample(Spec):
    steps: Annotated[int, Field(ge=1)] = 10
    name: str = "x"
    inner: Inner = Inner()
    values: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _together(self) -> Sample:
        if self.name == "bad" and self.steps == 10:
            raise ValueError("bad needs other steps")
        return self


class Required(Spec):
    uri: str


class Served(Spec):
    from_pipeline: ClassVar[frozenset[str]] = frozenset({"made"})
    name: Annotated[str, matching("^[a-z]+$", "lower-case letters")] = "x"
    made: str = ""
    inner: Inner = Inner()


def test_overrides_win_and_whole_floats_become_integers() -> None:
    made = Sample.parse(
        {"steps": 5.0, "values": [1.0, 2.0], "inner": {"rate": 1.0}}, {"steps": 20.0, "name": "y"}
    )
    assert made == Sample(steps=20, name="y", inner=Inner(rate=1), values=(1, 2))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 0}, "steps is 0: use 1 or more"),
        ({"steps": 2.5}, "steps is 2.5: use a whole number"),
        ({"steps": float("inf")}, "steps is Infinity"),
        ({"inner": {"rate": 3}}, "inner.rate is 3: use 1 or less"),
        ({"stepz": 1}, "stepz is not a field of Sample"),
        ({"name": "bad"}, "bad needs other steps"),
        ({"steps": 0, "inner": {"rate": -1}}, "inner.rate is -1"),
        ({"steps": "a" * 200}, 'steps is "' + "a" * 56 + "..."),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as raised:
        Sample.parse(values)
    assert says in raised.value.message
    assert "\n" not in raised.value.line()


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SpecError) as raised:
        Sample.parse({}, {"stepz": 3})
    assert raised.value.remedy == "Fields of Sample: steps, name, inner, values."


def test_a_missing_field_is_named() -> None:
    with pytest.raises(SpecError, match="uri is missing"):
        Required.parse({})


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"name": "A"}, 'overrides.serve.name is "A": use lower-case letters. '),
        ({"inner": {"rate": 3}}, "overrides.serve.inner.rate is 3: use 1 or less"),
        ({"nam": 1}, "overrides.serve.nam is not a field of Served. Fields of Served: name, inner."),
        ({"made": ""}, "overrides.serve.made cannot be set. Leave it out: the pipeline sets it."),
    ],
)
def test_overrides_of_a_step_are_named_as_they_were_typed(overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as raised:
        Served.parse({"made": "1"}, overrides, "serve")
    assert raised.value.line().startswith(says)


def test_a_field_of_the_form_keeps_its_name_and_its_pattern_is_told_in_words() -> None:
    with pytest.raises(SpecError) as raised:
        Served.parse({"name": "A-1"}, {"inner": {}}, "serve")
    assert raised.value.message == 'name is "A-1": use lower-case letters'


@pytest.mark.parametrize("overrides", [[1, 2], "steps=3", 7])
def test_overrides_that_are_not_an_object_are_refused(overrides: Any) -> None:
    with pytest.raises(SpecError, match="overrides for Sample are"):
        Sample.parse({}, overrides)


def test_a_spec_cannot_be_changed_and_its_digest_is_its_content() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Sample().steps = 3  # type: ignore[misc]
    assert Sample().digest() == Sample.parse({"steps": 10.0}).digest()
    assert Sample().digest() != Sample(steps=11).digest()


def test_a_result_refuses_fields_it_does_not_know() -> None:
    class Figures(Result):
        loss: float

    assert Figures.model_validate_json('{"loss": 1}').loss == 1
    with pytest.raises(ValueError, match="gain"):
        Figures.model_validate({"loss": 1, "gain": 2})
