"""What would help where nothing fits: other ways to run the same work, each computed like the first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.fitting import Row, nearest, serving_row, training_row
from goldpath.accelerators.places import places, whole_gpus
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.accelerators.training_shape import TrainingShape
from goldpath.core.errors import SpecError
from goldpath.core.spec import Result

_SHARDED = "GPUs with fsdp"
Changes = list[tuple[str, dict[str, Any]]]
"""What to say, and the fields of the shape that it changes."""


class Alternative(Result):
    """Something else to ask for, with what it would need; computed, not guessed."""

    change: str
    need: int
    """Bytes on each device of the cheapest place that it fits, else of the one that lacks least."""
    precision: str
    """Training: what is computed in there."""
    request: str
    """The cheapest place for it; empty where it fits nowhere either."""


def for_training(
    architecture: Architecture, shape: TrainingShape, names: str | Iterable[str], margin: float
) -> tuple[Alternative, ...]:
    """Each change by itself, then the changes that keep the training as it is one upon the other, until it fits."""
    bf16 = any(place.bf16 for place in places(names, shape.gpus))
    single = _changes(shape, bf16=bf16, more=bool(whole_gpus(names)))
    made = [
        _alternative(architecture, shape.model_copy(update=values), words, names, margin)
        for words, values in single
    ]
    rows = [row for row in made if row]
    if any(row.request for row in rows):
        return tuple(_without_more_gpus(rows))
    said: dict[frozenset[str], str] = {}
    values: dict[str, Any] = {}
    for words, change in single:
        said[frozenset(change)] = words  # a later value of the same fields replaces the one before
        values |= change
        if len(said) > 1:
            together = shape.model_copy(update=values)
            row = _alternative(architecture, together, " and ".join(said.values()), names, margin)
            rows += [row] if row else []
            if row and row.request:
                break
    return tuple(rows)


def _without_more_gpus(rows: list[Alternative]) -> list[Alternative]:
    """Once so many GPUs fit, more of them are no news."""
    kept: list[Alternative] = []
    for row in rows:
        if not (kept and _SHARDED in kept[-1].change and kept[-1].request and _SHARDED in row.change):
            kept.append(row)
    return kept


def _changes(shape: TrainingShape, *, bf16: bool, more: bool) -> Changes:
    """What is not so already, and what the GPUs can compute; `more`: whether there are whole ones."""
    changes: Changes = []
    if shape.method == "qlora" and not bf16:
        changes.append(("method lora", {"method": "lora"}))
    if not shape.gradient_checkpointing:
        changes.append(("gradient checkpointing", {"gradient_checkpointing": True}))
    if shape.batch_size > 1:
        changes.append(("batch_size 1", {"batch_size": 1}))
    if shape.method == "full":
        changes.append(("method lora", {"method": "lora"}))
    if shape.method != "qlora" and shape.precision == "bf16" and bf16:
        changes.append(("method qlora", {"method": "qlora"}))
    if shape.sequence_length >= 512:
        half = shape.sequence_length // 2
        changes.append((f"sequence_length {half}", {"sequence_length": half}))
    counts = [n for n in (2, 4, 8, 16, 32, 64) if n > shape.gpus] if more else []
    changes += [(f"{n} {_SHARDED}", {"gpus": n, "sharding": "fsdp"}) for n in counts[:4]]
    return changes


def _alternative(
    architecture: Architecture, shape: TrainingShape, words: str, names: str | Iterable[str], margin: float
) -> Alternative | None:
    found = places(names if shape.gpus == 1 else whole_gpus(names), shape.gpus)
    return _told(words, [training_row(architecture, shape, place, margin) for place in found])


def _told(words: str, rows: list[Row]) -> Alternative | None:
    """None where every GPU is refused whatever its memory: that is no way out."""
    fitting = next((row for row in rows if row.fits), None)
    row = fitting or nearest(rows)
    if row.refused:
        return None
    return Alternative(
        change=words,
        need=row.need,
        precision=row.precision,
        request=fitting.request if fitting else "",
    )


def for_serving(
    architecture: Architecture, shape: ServingShape, names: str | Iterable[str], margin: float
) -> tuple[Alternative, ...]:
    """Each change by itself: smaller weights, a smaller cache, more GPUs."""
    changes: Changes = []
    if shape.weights == "bf16" and not any(place.bf16 for place in places(names, shape.tensor_parallel)):
        changes.append(("weights in fp16", {"weights": "fp16"}))
    if shape.weights in ("bf16", "fp16", "fp32"):
        changes += [("weights in fp8", {"weights": "fp8"}), ("weights in int4", {"weights": "int4"})]
    elif shape.weights in ("fp8", "int8"):
        changes.append(("weights in int4", {"weights": "int4"}))
    if shape.kv_dtype not in ("fp8", "int8", "int4"):
        changes.append(("the cache in fp8", {"kv_dtype": "fp8"}))
    if shape.context > 2048:
        changes.append((f"context {shape.context // 2}", {"context": shape.context // 2}))
    if shape.concurrency > 1:
        changes.append((f"concurrency {shape.concurrency // 2}", {"concurrency": shape.concurrency // 2}))
    changes += [
        (f"tensor parallel over {n} GPUs", {"tensor_parallel": n})
        for n in (2, 4, 8)
        if n > shape.tensor_parallel and whole_gpus(names)
    ]
    rows = []
    for words, values in changes:
        other = shape.model_copy(update=values)
        several = other.tensor_parallel > 1
        found = places(whole_gpus(names) if several else names, other.tensor_parallel)
        try:
            laid = [serving_row(architecture, other, place, margin) for place in found]
        except SpecError:  # heads that so many GPUs cannot share
            continue
        rows.append(_told(words, laid))
    return tuple(row for row in rows if row)
