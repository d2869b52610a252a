"""What a command prints for programs."""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(value: Any) -> str:
    """JSON that every reader takes: a figure that is no number (a loss of a training that diverged) is null."""
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
