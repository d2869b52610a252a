"""Kubernetes quantities: ``40Gi``, ``500m``, ``1e3``.

Source: the grammar in k8s.io/apimachinery/pkg/api/resource (Quantity).
"""

from __future__ import annotations

import re
from decimal import Decimal

_FORM = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?")
_BINARY = {unit: 1024**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_DECIMAL = {unit: Decimal(1000) ** power for power, unit in enumerate("numkMGTPE", -3) if unit in "num"}
_DECIMAL |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)}
MAX = 2**63 - 1
"""Kubernetes holds no larger one: it cuts them down to this."""
EXAMPLES = "40Gi, 512Mi or 20G"


def is_quantity(text: str) -> bool:
    """Whether `text` is a quantity that is not negative, and not above `MAX`."""
    return len(text) <= 32 and _FORM.fullmatch(text) is not None and value(text) <= MAX


def value(text: str) -> Decimal:
    """What a quantity stands for: bytes for memory, a plain number for a count.

    Raises:
        ValueError: `text` is no quantity.
    """
    match = _FORM.fullmatch(text)
    if match is None or len(text) > 32:
        raise ValueError(f"{text!r} is not a Kubernetes quantity; examples: {EXAMPLES}")
    number, unit = Decimal(match[1]), match[2] or ""
    if unit[:1] in ("e", "E") and len(unit) > 1 and unit not in _BINARY:
        return number.scaleb(int(unit[1:]))
    return number * (_BINARY.get(unit) or _DECIMAL.get(unit) or 1)
