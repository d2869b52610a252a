"""Personal data in text, by Presidio's pattern recognisers: no language model, no download."""

from __future__ import annotations

import importlib
import ipaddress
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

KINDS = ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "CRYPTO")
"""What is looked for. A finding becomes `<EMAIL_ADDRESS>` and so on. URLs are not personal data."""
_MIN_SCORE = 0.4
_POSSIBLE = re.compile(r"[@\d]|::")
_PHONE_FORMAT = re.compile(r"[+()\-. /]")
_PHONE_CONTEXT = re.compile(
    r"\b(?:phone|tele?|telephone|mobile|cell|fax|call|dial|sms|whatsapp)", re.IGNORECASE
)
_CONTEXT_CHARACTERS = 40
Recogniser = Callable[[str], list[Any]]


@dataclass(frozen=True, slots=True)
class Finding:
    """A stretch of a text, `text[start:end]`."""

    kind: str
    start: int
    end: int


def find(text: str) -> list[Finding]:
    """Personal data in `text`, by position, without overlaps.

    Kept out, because they identify nobody: loopback, unspecified and multicast addresses, IPv4 link-local
    addresses, whole networks (`10.0.0.0/8`), and bare digits that no word nearby calls a phone number.
    """
    if not _POSSIBLE.search(text):
        return []
    found = [match for recognise in _recognisers() for match in recognise(text) if match.score >= _MIN_SCORE]
    found.sort(key=lambda match: (-match.score, match.start - match.end, match.start))
    taken: list[Any] = []
    for match in found:
        if all(match.end <= other.start or other.end <= match.start for other in taken):
            taken.append(match)
    return [
        Finding(match.entity_type, match.start, match.end)
        for match in sorted(taken, key=lambda match: match.start)
        if _personal(match.entity_type, text, match.start, match.end)
    ]


def redact(text: str) -> tuple[str, Counter[str]]:
    """`text` with each finding replaced by its kind in angle brackets, and how many of each kind there were."""
    counts: Counter[str] = Counter()
    for finding in reversed(find(text)):
        text = f"{text[: finding.start]}<{finding.kind}>{text[finding.end :]}"
        counts[finding.kind] += 1
    return text, counts


def _personal(kind: str, text: str, start: int, end: int) -> bool:
    value = text[start:end]
    if kind == "IP_ADDRESS":
        if "/" in value:
            return False
        address = ipaddress.ip_address(value.partition("%")[0])
        common = address.is_loopback or address.is_unspecified or address.is_multicast
        return not (common or (address.version == 4 and address.is_link_local))
    if kind == "PHONE_NUMBER" and not _PHONE_FORMAT.search(value):
        return bool(_PHONE_CONTEXT.search(text[max(0, start - _CONTEXT_CHARACTERS) : start]))
    return True


@lru_cache(maxsize=1)
def _recognisers() -> tuple[Recogniser, ...]:
    with _without("transformers", "torch"):
        presidio = importlib.import_module("presidio_analyzer")
        ready = importlib.import_module("presidio_analyzer.predefined_recognizers")
    # The email recogniser would check the domain against a list that it downloads; its pattern is enough.
    email = presidio.PatternRecognizer(
        supported_entity="EMAIL_ADDRESS", patterns=ready.EmailRecognizer.PATTERNS, supported_language="en"
    )
    rest = (
        ready.CreditCardRecognizer(),
        ready.IbanRecognizer(),
        ready.IpRecognizer(),
        ready.UsSsnRecognizer(),
        ready.CryptoRecognizer(),
        ready.PhoneRecognizer(),
    )

    def recogniser(made: Any) -> Recogniser:
        return lambda text: list(made.analyze(text, made.supported_entities, None))

    return tuple(recogniser(made) for made in (email, *rest))


@contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Import something as if these optional modules were not installed.

    Presidio imports transformers and torch for language-model engines that are not used here: most of its time and
    memory.
    """
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
