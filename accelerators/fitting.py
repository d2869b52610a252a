"""One place and one piece of work: does it fit there, and why not?"""

from __future__ import annotations

import functools

from goldpath.accelerators import serving_memory, training_memory
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.kv_cache import dtype_name
from goldpath.accelerators.places import Place
from goldpath.accelerators.serving_memory import Capacity, ServingShape
from goldpath.accelerators.training_shape import TrainingMemory, TrainingShape
from goldpath.core.spec import Result

GIB = 2**30


class Row(Result):
    """One place, and whether the work fits there."""

    request: str
    gpus: tuple[str, ...]
    need: int
    """Bytes on each device."""
    has: int
    """Bytes that a process can use there, the margin not taken off."""
    headroom: int
    """has - need: negative where it lacks."""
    fits: bool
    why: str
    """For a person: what it lacks and what takes most, or what is left."""
    capacity: Capacity | None = None
    """When serving."""


def training_row(architecture: Architecture, shape: TrainingShape, place: Place, margin: float) -> Row:
    """Lay a training against a place; where its matrices know no bf16, in fp32."""
    if not place.bf16 and shape.precision == "bf16":
        if shape.method == "qlora":
            return _row(
                place,
                estimate(architecture, shape).total,
                margin,
                "",
                refused="it has no bf16, which qlora computes in",
            )
        shape = shape.model_copy(update={"precision": "fp32"})
    needed = estimate(architecture, shape)
    return _row(place, needed.total, margin, needed.largest, note="" if place.bf16 else " in fp32")


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
    """Bytes for a person."""
    return f"{size / GIB:,.1f} GiB"
