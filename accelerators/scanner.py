"""Finds where the parts of a request end: brackets hold CEL, whose strings may hold anything."""

from __future__ import annotations

import re

from goldpath.core.errors import SpecError

_RAW = re.compile(r"(?:^|[^A-Za-z0-9_])[bB]?[rR][bB]?$")


def closing(text: str, start: int) -> int:
    """Index of the bracket that closes the one at `start`: ``[`` by CEL's rules, ``{`` by the next ``}``.

    Raises:
        SpecError: it is never closed.
    """
    if text[start] == "{":
        end = text.find("}", start)
        if end < 0:
            raise SpecError("a { is not closed", "Write the capacity as {memory>=40Gi}.")
        return end
    depth, at = 0, start
    while at < len(text):
        char = text[at]
        if char in "'\"":
            at = _string_end(text, at)
            continue
        depth += {"[": 1, "]": -1}.get(char, 0)
        if depth == 0:
            return at
        at += 1
    raise SpecError("a [ is not closed", "Write the CEL expression as dra:CLASS[EXPRESSION].")


def _string_end(text: str, start: int) -> int:
    """Index after the CEL string that begins with the quote at `start`."""
    quote = text[start] * 3 if text.startswith(text[start] * 3, start) else text[start]
    raw = _RAW.search(text[:start]) is not None
    at = start + len(quote)
    while at < len(text):
        if text[at] == "\\" and not raw:
            at += 2
        elif text.startswith(quote, at):
            return at + len(quote)
        else:
            at += 1
    raise SpecError(
        f"a string that begins with {quote} is not closed", "Close the quote in the CEL expression."
    )


def split(text: str, separator: str) -> list[str]:
    """Cut at `separator` where it stands outside all brackets; the parts come without spaces around them.

    Raises:
        SpecError: a bracket is not closed.
    """
    parts, begin, at = [], 0, 0
    while at < len(text):
        if text[at] in "[{":
            at = closing(text, at)
        elif text[at] == separator:
            parts.append(text[begin:at])
            begin = at + 1
        at += 1
    return [part.strip() for part in [*parts, text[begin:]]]
