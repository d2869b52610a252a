"""What to change where a training does not fit: the field as it is typed, with a value that fits."""

from __future__ import annotations

from goldpath.accelerators.fitting import gib
from goldpath.training.placing import TrainingPlacement
from goldpath.training.specs import SearchSpec, TrainSpec

Change = tuple[str, TrainSpec, int]
"""What to say, the training that it gives, and trials at once."""
_SHORTEST = 32
"""Tokens; what TrainSpec allows."""


def way_out(
    placement: TrainingPlacement, searched: SearchSpec, room: int, *, device: str, precision: str
) -> str:
    """The first single change that fits, else those that fit together, else what the least would need.

    Args:
        placement: what does not fit.
        searched: the search; a field that it varies is limited there.
        room: bytes that it may use.
        device: cuda or cpu.
        precision: what it computes in there where the training leaves that open.
    """
    train = placement.train
    computed = " in fp32" if precision == "fp32" != train.precision else ""

    def need(other: TrainSpec, trials: int) -> int:
        return placement.instead(other, trials).need(device, precision)

    cuda_bf16 = device == "cuda" and "fp32" not in (train.precision, precision)
    for change, other, trials in _changes(placement, searched, qlora=cuda_bf16):
        if (needed := need(other, trials)) <= room:
            return f"{change}: that needs {gib(needed)}{computed}."
    for least in _least(train, qlora=cuda_bf16):
        told = _differences(placement, searched, least)
        if (needed := need(least, 1)) <= room and told:
            *first, last = told
            return (
                f"Set {', '.join(first)}{' and ' if first else ''}{last}: that needs {gib(needed)}{computed}."
            )
    return (
        "Choose a smaller model: even one short chat with gradient_checkpointing "
        f"needs {gib(needed)}{computed}."
    )


def _least(train: TrainSpec, *, qlora: bool) -> list[TrainSpec]:
    """The training with one chat at a time and checkpointing: shorter and shorter, then by another method."""
    lengths = [train.sequence_length, *_halves(train.sequence_length, _SHORTEST)]
    methods = ["full", "lora"] if train.method == "full" else [train.method]
    if qlora and train.method != "qlora" and train.cluster.sharding == "none":
        methods.append("qlora")
    return [
        train.model_copy(
            update={
                "batch_size": 1,
                "gradient_checkpointing": True,
                "sequence_length": length,
                "method": method,
            }
        )
        for method in methods
        for length in lengths
    ]


def _differences(placement: TrainingPlacement, searched: SearchSpec, least: TrainSpec) -> list[str]:
    """The fields that are not so already, as they are typed."""
    train, fields = placement.train, "overrides.fine_tune"
    told = ["overrides.tune.parallel_trials to 1"] if placement.at_once > 1 else []
    if train.batch_size > 1:
        limited = "batch_size in overrides.tune.parameters" if _batch_varies(searched) else ""
        told.append(f"{limited or f'{fields}.batch_size'} to 1")
    if not train.gradient_checkpointing:
        told.append(f"{fields}.gradient_checkpointing to true")
    if least.sequence_length != train.sequence_length:
        told.append(f"{fields}.sequence_length to {least.sequence_length}")
    return told + ([f"method to {least.method}"] if least.method != train.method else [])


def _batch_varies(searched: SearchSpec) -> bool:
    return bool(searched.max_trials) and any(one.name == "batch_size" for one in searched.parameters)


def _changes(placement: TrainingPlacement, searched: SearchSpec, *, qlora: bool) -> list[Change]:
    """Single changes of what is not so already: first those that are only slower, then those that train less.

    A sequence is cut to a quarter at most: what is left of longer chats would teach little.
    """
    train, at_once = placement.train, placement.at_once
    varied = _batch_varies(searched)
    batch = (
        "Limit batch_size in overrides.tune.parameters" if varied else "Set overrides.fine_tune.batch_size"
    )
    length = "Set overrides.fine_tune.sequence_length"
    fields = "Set in overrides.fine_tune processes"

    def other(**values: object) -> TrainSpec:
        return train.model_copy(update=values)

    changes: list[Change] = [("Set overrides.tune.parallel_trials to 1", train, 1)] if at_once > 1 else []
    changes += [(f"{batch} to {n}", other(batch_size=n), at_once) for n in _halves(train.batch_size, 1)]
    if not train.gradient_checkpointing:
        told = "Set overrides.fine_tune.gradient_checkpointing to true"
        changes.append((told, other(gradient_checkpointing=True), at_once))
    changes += [
        (f"{length} to {n}", other(sequence_length=n), at_once)
        for n in _halves(train.sequence_length, _SHORTEST)[:2]
    ]
    if not placement.local and train.method != "qlora" and train.cluster.sharding == "none":
        shared = train.cluster.model_copy(update={"sharding": "fsdp"})
        changes += [
            (f"{fields} to {n} and cluster.sharding to fsdp", other(processes=n, cluster=shared), at_once)
            for n in (2, 4, 8)
            if n > train.processes
        ]
    if train.method == "full":
        changes.append(("Set method to lora", other(method="lora"), at_once))
    if qlora and train.method != "qlora" and train.cluster.sharding == "none":
        changes.append(("Set method to qlora", other(method="qlora"), at_once))
    return changes


def _halves(number: int, least: int) -> list[int]:
    """A half, a quarter and so on, down to `least`."""
    found = []
    while number // 2 >= least:
        number //= 2
        found.append(number)
    return found
