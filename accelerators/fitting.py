"""One place and one piece of work: does it fit there, and why not?"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from goldpath.accelerators import serving_memory, training_memory
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.granted import Place
from goldpath.accelerators.kv_cache import dtype_name
from goldpath.accelerators.serving_memory import Capacity, ServingMemory, ServingShape
from goldpath.accelerators.training_shape import TrainingMemory, TrainingShape
from goldpath.core.spec import Result

GIB, MIB = 2**30, 2**20


class Row(Result):
    """One place, and whether the work fits there."""

    request: str
    gpus: tuple[str, ...]
    need: int
    """Bytes on each device, in `precision`."""
    precision: str = ""
    """Training: what matrices are multiplied in there; fp32 where the GPU has no bf16."""
    has: int
    """Bytes that a process can use there, the margin not taken off."""
    headroom: int
    """has - need: negative where it lacks."""
    fits: bool
    why: str
    """For a person: what it lacks and what takes most, or what is left."""
    refused: bool = False
    """Whether the GPU cannot compute it at all, whatever its memory; `why` says what it lacks."""
    capacity: Capacity | None = None
    """When serving."""


def training_row(
    architecture: Architecture, shape: TrainingShape, place: Place, margin: float, *, exact: bool = False
) -> Row:
    """Lay a training against a place; where its matrices know no bf16, in fp32.

    Args:
        architecture: of the model.
        shape: of the training.
        place: where.
        margin: share of a device that stays free.
        exact: whether bf16 is asked for and nothing else will do: a GPU that has none is refused, as for QLoRA.
    """
    exact = exact and shape.precision == "bf16" and shape.method != "qlora"
    there = shape if exact else as_computed(shape, place)
    needed = estimate(architecture, there)
    refused = ""
    if not place.bf16 and (exact or shape.method == "qlora"):
        refused = f"it has no bf16, which {'is the precision asked for' if exact else 'qlora computes in'}"
    note = " in fp32" if there.precision != shape.precision else ""
    row = _row(place, needed.total, margin, needed.largest, note=note, refused=refused)
    return row.model_copy(update={"precision": there.precision})


def as_computed(shape: TrainingShape, place: Place) -> TrainingShape:
    """The training as it runs there: in fp32 where the GPU's matrices know no bf16 (QLoRA computes in bf16 alone)."""
    if place.bf16 or shape.precision != "bf16" or shape.method == "qlora":
        return shape
    return shape.model_copy(update={"precision": "fp32"})


def nearest(rows: Sequence[Row]) -> Row:
    """The row that lacks least; one that is refused whatever its memory only where all are."""
    return max(rows, key=lambda row: (not row.refused, row.headroom))


def serving_row(
    architecture: Architecture, shape: ServingShape, place: Place, margin: float, *, held: bool = True
) -> Row:
    """Lay serving against a place; refused where vLLM would not start.

    Args:
        architecture: of the model.
        shape: of the endpoint.
        place: where.
        margin: share of a device that stays free besides.
        held: whether to count what fits there beside the weights, which takes longest.

    Raises:
        SpecError: heads that so many GPUs cannot share.
    """
    needed = served(architecture, shape)
    reason, instead = _unserved(shape, place)
    if reason:
        refused = f"{reason}{_would_do(architecture, shape, place, margin, instead)}"
        return _row(place, needed.gpu_bytes, margin, needed.largest, refused=refused)
    room = int(place.has * (1 - margin))
    beside = serving_memory.capacity(architecture, shape, room) if held else None
    row = _row(place, needed.gpu_bytes, margin, needed.largest, beside)
    slower = row.fits and shape.weights == "fp8" and not place.fp8
    return row.model_copy(update={"why": "computed in 16 bits"}) if slower else row


def _unserved(shape: ServingShape, place: Place) -> tuple[str, list[tuple[str, dict[str, str]]]]:
    """What the GPU cannot compute in, and what could be asked for instead; empty where vLLM starts.

    "Bfloat16 is only supported on GPUs with compute capability of at least 8.0" (vLLM). Weights in fp8 and mxfp4 need
    the same: Ampere unpacks them (Marlin, vllm-project/vllm#5975; `Mxfp4Config.get_min_capability`). A cache in fp8
    needs 8.9 with the attention that vLLM takes by itself (vllm-project/vllm#26431, #47549).
    """
    cache = shape.kv_dtype if shape.kv_dtype == "auto" else dtype_name(shape.kv_dtype)
    packed = not place.bf16 and shape.weights in ("fp8", "mxfp4")
    plain = not place.bf16 and "bf16" in (shape.weights, cache)
    if not (packed or plain or (cache == "fp8" and not place.fp8)):
        return "", []
    reason = f"no {shape.weights} nor bf16" if packed else "no bf16" if plain else "no fp8 for the cache"
    auto = (cache == "bf16" and not place.bf16) or (cache == "fp8" and not place.fp8)
    other = {"kv_dtype": "auto"} if auto else {}
    weights = ("fp16", "int4") if packed else ("fp16",) if shape.weights == "bf16" and plain else ()
    instead = [(f"dtype {one}{' and kv-dtype auto' * auto}", {"weights": one, **other}) for one in weights]
    return reason, instead or [("kv-dtype auto", other)]


def _would_do(
    architecture: Architecture,
    shape: ServingShape,
    place: Place,
    margin: float,
    instead: list[tuple[str, dict[str, str]]],
) -> str:
    """Which of these fit there; where none does, how much the smallest lacks."""
    room = int(place.has * (1 - margin))
    needs = [
        (served(architecture, shape.model_copy(update=values)).gpu_bytes, words) for words, values in instead
    ]
    fitting = [words for need, words in needs if need <= room]
    if fitting:
        return f": {' or '.join(fitting)} would do"
    need, words = min(needs)
    return f"; with {words} it lacks {gib(need - room)}"


@functools.lru_cache(maxsize=512)
def served(architecture: Architecture, shape: ServingShape) -> ServingMemory:
    """As `serving_memory.estimate`, remembered."""
    return serving_memory.estimate(architecture, shape)


@functools.lru_cache(maxsize=512)
def estimate(architecture: Architecture, shape: TrainingShape) -> TrainingMemory:
    """As `training_memory.estimate`, remembered."""
    return training_memory.estimate(architecture, shape)


def _row(
    place: Place,
    need: int,
    margin: float,
    largest: str,
    capacity: Capacity | None = None,
    *,
    note: str = "",
    refused: str = "",
) -> Row:
    room = int(place.has * (1 - margin))
    fits = need <= room and not refused
    if refused:
        why = refused
    elif fits:
        why = note.strip()
    elif need <= place.has:
        why = f"fits{note} only without the margin of {gib(place.has - room)}"
    else:
        why = f"lacks {gib(need - room)}{note}; the largest part: {named(largest)}"
    return Row(
        request=place.request,
        gpus=place.gpus,
        need=need,
        has=place.has,
        headroom=place.has - need,
        fits=fits,
        why=why,
        refused=bool(refused),
        capacity=capacity,
    )


def named(component: str) -> str:
    """A component's name for a person."""
    names = {
        "kv_cache": "the KV cache",
        "framework": "the framework",
        "gathered": "what sharding gathers",
        "optimizer": "optimizer states",
    }
    return names.get(component, component)


def gib(size: int) -> str:
    """Bytes for a person; MiB where so little is missing that GiB would say 0.0."""
    return f"{size / GIB:,.1f} GiB" if size == 0 or abs(size) >= GIB // 10 else f"{size / MIB:,.1f} MiB"
