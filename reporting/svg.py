"""Matplotlib figures as inline SVG: the page's colours (light and dark), the page's font, the same bytes every time.

Figures are drawn in placeholder colours, one a role, that become CSS variables in the SVG; so one picture serves light,
dark and print. Each picture is drawn twice, for wide and for narrow screens, so that its text keeps its size.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROLES = ("ink", "muted", "rule", "base", "tuned", "tuned-ink", "champion", "paper")
"""CSS variables of the page that a chart may use, see `templates/style.css`."""
COLOUR = {role: f"#{number:02x}{number:02x}{number:02x}" for number, role in enumerate(ROLES, start=1)}
_ROLE = {colour: role for role, colour in COLOUR.items()}
_PAINT = re.compile(r"(fill|stroke): (#[0-9a-f]{6})")
_FONT_FAMILY = re.compile(r"font-family: [^;\"]*;? ?")
_SHELL = re.compile(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_IDS = re.compile(r'(\bid="|href="#|url\(#)([^")]+)')

FONT_PX = 12.0
"""Size of all text in a chart at its natural width, in CSS pixels."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "goldpath",
    "text.parse_math": False,  # a user's `$` is a dollar sign
    "font.size": FONT_PX,
    "text.color": COLOUR["ink"],
    "axes.edgecolor": COLOUR["rule"],
    "axes.labelcolor": COLOUR["muted"],
    "axes.labelsize": FONT_PX,
    "axes.linewidth": 1.0,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOUR["rule"],
    "grid.linewidth": 1.0,
    "xtick.color": COLOUR["rule"],
    "ytick.color": COLOUR["rule"],
    "xtick.labelcolor": COLOUR["muted"],
    "ytick.labelcolor": COLOUR["muted"],
    "xtick.labelsize": FONT_PX,
    "ytick.labelsize": FONT_PX,
    "xtick.major.size": 4,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 6,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": True,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}

Size = tuple[int, int]
Draw = Callable[["Figure", bool], None]


@dataclass(frozen=True)
class Chart:
    """A picture with its words, and its figures as a table for those who cannot see it."""

    title: str
    description: str
    svg: Markup
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    half: bool = False
    """Whether it shares its line with another chart."""


def picture(ident: str, title: str, description: str, draw: Draw, wide: Size, narrow: Size) -> Markup:
    """Draw a figure for wide and for narrow screens.

    Args:
        ident: unique on the page; prefix of all ids in the SVG.
        title: its accessible name.
        description: what it shows, in a sentence.
        draw: fills the figure; its second argument says whether it is the narrow one.
        wide: width and height in CSS pixels.
        narrow: the same for phones; equal to `wide` where one picture serves both.
    """
    if wide == narrow:
        return _one(f"{ident}", "", title, description, draw, wide, narrow=False)
    return _one(f"{ident}-w", "wide", title, description, draw, wide, narrow=False) + _one(
        f"{ident}-n", "narrow", title, description, draw, narrow, narrow=True
    )


def _one(
    ident: str, kind: str, title: str, description: str, draw: Draw, size: Size, *, narrow: bool
) -> Markup:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.04)
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, layout=layout)
        FigureCanvasSVG(figure)
        draw(figure, narrow)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), ident, kind, title, description, size)


def _inline(text: str, ident: str, kind: str, title: str, description: str, size: Size) -> Markup:
    body = text[text.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = _SHELL.sub("", body).replace("xlink:href", "href")
    body = _PAINT.sub(lambda found: f"{found[1]}: {_paint(found[2])}", body)
    body = _FONT_FAMILY.sub("", body)
    body = _IDS.sub(lambda found: f"{found[1]}{ident}-{found[2]}", body)
    body = re.sub(r"\n\s*", "\n", body)
    head = (
        f'<svg class="chart {kind}" role="img" aria-labelledby="{ident}-title {ident}-about" '
        f'viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}">'
        f'<title id="{ident}-title">{escape(title)}</title><desc id="{ident}-about">{escape(description)}</desc>'
    )
    return Markup(head + body)  # noqa: S704  matplotlib escapes text; ours is escaped above


def _paint(colour: str) -> str:
    role = _ROLE.get(colour)
    return f"var(--{role})" if role else colour


def thin(points: list[Any], limit: int = 300) -> list[Any]:
    """At most `limit` points, evenly taken, with the first and the last."""
    if len(points) <= limit:
        return points
    gap = (len(points) - 1) / (limit - 1)
    return [points[round(number * gap)] for number in range(limit)]


def spread(values: list[float], gap: float) -> list[float]:
    """Heights for labels beside `values`, moved apart to at least `gap`, their order kept."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    placed = [values[index] for index in order]
    for _ in range(50):
        moved = False
        for low in range(len(placed) - 1):
            missing = gap - (placed[low + 1] - placed[low])
            if missing > 1e-9 * max(gap, 1e-12):
                placed[low] -= missing / 2
                placed[low + 1] += missing / 2
                moved = True
        if not moved:
            break
    heights = [0.0] * len(values)
    for place, index in enumerate(order):
        heights[index] = placed[place]
    return heights


def end_labels(axes: Axes, labels: list[tuple[float, float, str, str]], shift: float = 7) -> None:
    """Name lines at their right end: (x, y, text, role) each; overlapping names move apart."""
    low, high = axes.get_ylim()
    pixels = axes.get_window_extent().height
    heights = spread([y for _, y, _, _ in labels], (high - low) / max(pixels, 1) * FONT_PX * 1.2)
    for (x, _, text, role), height in zip(labels, heights, strict=True):
        axes.annotate(
            text, (x, height), (shift, 0), textcoords="offset points", va="center", color=COLOUR[role]
        )
