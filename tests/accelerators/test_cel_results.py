"""CEL in a request: what surely gives no true or false is refused, the rest is the API server's."""

from __future__ import annotations

import pytest

from goldpath.accelerators.requests import parse
from goldpath.core.errors import SpecError


@pytest.mark.parametrize(
    ("expression", "message", "remedy"),
    [
        ("true ? 1 : false", "gives a number, not true or false", "Example: device.attributes"),
        ("1 == 1 || 'x'", "has a string where true or false has to stand", "&& and || join comparisons"),
        ("device.driver && 1 == 1", "has a string where true or false", "&& and || join comparisons"),
        ("1 ? true : false", "has a number where true or false", "&& and || join comparisons"),
    ],
)
def test_what_is_neither_true_nor_false_is_refused(expression: str, message: str, remedy: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(f"dra:a.b[{expression}]")
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "expression",
    [
        "device.allowMultipleAllocations ? device.driver == 'x' : false",
        "device.attributes['a.b'].good && !device.attributes['a.b'].bad || has(device.attributes['a.b'].x)",
        "true ? device.attributes['a.b'].good : false",
        "true ? device.attributes['a.b'].good : 1",  # dynamic: only the API server can tell
    ],
)
def test_an_expression_that_may_be_right_is_left_to_the_api_server(expression: str) -> None:
    assert parse(f"dra:a.b[{expression}]").terms[0].selectors == (expression,)
