"""JSON for programs."""

import json
import math

from goldpath.cli.printed import to_json


def test_a_figure_that_is_no_number_is_null_for_strict_readers():
    told = {
        "loss": math.nan,
        "scores": [{"loss": math.inf}, {"loss": 1.5}],
        "pair": (1, -math.inf),
        "name": "é",
    }

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    read = json.loads(to_json(told), parse_constant=refuse)
    assert read == {
        "loss": None,
        "scores": [{"loss": None}, {"loss": 1.5}],
        "pair": [1, None],
        "name": "é",
    }
