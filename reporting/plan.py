"""The plan of a training's memory: bars against the place where it runs, and what was measured there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from goldpath.reporting.loading import RunRecord
from goldpath.reporting.numbers import clip, percent
from goldpath.reporting.page import render
from goldpath.reporting.svg import COLOUR, Chart, picture
from goldpath.training.results import PlannedPlace, ResourcePlan, TrainResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {
    "weights": ("Weights", "champion", 1.0),
    "adapters": ("Adapters", "champion", 0.5),
    "gradients": ("Gradients", "tuned", 1.0),
    "optimizer": ("Optimizer states", "tuned", 0.5),
    "activations": ("Activations", "base", 1.0),
    "logits": ("Logits and loss", "base", 0.55),
    "gathered": ("Gathered weights", "champion", 0.25),
    "framework": ("Process and libraries", "rule", 1.0),
}
"""Component to name, colour and opacity: what is kept is blue, what training adds gold, what passes grey."""
_GIB = 2**30
_WIDE, _NARROW = 820, 350


def plan_html(plan: ResourcePlan) -> str:
    """The plan as a page for KFP's artifact viewer."""
    return render("fragment.html", kind="plan", title="Memory plan", charts=_charts(plan, None))


def summary(plan: ResourcePlan) -> str:
    """The plan in a few words, for the terminal."""
    place = plan.here or plan.cluster
    if place is None:
        return f"gpu {plan.gpu}, nothing could be planned" if plan.unplanned else "it fits on no GPU"
    has = f" of {_gib(place.has)}" if place.has else ""
    where = f"{place.place}: " if place is plan.here else ""
    on = f"; on a cluster {plan.cluster.place}" if place is plan.here and plan.cluster else ""
    unknown = "; whether that fits is not known" if place.fits is None else ""
    return f"gpu {plan.gpu}, {where}{_gib(place.need)}{has}{on}{unknown}"


def lede(run: RunRecord) -> dict[str, str]:
    """A sentence or two beside the section's heading."""
    plan, training = run.get("plan_resources", ResourcePlan), run.get("fine_tune", TrainResult)
    if plan is None or plan.unplanned:
        return {}
    told = [
        f"Planned from the model's configuration, at the largest size that the search may choose: {_size(plan)}."
    ]
    measured = _measured(plan, training)
    if measured and plan.here:
        more = measured / plan.here.need - 1
        told.append(
            f"The fine-tuning was measured at {_gib(measured)}, "
            f"{percent(abs(more), 0)} {'more' if more >= 0 else 'less'} than planned."
        )
        if more > 0 and plan.gpu == "none":
            told.append("On a CPU the heap keeps what was freed in pieces: the margin is there for that.")
    return {"memory": " ".join(told)}


def context(run: RunRecord) -> dict[str, Any]:
    """What the report's template needs for the section."""
    plan, training = run.get("plan_resources", ResourcePlan), run.get("fine_tune", TrainResult)
    smaller = list(plan.cluster.too_small.items()) if plan and plan.cluster else []
    return {
        "plan": plan,
        "plan_facts": _facts(plan) if plan else [],
        "plan_charts": _charts(plan, training) if plan else [],
        "plan_smaller": smaller[-6:],  # the largest of them come nearest
    }


def _size(plan: ResourcePlan) -> str:
    shape = plan.shape
    told = f"{shape.get('batch_size')} × {shape.get('sequence_length')} tokens"
    if "lora_rank" in shape:
        told += f", LoRA rank {shape['lora_rank']}"
    return told + (", gradient checkpointing" if shape.get("gradient_checkpointing") else "")


def _facts(plan: ResourcePlan) -> list[tuple[str, str]]:
    facts = [("Asked for", f"gpu={plan.asked}"), ("The training got", _got(plan))]
    if plan.here:
        facts.append(("Needs here", f"{_gib(plan.here.need)}, {plan.here.precision}"))
    if plan.cluster:
        unknown = ", whether that fits is not known" if plan.cluster.fits is None else ""
        facts.append(
            ("On a cluster", f"gpu={plan.cluster.place}" if plan.here else _gib(plan.cluster.need) + unknown)
        )
    elif not plan.unplanned:
        facts.append(("On a cluster", "fits on no GPU of the catalogue"))
    return facts


def _got(plan: ResourcePlan) -> str:
    return "no GPU" if plan.gpu == "none" else f"gpu={plan.gpu}"


def _charts(plan: ResourcePlan, training: TrainResult | None) -> list[Chart]:
    """A bar for this machine, with what was measured, and one for the GPU on a cluster."""
    measured = _measured(plan, training)
    rows = [("here", plan.here, measured), ("cluster", plan.cluster, 0 if plan.here else measured)]
    return [_chart(ident, place, peak) for ident, place, peak in rows if place is not None]


