"""The base of all specs: frozen, validated models whose errors say which field, what was given, what is allowed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from goldpath.core.digest import digest_json
from goldpath.core.errors import SpecError

NAME = r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?"
"""Names of runs and endpoints: DNS labels, so that they can name a cluster's objects too."""
NAME_SAID = "at most 50 lower-case letters, digits and dashes, with a letter or digit at both ends"


def matching(pattern: str, allowed: str) -> Any:
    """A field whose text must match a pattern; errors say `allowed` (`lower-case letters, at most 50`) in its place."""
    return Field(pattern=pattern, json_schema_extra={"allowed": allowed})


class Result(BaseModel):
    """What a library function hands back: typed, frozen, written to JSON as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spec(BaseModel):
    """A request, checked once where it is made; everything behind it can trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    from_pipeline: ClassVar[frozenset[str]] = frozenset()
    """Fields that only the pipeline sets, from what its steps have made; a form's overrides may not."""

    @classmethod
    def parse(
        cls, values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, step: str = ""
    ) -> Self:
        """Build the spec from parameters, `overrides` winning.

        KFP hands integers inside a dict over as floats, so whole floats become integers first.

        Args:
            values: field to value.
            overrides: field to value.
            step: whose overrides in a form these are, so that errors name them as they were typed.

        Raises:
            SpecError: one line that names every field that is wrong.
        """
        if overrides is not None and not isinstance(overrides, Mapping):
            raise SpecError(
                f"overrides for {cls.__name__} are {json.dumps(overrides, default=str)[:60]}",
                'Give an object: {"field": value}.',
            )
        given = overrides or {}
        for field in given:
            if step and field in cls.from_pipeline:
                raise SpecError(
                    f"overrides.{step}.{field} cannot be set", "Leave it out: the pipeline sets it."
                )
        typed = {field: f"overrides.{step}.{field}" for field in given} if step else {}
        merged = {key: _whole(value) for key, value in {**values, **given}.items()}
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise SpecError(_explain(cls, error, typed), _allowed(cls, error, step)) from None

    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON of the spec."""
        return digest_json(self.model_dump(mode="json"))


def fields_for(step: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a form's `overrides` set for a step.

    Raises:
        SpecError: they are no object.
    """
    fields = overrides.get(step, {})
    if not isinstance(fields, Mapping):
        raise SpecError(
            f"overrides.{step} is {fields!r}", 'Give an object of fields, such as {"max_rows": 500}.'
        )
    return dict(fields)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value


def _explain(cls: type[Spec], error: ValidationError, typed: Mapping[str, str]) -> str:
    rows = []
    # A default that is worked out from a field that is wrong is no mistake of its own.
    for problem in [one for one in error.errors() if one["type"] != "default_factory_not_called"]:
        first, *rest = (str(part) for part in problem["loc"] or [cls.__name__])
        field = ".".join([typed.get(first, first), *rest])
        given = problem.get("input")
        shown = json.dumps(given, default=str)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        message = _said(problem)
        if problem["type"] == "extra_forbidden":
            rows.append(f"{field} is not a field of {cls.__name__}")
        elif problem["type"] == "missing":
            rows.append(f"{field} is missing")
        elif problem["type"] == "string_pattern_mismatch" and (allowed := _in_words(cls, first)):
            rows.append(f"{field} is {shown}: use {allowed}")
        elif problem["loc"]:
            rows.append(f"{field} is {shown}: {message}")
        else:
            rows.append(message)
    return "; ".join(rows)


_EXPECTED = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
}
"""What is allowed, by pydantic's type of problem; the figures are in its `ctx`."""
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}
_KIND = re.compile(rf"({'|'.join(_KINDS)})_(?:type|parsing|parsing_size|from_float|number)")
"""One mistake has several types: `int_parsing`, `int_type`, `int_from_float`."""


def _said(problem: Mapping[str, Any]) -> str:
    """A problem in plain words: pydantic's own speak of an `input`, which nobody typed."""
    kind = str(problem["type"])
    if allowed := _EXPECTED.get(kind):
        return "use " + allowed.format_map({key: _whole(value) for key, value in problem["ctx"].items()})
    if found := _KIND.fullmatch(kind):
        return f"use {_KINDS[found[1]]}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:] if problem["loc"] else message


def _in_words(cls: type[Spec], field: str) -> str:
    extra = cls.model_fields[field].json_schema_extra
    return str(extra.get("allowed", "")) if isinstance(extra, dict) else ""


def _allowed(cls: type[Spec], error: ValidationError, step: str) -> str:
    if any(problem["type"] == "extra_forbidden" for problem in error.errors()):
        fields = [field for field in cls.model_fields if not (step and field in cls.from_pipeline)]
        return f"Fields of {cls.__name__}: {', '.join(fields)}."
    return "Correct the value and run it again."
