"""Templates to HTML: everything escaped, the stylesheet and the one script inside, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from goldpath.reporting import numbers
from goldpath.reporting.prose import prose, ticks

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPT = """
for (const button of document.querySelectorAll('button[data-copy]')) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    const code = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      document.execCommand('copy');
    }
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1600);
  });
}
addEventListener('beforeprint', () => {
  for (const block of document.querySelectorAll('details.keep')) block.open = true;
});
"""


@lru_cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        *("clip", "compact", "count", "decimal", "duration", "latency", "percent", "short", "size", "times"),
        *("value", "words"),
    ):
        made.filters[name] = getattr(numbers, name)
    made.filters |= {"prose": prose, "ticks": ticks}
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    made.globals |= {
        "style": Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),  # noqa: S704  our own file
        "script": Markup(_SCRIPT),  # noqa: S704  our own, and the only one that the page's policy lets run
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:",
    }
    return made


def render(template: str, **context: Any) -> str:
    """A page from a template."""
    return _environment().get_template(template).render(**context)
