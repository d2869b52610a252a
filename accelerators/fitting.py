"""One place and one piece of work: does it fit there, and why not?"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from goldpath.accelerators import serving_memory, training_memory
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.kv_cache import dtype_name
from goldpath.accelerators.places import Place
from goldpath.accelerators.serving_memory import Capacity, ServingShape
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


def training_row(architecture: Architecture, shape: TrainingShape, place: Place, margin: float) -> Row:
    """Lay a training against a place; where its matrices know no bf16, in fp32."""
    there = as_computed(shape, place)
    needed = estimate(architecture, there)
    refused = "it has no bf16, which qlora computes in" if shape.method == "qlora" and not place.bf16 else ""
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


def serving_row(architecture: Architecture, shape: ServingShape, place: Place, margin: float) -> Row:
    """Lay serving against a place, with what fits there beside the weights; refused where vLLM would not start."""
    needed = serving_memory.estimate(architecture, shape)
    if refused := _unserved(shape, place):
        return _row(place, needed.gpu_bytes, margin, needed.largest, refused=refused)
    held = serving_memory.capacity(architecture, shape, int(place.has * (1 - margin)))
    row = _row(place, needed.gpu_bytes, margin, needed.largest, held)
    slower = row.fits and shape.weights == "fp8" and not place.fp8
    return row.model_copy(update={"why": "computed in 16 bits"}) if slower else row


def _unserved(shape: ServingShape, place: Place) -> str:
    """What the GPU cannot compute in; empty where vLLM starts.

    "Bfloat16 is only supported on GPUs with compute capability of at least 8.0" (vLLM). Weights in fp8 and mxfp4 need
    the same: Ampere unpacks them (Marlin, vllm-project/vllm#5975; `Mxfp4Config.get_min_capability`). A cache in fp8
    needs 8.9 with the attention that vLLM takes by itself (vllm-project/vllm#26431, #47549).
    """
    cache = shape.kv_dtype if shape.kv_dtype == "auto" else dtype_name(shape.kv_dtype)
    if not place.bf16 and "bf16" in (shape.weights, cache):
        what = "dtype fp16" if shape.weights == "bf16" else "kv-dtype auto"
        return f"no bf16: {what} would do"
    if not place.bf16 and shape.weights in ("fp8", "mxfp4"):
        return f"no {shape.weights} nor bf16: dtype fp16 or int4 would do"
    if not place.fp8 and cache == "fp8":
        return "no fp8 for the cache: kv-dtype auto would do"
    return ""


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
