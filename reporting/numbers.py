"""How figures are written: one format a kind of quantity, everywhere in the report."""

from __future__ import annotations

import json
import math
from typing import Any

NONE = "–"
_MINUS = "−"
_SPELLING = {
    **{"lora": "LoRA", "pii": "PII", "ip": "IP", "url": "URL", "us": "US"},
    **{"uk": "UK", "iban": "IBAN", "ssn": "SSN"},
}


def known(value: Any) -> bool:
    """Whether it is a finite number (a diverged loss is NaN, a missing one None)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    """`5,120`."""
    return f"{value:,.0f}" if known(value) else NONE


def compact(value: Any) -> str:
    """`135 M`, `1.7 B`: for parameters and tokens."""
    if not known(value):
        return NONE
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.3g} {unit}"
    return f"{value:,.0f}"


def decimal(value: Any, digits: int = 3) -> str:
    """A fixed number of digits after the point, with a true minus sign."""
    return f"{value:,.{digits}f}".replace("-", _MINUS) if known(value) else NONE


def percent(value: Any, digits: int = 1) -> str:
    """A fraction as `41.2%`."""
    return f"{value * 100:.{digits}f}%".replace("-", _MINUS) if known(value) else NONE


def signed(text: str) -> str:
    """Put a plus in front of a formatted number that has no minus and is not zero."""
    plain = not text.startswith(_MINUS) and any(digit in text for digit in "123456789")
    return f"+{text}" if plain else text


def duration(seconds: Any) -> str:
    """`4.9 s`, `42 s`, `5 min 12 s`, `1 h 05 min`."""
    if not known(seconds):
        return NONE
    if seconds < 0.05:
        return "under 0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02d} min"


def latency(seconds: Any) -> str:
    """A time to first token: `4.91 s`, `0.13 s`, `8 ms`."""
    if not known(seconds):
        return NONE
    if seconds >= 0.0995:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.00995 else f"{seconds * 1e3:.1f} ms"


def size(value: Any) -> str:
    """Bytes as `269 MB` (decimal units)."""
    if not known(value):
        return NONE
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B"


def times(value: Any) -> str:
    """A ratio as `38×` or `1.4×`."""
    if not known(value):
        return NONE
    return f"{value:.0f}×" if value >= 9.95 else f"{value:.1f}×"


def short(digest: Any, length: int = 12) -> str:
    """The first characters of a digest."""
    return str(digest)[:length] if digest else NONE


def clip(text: Any, limit: int = 1_200) -> str:
    """At most `limit` characters, with an ellipsis where something is left off."""
    whole = str(text)
    return whole if len(whole) <= limit else whole[: limit - 1].rstrip() + "…"


def value(thing: Any) -> str:
    """Any parameter's value: small floats as `3e-4`, whole ones without a point."""
    if isinstance(thing, bool) or thing is None:
        return {True: "yes", False: "no", None: NONE}[thing]
    if isinstance(thing, int):
        return str(thing).replace("-", _MINUS)
    if isinstance(thing, float):
        return _float(thing)
    if isinstance(thing, dict | list):
        return clip(json.dumps(thing, ensure_ascii=False, default=str), 1_000)
    return clip(thing, 400)


def _float(number: float) -> str:
    if not math.isfinite(number):
        return NONE
    if number == int(number) and abs(number) < 1e9:
        return str(int(number))
    sign = _MINUS if number < 0 else ""
    if 0 < abs(number) < 0.01:
        mantissa, exponent = f"{abs(number):.1e}".split("e")
        return f"{sign}{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{sign}{abs(number):.4g}"


def words(name: str) -> str:
    """An identifier as words: `near_duplicate` becomes `Near duplicate`."""
    plain = spelled(name)
    return plain[:1].upper() + plain[1:]


def spelled(name: str) -> str:
    """The same within a sentence: `lora_rank` becomes `LoRA rank`."""
    plain = name.replace("_", " ").replace("-", " ").strip()
    return " ".join(_SPELLING.get(word, word) for word in plain.split(" "))


def plural(number: int, noun: str) -> str:
    """`1 trial`, `3 trials`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
