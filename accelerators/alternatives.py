"""What would help where nothing fits: other ways to run the same work, each computed like the first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.fitting import Row, nearest, served, serving_row, training_row
from goldpath.accelerators.granted import Place
from goldpath.accelerators.kv_cache import dtype_name
from goldpath.accelerators.places import places, whole_gpus
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.accelerators.training_shape import TrainingShape
from goldpath.core.errors import SpecError
from goldpath.core.spec import Result

_TOGETHER = 4
"""So many changes at once are tried."""
_SHOWN = 3
"""Ways out of as many changes, at most."""


class Change(NamedTuple):
    """One thing to do otherwise."""

    words: str
    values: dict[str, Any]
    """Fields of the shape."""
    gpus: int = 0
    """So many, where it takes more of them."""


class Alternative(Result):
    """Something else to ask for, with what it would need; computed, not guessed."""

    change: str
    need: int
    """Bytes on each device of the cheapest place that it fits, else of the one that lacks least."""
    precision: str
    """Training: what is computed in there."""
    request: str
    """The cheapest place for it; empty where it fits nowhere either."""


Enough = tuple[frozenset[str], int]
"""Changes that are enough with so many GPUs (0: as many as before)."""
Lay = Callable[[dict[str, Any]], list[Row]]
"""The work with these fields changed, against every place for it."""


def for_training(
    architecture: Architecture, shape: TrainingShape, names: str | Iterable[str], margin: float
) -> tuple[Alternative, ...]:
    """What would help a training that fits nowhere among `names`."""
    found = _Places(names, shape.gpus)

    def lay(values: dict[str, Any]) -> list[Row]:
        other = shape.model_copy(update=values)
        return [training_row(architecture, other, place, margin) for place in found.of(other.gpus)]

    bf16 = any(place.bf16 for place in found.of(shape.gpus))
    return _ways_out(_training_changes(shape, bf16=bf16, more=found.several), lay)


def for_serving(
    architecture: Architecture, shape: ServingShape, names: str | Iterable[str], margin: float
) -> tuple[Alternative, ...]:
    """What would help an endpoint that fits nowhere among `names`."""
    found = _Places(names, shape.tensor_parallel)

    def lay(values: dict[str, Any]) -> list[Row]:
        other = shape.model_copy(update=values)
        able = found.of(other.tensor_parallel)
        return [serving_row(architecture, other, place, margin, held=False) for place in able]

    def shared(count: int) -> bool:
        """Whether so many GPUs can share the heads."""
        try:
            served(architecture, shape.model_copy(update={"tensor_parallel": count}))
        except SpecError:
            return False
        return True

    counts = [n for n in (2, 4, 8, 16) if found.several and n > shape.tensor_parallel and shared(n)]
    changes = [
        *_serving_changes(shape, found.of(shape.tensor_parallel)),
        *(Change(f"tensor parallel over {n} GPUs", {"tensor_parallel": n}, n) for n in counts),
    ]
    return _ways_out(changes, lay)


class _Places:
    """The places among `names` for a number of devices; another number than the one asked for takes whole GPUs."""

    def __init__(self, names: str | Iterable[str], count: int) -> None:
        names = names if isinstance(names, str) else tuple(names)
        self._known = {count: places(names, count)}
        self._whole = whole_gpus(names)

    @property
    def several(self) -> bool:
        """Whether there are GPUs of which several can work together."""
        return bool(self._whole)

    def of(self, count: int) -> list[Place]:
        """Those for `count` devices."""
        if count not in self._known:
            self._known[count] = places(self._whole, count)
        return self._known[count]


def _ways_out(changes: list[Change], lay: Lay) -> tuple[Alternative, ...]:
    """Each change by itself; where none is enough, the fewest that are enough together, else all of them."""
    single = list(_told_each([[one] for one in changes], lay, []))
    if any(one.request for one in single):
        return tuple(single)
    found: list[Alternative] = []
    enough: list[Enough] = []
    for size in range(2, min(_TOGETHER, len(changes)) + 1):
        groups = [list(group) for group in itertools.combinations(changes, size) if _apart(group)]
        first = not found
        found += (told for told in _told_each(groups, lay, enough) if told.request)
        if found and not first:
            break
    if not found:
        last = {frozenset(one.values): one for one in changes}  # the last of each kind goes furthest
        every = _told(list(last.values()), lay) if len(last) > 1 else None
        found = [every] if every else []
    return (*single, *found[:_SHOWN])


def _apart(group: Iterable[Change]) -> bool:
    """Whether no two set the same field."""
    fields = [name for one in group for name in one.values]
    return len(set(fields)) == len(fields)


def _told_each(groups: Iterable[list[Change]], lay: Lay, enough: list[Enough]) -> Iterator[Alternative]:
    """What each group of changes gives; nothing for one that does more than one that is enough, and is noted there."""
    for group in groups:
        rest, gpus = frozenset(one.words for one in group if not one.gpus), max(one.gpus for one in group)
        if any(rest >= fewer and gpus >= least for fewer, least in enough):
            continue
        told = _told(group, lay)
        if told and told.request:
            enough.append((rest, gpus))
        if told:
            yield told


def _told(group: list[Change], lay: Lay) -> Alternative | None:
    """None where every GPU is refused whatever its memory: that is no way out."""
    values = {name: value for one in group for name, value in one.values.items()}
    rows = lay(values)
    fitting = next((row for row in rows if row.fits), None)
    row = fitting or nearest(rows)
    if row.refused:
        return None
    return Alternative(
        change=" and ".join(one.words for one in group),
        need=row.need,
        precision=row.precision,
        request=fitting.request if fitting else "",
    )


def _training_changes(shape: TrainingShape, *, bf16: bool, more: bool) -> list[Change]:
    """What is not so already, and what the GPUs can compute; `more`: whether there are whole ones."""
    changes: list[Change] = []
    if shape.method == "qlora" and not bf16:
        changes.append(Change("method lora", {"method": "lora"}))
    if not shape.gradient_checkpointing:
        changes.append(Change("gradient checkpointing", {"gradient_checkpointing": True}))
    if shape.batch_size > 1:
        changes.append(Change("batch_size 1", {"batch_size": 1}))
    if shape.method == "full":
        changes.append(Change("method lora", {"method": "lora"}))
    if shape.method != "qlora" and shape.precision == "bf16" and bf16:
        changes.append(Change("method qlora", {"method": "qlora"}))
    if shape.sequence_length >= 512:
        half = shape.sequence_length // 2
        changes.append(Change(f"sequence_length {half}", {"sequence_length": half}))
    if shape.gpus > 1 and shape.sharding == "none":
        changes.append(Change("sharding fsdp", {"sharding": "fsdp"}, shape.gpus))
    counts = [n for n in (2, 4, 8, 16, 32, 64) if n > shape.gpus] if more else []
    return changes + [Change(f"{n} GPUs with fsdp", {"gpus": n, "sharding": "fsdp"}, n) for n in counts[:4]]


def _serving_changes(shape: ServingShape, found: list[Place]) -> list[Change]:
    """Smaller weights, a smaller cache: what is not so already."""
    bf16 = any(place.bf16 for place in found)
    packed = shape.weights in ("fp8", "mxfp4")
    weights: list[str] = []
    if shape.weights == "fp32" or (not bf16 and (packed or shape.weights == "bf16")):
        weights.append("bf16" if bf16 else "fp16")
    if bf16 and shape.weights in ("bf16", "fp16", "fp32"):
        weights.append("fp8")
    if shape.weights in ("bf16", "fp16", "fp32", "fp8", "int8") or (packed and not bf16):
        weights.append("int4")
    changes = [Change(f"weights in {one}", {"weights": one}) for one in weights]
    cache = shape.kv_dtype if shape.kv_dtype == "auto" else dtype_name(shape.kv_dtype)
    fp8 = any(place.fp8 for place in found)
    if (cache == "bf16" and not bf16) or (cache == "fp8" and not fp8):
        changes.append(Change("kv-dtype auto", {"kv_dtype": "auto"}))
    if fp8 and cache not in ("fp8", "int8", "int4"):
        changes.append(Change("the cache in fp8", {"kv_dtype": "fp8"}))
    if shape.context > 2048:
        changes.append(Change(f"context {shape.context // 2}", {"context": shape.context // 2}))
    if shape.concurrency > 1:
        half = shape.concurrency // 2
        changes.append(Change(f"concurrency {half}", {"concurrency": half}))
    return changes
