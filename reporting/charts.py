"""The charts of a run: what is drawn, and the same figures as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from goldpath.reporting.numbers import clip, count, decimal, known, plural, spelled, value, words
from goldpath.reporting.svg import COLOUR, FONT_PX, Chart, end_labels, picture, thin
from goldpath.training.results import SearchResult, TrainResult, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF = (400, 272)
PHONE = (350, 260)
FULL = (820, 300)
_NAMED = 6
"""Up to so many trials are named in a chart."""
_SHOWN = 400
"""Up to so many trials are drawn, and the best."""
_CURVES = 60
"""Up to so many learning curves, and the best."""


def trials_chart(search: SearchResult) -> Chart | None:
    """Objective against the first numeric parameter (the trial's number where there is none)."""
    measured = [trial for trial in search.trials if known(trial.objective)]
    if not measured:
        return None
    best = search.best.number if search.best else -1
    measured = [trial for place, trial in enumerate(measured) if place < _SHOWN or trial.number == best]
    axis = _axis(measured)
    xs = [_x(trial, axis) for trial in measured]
    log = axis != "" and min(xs) > 0 and max(xs) / min(xs) > 4
    alone = not _curves(search)
    size = FULL if alone else HALF

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        if log:
            axes.set_xscale("log")
        for chosen in (False, True):
            points = [
                (x, t.objective) for t, x in zip(measured, xs, strict=True) if (t.number == best) == chosen
            ]
            axes.plot(
                [x for x, _ in points],
                [y or 0.0 for _, y in points],
                "o",
                markersize=11 if chosen else 8,
                color=COLOUR["tuned"] if chosen else "none",
                markeredgecolor=COLOUR["tuned" if chosen else "base"],
                markeredgewidth=1.6,
                zorder=4 if chosen else 3,
            )
        _name_points(axes, measured, xs, best, axis)
        axes.set_xlabel((clip(words(axis), 40) + (", logarithmic" if log else "")) if axis else "Trial")
        _title(axes, f"{_objective(search)} by {clip(spelled(axis), 30) or 'trial'}")
        axes.margins(x=0.14 if size == HALF or narrow else 0.07, y=0.2)
        _value_ticks(axes, xs, log=log)

    title = f"{_objective(search)} of each trial"
    about = f"{plural(len(measured), 'trial')} against {spelled(axis) if axis else 'their number'}; the best is filled."
    columns = ("Trial", words(axis) if axis else "Number", _objective(search))
    rows = [
        (f"#{trial.number}", value(x), decimal(trial.objective))
        for trial, x in zip(measured, xs, strict=True)
    ]
    return Chart(
        title, about, picture("trials", title, about, draw, size, PHONE), columns, rows, half=not alone
    )


def trial_curves_chart(search: SearchResult) -> Chart | None:
    """Objective over the steps of each trial."""
    curves = _curves(search)
    if not curves:
        return None
    best = search.best.number if search.best else -1
    curves = [pair for place, pair in enumerate(curves) if place < _CURVES or pair[0].number == best]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for trial, curve in curves:
            chosen = trial.number == best
            axes.plot(
                *zip(*thin(curve, 120), strict=True),
                color=COLOUR["tuned" if chosen else "base"],
                linewidth=2.4 if chosen else 1.4,
                linestyle="-" if trial.status != "stopped" else (0, (4, 3)),
                zorder=4 if chosen else 3,
            )
        _title(axes, f"{_objective(search)} as the trials went")
        axes.set_xlabel("Optimizer step")
        axes.margins(x=0.04, y=0.12)
        _whole_ticks(axes)
        named = curves if len(curves) <= _NAMED else [pair for pair in curves if pair[0].number == best]
        figure.draw_without_rendering()
        end_labels(
            axes,
            [(*c[-1], f"#{t.number}", "tuned-ink" if t.number == best else "muted") for t, c in named],
        )

    title = "Learning curves of the trials"
    about = "One line a trial; the best is gold, a trial that was stopped early is dashed."
    rows = [
        (f"#{trial.number}", count(step), decimal(y))
        for trial, curve in curves[:20]
        for step, y in thin(curve, 8)
    ]
    svg = picture("trial-curves", title, about, draw, HALF, PHONE)
    return Chart(title, about, svg, ("Trial", "Step", _objective(search)), rows, half=True)


def _curves(search: SearchResult) -> list[tuple[Trial, list[tuple[int, float]]]]:
    """The trials that were measured more than once, and their measures."""
    curves = [(trial, [(step, y) for step, y in trial.curve if known(y)]) for trial in search.trials]
    return [(trial, curve) for trial, curve in curves if len(curve) > 1]


def loss_chart(training: TrainResult) -> Chart | None:
    """Training loss of each step, and validation loss where it was measured."""
    train = _series(training, "loss")
    validation = _series(training, "eval_loss")
    if not train and not validation:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        ends = []
        if train:
            axes.plot(*zip(*train, strict=True), color=COLOUR["tuned"], linewidth=1.8, zorder=3)
            ends.append((*train[-1], "training", "tuned-ink"))
        if validation:
            axes.plot(
                *zip(*validation, strict=True),
                color=COLOUR["champion"],
                linewidth=2.2,
                marker="o",
                markersize=6 if len(validation) <= 20 else 0,
                zorder=4,
            )
            ends.append((*validation[-1], "validation", "champion"))
        if training.resumed_from:
            axes.axvline(training.resumed_from, color=COLOUR["muted"], linewidth=1, linestyle=(0, (2, 3)))
            axes.annotate(
                "resumed",
                (training.resumed_from, 1),
                (4, -6),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                color=COLOUR["muted"],
            )
        _title(axes, "Loss, nats a token")
        axes.set_xlabel("Optimizer step")
        axes.margins(x=0.015, y=0.1)
        _whole_ticks(axes)
        figure.draw_without_rendering()
        end_labels(axes, ends)

    title = "Loss while fine-tuning"
    about = f"Training loss of single steps {_from_to(train)}; validation loss {_from_to(validation)}."
    scored = dict(validation)
    steps = sorted({step for step, _ in thin(train, 20)} | set(scored))
    losses = dict(train)
    rows = [(count(step), decimal(losses.get(step)), decimal(scored.get(step))) for step in steps[:60]]
    svg = picture("loss", title, about, draw, FULL, PHONE)
    return Chart(title, about, svg, ("Step", "Training loss of the step", "Validation loss"), rows)


def throughput_chart(training: TrainResult) -> Chart | None:
    """Tokens a second while training."""
    return _line(training, "tokens_per_second", "throughput", "Tokens per second", "base", count)


def schedule_chart(training: TrainResult) -> Chart | None:
    """The learning rate's schedule."""
    return _line(training, "learning_rate", "schedule", "Learning rate", "base", value)


def _line(training: TrainResult, key: str, ident: str, title: str, role: str, form: Any) -> Chart | None:
    points = _series(training, key)
    if len(points) < 2:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.plot(*zip(*points, strict=True), color=COLOUR[role], linewidth=1.8)
        _title(axes, title)
        axes.set_xlabel("Optimizer step")
        axes.set_ylim(0, max(y for _, y in points) * 1.15 or 1)
        axes.margins(x=0.015)
        axes.yaxis.set_major_formatter(lambda y, _: form(y))
        axes.locator_params(axis="y", nbins=5)
        _whole_ticks(axes)

    about = f"{title} over the steps, from {form(points[0][1])} to {form(points[-1][1])}."
    rows = [(count(step), form(y)) for step, y in thin(points, 20)]
    size = (HALF[0], 220)
    return Chart(
        title,
        about,
        picture(ident, title, about, draw, size, (PHONE[0], 220)),
        ("Step", title),
        rows,
        half=True,
    )


def _series(training: TrainResult, key: str) -> list[tuple[float, float]]:
    return thin(
        [(row["step"], row[key]) for row in training.curve if known(row.get(key)) and known(row.get("step"))]
    )


def _from_to(points: Sequence[tuple[float, float]]) -> str:
    return f"from {decimal(points[0][1])} to {decimal(points[-1][1])}" if points else "not measured"


def objective_name(objective: str) -> str:
    """A search's objective as it is called in the report."""
    named = {"eval_loss": "Validation loss", "train_loss": "Training loss"}
    return named.get(objective, words(objective.replace("eval_", "validation_")))


def _objective(search: SearchResult) -> str:
    return objective_name(search.objective)


def _axis(trials: list[Trial]) -> str:
    """The first parameter that is a number in every trial, learning rate before others; empty if none."""
    names = sorted(trials[0].parameters, key=lambda name: name != "learning_rate")
    for name in names:
        if all(known(trial.parameters.get(name)) for trial in trials):
            return name
    return ""


def _x(trial: Trial, axis: str) -> float:
    return float(trial.parameters[axis]) if axis else float(trial.number)


def _name_points(axes: Axes, trials: list[Trial], xs: list[float], best: int, axis: str) -> None:
    for trial, x in zip(trials, xs, strict=True):
        if len(trials) > _NAMED and trial.number != best:
            continue
        others = ", ".join(
            f"{words(name)} {value(given)}" for name, given in trial.parameters.items() if name != axis
        )
        text = f"#{trial.number}" + (f"  {others}" if others and len(others) < 24 else "")
        low, high = axes.get_xlim()
        inside = x < (low * high) ** 0.5 if axes.get_xscale() == "log" else x < (low + high) / 2
        axes.annotate(
            text,
            (x, trial.objective),
            (0, 10),
            textcoords="offset points",
            ha="left" if inside else "right",
            va="bottom",
            color=COLOUR["ink" if trial.number == best else "muted"],
            fontweight="bold" if trial.number == best else "normal",
        )


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=FONT_PX, color=COLOUR["ink"], pad=12)


def _value_ticks(axes: Axes, xs: list[float], *, log: bool) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    axes.xaxis.set_major_formatter(lambda x, _: value(float(f"{x:.6g}")))
    if log:
        low, high = axes.get_xlim()
        decades = [m * 10.0**power for power in range(-12, 13) for m in (1, 3)]
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in decades if low <= tick <= high]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif len(set(xs)) <= 8:
        axes.set_xticks(sorted(set(xs)))
    axes.locator_params(axis="y", nbins=5)


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(lambda x, _: count(x))
    if axes.get_ylim()[0] != 0:
        axes.locator_params(axis="y", nbins=5)