def _measured(plan: ResourcePlan, training: TrainResult | None) -> int:
    """The measured peak that can stand beside the plan, bytes; 0 where there is none.

    Not where the plan is for several processes at once: the fine-tuning measures one.
    """
    if training is None or plan.shape.get("processes", 1) > 1 or plan.shape.get("parallel_trials", 1) > 1:
        return 0
    return training.peak_memory_bytes if plan.gpu == "none" else training.peak_gpu_bytes


def _chart(ident: str, place: PlannedPlace, measured: int) -> Chart:
    """Planned against measured, in a frame that is as wide as the place; the margin is hatched."""
    named = clip(place.place, 32)
    where = named[:1].upper() + named[1:] if ident == "here" else f"On a cluster: {named}"
    parts = [(name, size) for name, size in place.components.items() if size]
    room = f" of {_gib(place.has)}, of which {percent(place.margin, 0)} stay free" if place.has else ""
    about = f"Planned {_gib(place.need)}{room}; the peak is at the {place.peak}."
    about += f" Measured {_gib(measured)}." if measured else ""
    bars = 2 if measured else 1
    wide = (_WIDE, 92 + 34 * bars + 20 * -(-len(parts) // 3))
    narrow = (_NARROW, 92 + 34 * bars + 19 * len(parts))

    def draw(figure: Figure, narrow: bool) -> None:
        _draw(figure, place, measured, narrow=narrow)

    svg = picture(f"plan-{ident}", where, about, draw, wide, narrow)
    return Chart(where, about, svg, ("Part", "GiB", "Share"), _table(place, parts, measured))


def _draw(figure: Figure, place: PlannedPlace, measured: int, *, narrow: bool) -> None:
    axes, left, rows = figure.add_subplot(), 0.0, ["Planned"]
    for name, size in place.components.items():
        if size:
            label, role, alpha = PARTS.get(name, (clip(name, 24), "muted", 1.0))
            style: dict[str, Any] = {
                "color": COLOUR[role],
                "alpha": alpha,
                "label": f"{label} {_short(size)}",
            }
            axes.barh(0, size / _GIB, left=left, height=0.62, **style)
            left += size / _GIB
    if measured:
        rows.append("Measured")
        axes.barh(1, measured / _GIB, height=0.62, color=COLOUR["ink"], alpha=0.75)
    for row, size in enumerate((place.need, measured)[: len(rows)]):
        axes.annotate(_gib(size), (size / _GIB, row), (6, 0), textcoords="offset points", va="center")
    if place.has:
        _frame(axes, place, len(rows))
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.45, -1.05 if place.has else -0.6)
    # Room for the figure beside a bar.
    axes.set_xlim(0, max(place.has * 1.003, 1.15 * place.need, 1.15 * measured) / _GIB)
    axes.set_xlabel("GiB")
    axes.grid(visible=False)
    axes.locator_params(axis="x", nbins=5 if narrow else 9)
    columns = 1 if narrow else 3
    figure.legend(loc="outside lower left", ncols=columns, frameon=False, handlelength=1.0, handleheight=1.0)


def _table(place: PlannedPlace, parts: list[tuple[str, int]], measured: int) -> list[tuple[str, str, str]]:
    """The same figures, for those who cannot see the picture."""
    table = [
        (PARTS.get(name, (name,))[0], f"{size / _GIB:,.2f}", percent(size / place.need, 0))
        for name, size in parts
    ]
    table.append(("Planned", f"{place.need / _GIB:,.2f}", "100%"))
    if place.has:
        table.append(("There is", f"{place.has / _GIB:,.2f}", ""))
        table.append(("May be used", f"{place.has * (1 - place.margin) / _GIB:,.2f}", ""))
    if measured:
        table.append(("Measured peak", f"{measured / _GIB:,.2f}", percent(measured / place.need, 0)))
    return table


def _frame(axes: Axes, place: PlannedPlace, rows: int) -> None:
    """The size of the place, and the margin that stays free."""
    has, usable = place.has / _GIB, place.has * (1 - place.margin) / _GIB
    top, bottom = -0.45, rows - 0.55
    free = " free" if place.place.startswith("this ") else ""
    axes.fill_betweenx(
        [top, bottom], usable, has, facecolor="none", edgecolor=COLOUR["rule"], hatch="////", linewidth=0
    )
    axes.plot([usable, usable], [top, bottom], color=COLOUR["muted"], linewidth=1.2, linestyle=(0, (3, 2)))
    axes.plot([has, has], [top, bottom], color=COLOUR["ink"], linewidth=1.6)
    axes.annotate(
        f"{clip(place.place, 32)}: {_gib(place.has)}{free}, {percent(place.margin, 0)} kept free",
        (has, top),
        (0, 5),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=COLOUR["muted"],
    )


def _gib(size: float) -> str:
    return f"{size / _GIB:,.1f} GiB" if size >= 10 * _GIB else f"{size / _GIB:,.2f} GiB"


def _short(size: int) -> str:
    return _gib(size) if size >= _GIB // 10 else f"{size / 2**20:,.0f} MiB"
