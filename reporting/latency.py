"""The chart of the probe: time to first token of cold and of repeated prompts."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from goldpath.reporting.charts import FULL, PHONE
from goldpath.reporting.numbers import clip, count, known, latency, value, words
from goldpath.reporting.svg import COLOUR, Chart, picture
from goldpath.serving.results import ProbeResult, Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_PX = 54
_FRAME_PX = 88
"""Pixels of a row, and of the legend and the axis together."""
_EDGE = 1.6
"""Width of a ring's line."""


def ttft_chart(probe: ProbeResult) -> Chart | None:
    """Median time to first token of each kind of prompt as a bar, each measurement as a ring, on a linear axis.

    The medians stand in a column of their own at the right: beside a bar they would read as the outermost ring.
    """
    timings = [timing for timing in probe.timings if any(map(known, timing.ttft_seconds))]
    if not timings:
        return None
    seen = [[seconds for seconds in timing.ttft_seconds if known(seconds)] for timing in timings]
    medians = [median(row) for row in seen]
    rings = any(len(row) > 1 for row in seen)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for place, (timing, row, typical) in enumerate(zip(timings, seen, medians, strict=True)):
            colour = COLOUR["tuned" if "repeated" in timing.name else "base"]
            axes.barh(place, typical, height=0.3, color=colour, zorder=2)
            if len(row) > 1:
                _rings(axes, row, [place] * len(row))
            label = f"{_prompt(timing.name)}, {count(timing.prompt_tokens)} tokens"
            _say(axes, label, (0, place), (0, 11), colour="muted")
            _say(axes, latency(typical), (1, place), (0, 0), column=True)
        axes.set_ylim(len(timings) - 0.6, -0.8)
        axes.set_xlim(0, max(map(max, seen)) * (1.34 if narrow else 1.14) or 1)
        _legend(axes, rings)
        _axis(axes)

    title = "Time to first token"
    about = "Medians: " + "; ".join(
        f"{_prompt(timing.name).lower()} {latency(typical)}"
        for timing, typical in zip(timings, medians, strict=True)
    )
    about += ". A bar is the median, a ring one measurement; the axis is linear."
    size = _FRAME_PX + _ROW_PX * len(timings)
    svg = picture("ttft", title, about, draw, (FULL[0], size), (PHONE[0], size))
    return Chart(title, about, svg, ("Prompt", "Tokens", "Median", "Measurements"), _rows(timings, seen))


def _rows(timings: list[Timing], seen: list[list[float]]) -> list[tuple[str, ...]]:
    return [
        (
            _prompt(timing.name),
            count(timing.prompt_tokens),
            latency(median(row)),
            ", ".join(latency(seconds) for seconds in row),
        )
        for timing, row in zip(timings, seen, strict=True)
    ]


def _rings(axes: Axes, xs: list[float], ys: list[float]) -> None:
    axes.plot(
        *(xs, ys, "o"),
        markersize=7,
        color=COLOUR["paper"],
        markeredgecolor=COLOUR["ink"],
        markeredgewidth=_EDGE,
        zorder=4,
        clip_on=False,
    )


def _say(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    shift: tuple[float, float],
    *,
    colour: str = "ink",
    column: bool = False,
) -> None:
    """A text at a time, or in the column at the right."""
    axes.annotate(
        text,
        at,
        shift,
        xycoords=("axes fraction" if column else "data", "data"),
        textcoords="offset points",
        ha="right" if column else "left",
        va="center" if column else "bottom",
        color=COLOUR[colour],
        fontweight="bold" if column else "normal",
    )


def _legend(axes: Axes, rings: bool) -> None:
    """What the marks are, above the rows; the column of medians has its name there, too."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Patch | Line2D] = [Patch(color=COLOUR["base"], label="median")]
    if rings:
        marks.append(
            Line2D(
                *([], []),
                marker="o",
                linestyle="",
                markersize=7,
                color=COLOUR["paper"],
                markeredgecolor=COLOUR["ink"],
                markeredgewidth=_EDGE,
                label="one measurement",
            )
        )
    axes.legend(
        handles=marks,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.1,
        handleheight=0.7,
        handletextpad=0.6,
        columnspacing=1.6,
        labelcolor=COLOUR["muted"],
    )
    axes.annotate("Median", (1, 1), xycoords="axes fraction", ha="right", va="bottom", color=COLOUR["muted"])


def _axis(axes: Axes) -> None:
    axes.set_yticks([])
    axes.set_xlabel("Seconds to the first token, linear")
    axes.grid(visible=False)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(lambda x, _: value(round(x, 6)))


def _prompt(name: str) -> str:
    return {
        "cold": "Cold context",
        "repeated": "Repeated context",
        "retrieved-cold": "Retrieved chunks, cold",
        "retrieved-repeated": "Retrieved chunks, repeated",
    }.get(name, clip(words(name), 40))
