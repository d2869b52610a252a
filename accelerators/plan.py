"""Does it fit, on what, and what would help? Estimates laid against the catalogue's GPUs and this machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from goldpath.accelerators import alternatives, machine, serving_memory, training_memory
from goldpath.accelerators.alternatives import Alternative
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.chosen import ANY, choose
from goldpath.accelerators.fitting import (
    Row,
    gib,
    named,
    nearest,
    serving_row,
    training_row,
)
from goldpath.accelerators.places import places
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.accelerators.training_shape import TrainingMemory, TrainingShape
from goldpath.core.errors import SpecError
from goldpath.core.spec import Result

MARGIN = 0.1
"""Share of a device that stays free: estimates are off by some per cent, and drivers and data differ."""
HERE_MARGIN = 0.25
"""Of this machine's free memory: glibc's heap keeps what was freed in pieces, a fifth to a third of a training."""


class Plan(Result):
    """What `goldpath plan` says."""

    kind: Literal["train", "serve"]
    model: str
    parameters: int
    trainable_parameters: int
    need: int
    """Bytes on each device of the place that the verdict speaks of, in `precision`."""
    precision: str
    """Training: what is computed in there: what was asked for, or fp32 where the GPU has no bf16."""
    components: dict[str, int]
    peak: str
    """Training: the moment at which it is needed."""
    margin: float
    rows: tuple[Row, ...]
    cheapest: str
    """The request of the cheapest place that fits; empty where none does."""
    verdict: str
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...]


class Verdict(Result):
    """Whether a training fits on this machine; bytes."""

    fits: bool
    need: int
    has: int
    limited: bool
    """Whether a container's limit decides, not the machine's memory."""
    why: str


def train(
    architecture: Architecture,
    shape: TrainingShape,
    names: str | Iterable[str] = ANY,
    margin: float = MARGIN,
    *,
    nodes: int = 1,
    exact: bool = False,
) -> Plan:
    """Lay a training against GPUs.

    Args:
        architecture: of the model.
        shape: of the training; its `gpus` are those of all nodes.
        names: what to lay it against (`places`).
        margin: share of a GPU that stays free.
        nodes: that have the GPUs, as many each; the rows' requests are those of a node.
        exact: whether bf16 is asked for and nothing else will do: a GPU that has none is refused.

    Raises:
        SpecError: an unknown GPU, a margin that is none, a sequence longer than the model's positions.
    """
    _check(architecture, shape.sequence_length, margin)
    found = places(names, shape.gpus // nodes)
    rows = [training_row(architecture, shape, place, margin, exact=exact) for place in found]
    cheapest = next((row.request for row in rows if row.fits), "")
    best = _best(rows, cheapest)
    common = shape.model_copy(update={"precision": best.precision})
    needed = training_memory.estimate(architecture, common)
    helps = () if cheapest else alternatives.for_training(architecture, shape, names, margin)
    return Plan(
        kind="train",
        model=architecture.name,
        parameters=architecture.parameters,
        trainable_parameters=needed.trainable_parameters,
        need=needed.total,
        precision=common.precision,
        components=needed.components,
        peak=needed.peak,
        margin=margin,
        rows=tuple(rows),
        cheapest=cheapest,
        verdict=_verdict(rows, cheapest, margin, shape.precision),
        alternatives=helps,
        notes=(*choose(names).notes, *needed.assumed),
    )


def serve(
    architecture: Architecture, shape: ServingShape, names: str | Iterable[str] = ANY, margin: float = 0.0
) -> Plan:
    """Lay serving with vLLM against GPUs; `shape.utilization` leaves its own share free, so there is no margin.

    Raises:
        SpecError: an unknown GPU, a context longer than the model's positions, heads that cannot be shared.
    """
    _check(architecture, 1, margin)
    needed = serving_memory.estimate(architecture, shape)
    rows = [serving_row(architecture, shape, place, margin) for place in places(names, shape.tensor_parallel)]
    cheapest = next((row.request for row in rows if row.fits), "")
    helps = () if cheapest else alternatives.for_serving(architecture, shape, names, margin)
    return Plan(
        kind="serve",
        model=architecture.name,
        parameters=architecture.parameters,
        trainable_parameters=0,
        need=needed.gpu_bytes,
        precision="",
        components=needed.components,
        peak="",
        margin=margin,
        rows=tuple(rows),
        cheapest=cheapest,
        verdict=_verdict(rows, cheapest, margin),
        alternatives=helps,
        notes=(*choose(names).notes, *needed.assumed),
    )


def fits_here(
    needed: TrainingMemory,
    margin: float = HERE_MARGIN,
    found: machine.MachineMemory | None = None,
    processes: int = 1,
) -> Verdict:
    """Whether a training on the CPU fits in what this machine, or the container it is in, has free now.

    Args:
        needed: estimated with `device="cpu"`; of one process.
        margin: share of the free memory that stays free.
        found: the machine's memory; asked for here by default.
        processes: how many like it there are at once.
    """
    here = found or machine.memory()
    need = needed.total * processes
    fits = need <= here.available * (1 - margin)
    place = "its container" if here.limited else "this machine"
    kept = f", of which {gib(int(here.available * margin))} is kept free" if margin else ""
    why = f"the training needs {gib(need)} and {place} has {gib(here.available)} free{kept}"
    why += (
        f"; the largest part: {named(needed.largest)}, {gib(needed.components[needed.largest] * processes)}"
    )
    return Verdict(fits=fits, need=need, has=here.available, limited=here.limited, why=why)


def _check(architecture: Architecture, tokens: int, margin: float) -> None:
    if not 0 <= margin < 1:
        raise SpecError(f"margin is {margin:g}", "Give a share from 0 to below 1, such as 0.1.")
    if architecture.max_positions and tokens > architecture.max_positions:
        raise SpecError(
            f"sequence_length is {tokens} and {architecture.name} has {architecture.max_positions} positions",
            f"Give a sequence_length of at most {architecture.max_positions}.",
        )


def _best(rows: list[Row], cheapest: str) -> Row:
    """What the verdict speaks of: the cheapest, or where it lacks least."""
    return next((row for row in rows if row.request == cheapest), None) or nearest(rows)


def _verdict(rows: list[Row], cheapest: str, margin: float, precision: str = "") -> str:
    """In one clause, with the figures of the very place that it speaks of."""
    best = _best(rows, cheapest)
    other = f" in {best.precision}" if best.precision != precision else ""
    if cheapest:
        left = f"with {gib(best.headroom)} of {gib(best.has)} left"
        return f"fits: the cheapest of {len(rows)} is {cheapest}{other}, {left}"
    if best.refused:
        return f"fits nowhere: {best.request}: {best.why}"
    room = int(best.has * (1 - margin))
    where = f"even {best.request}" if len(rows) > 1 else best.request
    kept = f" and {gib(best.has - room)} is kept free ({margin:.0%})" if margin else ""
    need = f"it needs {gib(best.need)}{other} a device{kept}"
    return f"fits nowhere: {need}: {where} lacks {gib(best.need - room)}"
