"""Text of people and models as HTML: its line breaks and indentation kept, code told apart, everything escaped."""

from __future__ import annotations

import re

from markupsafe import Markup

_FENCE = re.compile(r"^[ \t]*```[^\n`]*(?:\n|$)", re.MULTILINE)
_TICKS = re.compile(r"`([^`\n]{1,200})`")


def ticks(text: object) -> Markup:
    """What stands between backticks becomes code."""
    code = Markup("<code>{}</code>")
    parts = _TICKS.split(str(text))
    return Markup("").join(code.format(part) if place % 2 else part for place, part in enumerate(parts))


def prose(text: object) -> Markup:
    """A paragraph for what is said and a block for each fenced piece of code.

    A fence that is never closed, as in an answer that was cut off, runs to the end.
    """
    blocks = []
    for place, part in enumerate(_FENCE.split(str(text))):
        # Blank lines at the border of a block are the gap that the page makes itself; indentation is content.
        body = re.sub(r"\A(?:[ \t]*\n)+", "", part).rstrip()
        if not body:
            continue
        if place % 2:
            blocks.append(Markup('<pre class="fenced"><code>{}</code></pre>').format(body))
        else:
            blocks.append(Markup('<p class="lines">{}</p>').format(ticks(body)))
    return Markup("\n").join(blocks)
