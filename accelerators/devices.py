"""Evaluates CEL on the devices of ResourceSlices, as the scheduler does.

It knows what the expressions of DeviceClasses and requests usually hold: strings, numbers, quantities, versions and
their comparisons. On anything else it says that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from goldpath.accelerators.expressions import compiled
from goldpath.accelerators.quantities import value
from goldpath.core.errors import SpecError

Slice = dict[str, Any]
Device = dict[str, Any]


class Found(NamedTuple):
    """One device of a ResourceSlice."""

    device: Device
    """As CEL's ``device`` sees it."""
    where: dict[str, Any]
    """``nodeName``, ``nodeSelector`` or ``allNodes``: the nodes that reach it."""
    pool: tuple[str, str]
    """Driver and name of its pool."""
    given: dict[str, Any]
    """As the slice has it."""


def devices(slices: Iterable[Slice]) -> list[Found]:
    """All devices of the newest generation of each pool."""
    specs = [one["spec"] for one in newest(slices)]
    return [
        Found(
            device=_device(spec["driver"], device),
            where=device if spec.get("perDeviceNodeSelection") else spec,
            pool=(spec["driver"], spec["pool"]["name"]),
            given=device,
        )
        for spec in specs
        for device in spec.get("devices") or ()
    ]


def newest(slices: Iterable[Slice]) -> list[Slice]:
    """The slices of the newest generation of each pool: older ones are about to go."""
    given = list(slices)
    generations: dict[tuple[str, str], int] = {}
    for one in given:
        pool = _pool(one)
        generations[pool] = max(generations.get(pool, 0), one["spec"]["pool"].get("generation", 0))
    return [one for one in given if one["spec"]["pool"].get("generation", 0) == generations[_pool(one)]]


def _pool(one: Slice) -> tuple[str, str]:
    return one["spec"]["driver"], one["spec"]["pool"]["name"]


def matches(expressions: Iterable[str], device: Device) -> bool | None:
    """Whether a device fulfils all expressions; None where that cannot be told."""
    answer: bool | None = True
    for expression in expressions:
        one = _evaluate(expression, device)
        if one is False:
            return False
        answer = None if one is None else answer
    return answer


def _device(driver: str, device: dict[str, Any]) -> Device:
    made: Device = {"driver": driver, "attributes": {driver: {}}, "capacity": {driver: {}}}
    for name, given in device.get("attributes", {}).items():
        domain, _, key = name.rpartition("/")
        made["attributes"].setdefault(domain or driver, {})[key] = next(iter(given.values()), None)
    for name, given in device.get("capacity", {}).items():
        domain, _, key = name.rpartition("/")
        amount = given.get("value") if isinstance(given, dict) else given
        made["capacity"].setdefault(domain or driver, {})[key] = _number(str(amount))
    made["allowMultipleAllocations"] = bool(device.get("allowMultipleAllocations", False))
    return made


def _evaluate(expression: str, device: Device) -> bool | None:
    import celpy

    try:
        answer = _program(expression).evaluate({"device": celpy.json_to_cel(_plain(device))})
    except (celpy.CELEvalError, SpecError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    return bool(answer)


@lru_cache(maxsize=64)
def _program(expression: str) -> Any:
    """Made once for all devices of a cluster."""
    import celpy

    return celpy.Environment().program(compiled(expression), functions=_functions())


def _plain(device: Any) -> Any:
    return {key: _plain(item) for key, item in device.items()} if isinstance(device, dict) else device


def _number(text: str) -> float:
    return float(value(text))


def _functions() -> dict[str, Callable[..., Any]]:
    from celpy import celtypes

    def compare(left: Any, right: Any) -> int:
        a, b = (_version(one) if isinstance(one, str) else Decimal(one) for one in (left, right))
        return (a > b) - (a < b)  # type: ignore[operator]

    return {
        "quantity": lambda text: celtypes.DoubleType(_number(text)),
        "semver": lambda text, *_: text,
        "isQuantity": lambda text: celtypes.BoolType(re.fullmatch(r"[0-9.]+[A-Za-z]*", text) is not None),
        "compareTo": lambda left, right: celtypes.IntType(compare(left, right)),
        "isGreaterThan": lambda left, right: celtypes.BoolType(compare(left, right) > 0),
        "isLessThan": lambda left, right: celtypes.BoolType(compare(left, right) < 0),
        "lowerAscii": lambda text: celtypes.StringType(text.lower()),
        "upperAscii": lambda text: celtypes.StringType(text.upper()),
        "orValue": lambda found, _: found,
    }


def _version(text: str) -> tuple[int, ...]:
    """Numbers of a version, without what stands after them."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", re.split(r"[-+]", text)[0]))
