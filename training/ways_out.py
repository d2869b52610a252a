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
    for told, other, trials in _changes(placement, searched, cuda=device == "cuda"):
        if (need := placement.instead(other, trials).need(device, precision)) <= room:
            return f"{told}: that needs {gib(need)}."
    least = train.model_copy(update={"batch_size": 1, "gradient_checkpointing": True})
    where = "overrides.fine_tune" + (" (and parallel_trials of tune to 1)" if placement.at_once > 1 else "")
    for length in [train.sequence_length, *_halves(train.sequence_length, _SHORTEST)]:
        need = placement.instead(least.model_copy(update={"sequence_length": length}), 1).need(
            device, precision
        )
        if need <= room:
            return (
                f"Set in {where} batch_size to 1, gradient_checkpointing to true and sequence_length to {length}: "
                f"that needs {gib(need)}."
            )
    return f"Choose a smaller model: even one short chat with gradient_checkpointing needs {gib(need)}."


def _changes(placement: TrainingPlacement, searched: SearchSpec, *, cuda: bool) -> list[Change]:
    """Single changes: first those that are only slower, then those that train something else.

    A sequence is cut to a quarter at most: what is left of longer chats would teach little.
    """
    train, at_once = placement.train, placement.at_once
    varied = {one.name for one in searched.parameters} if searched.max_trials else set()
    batch = "Limit batch_size in overrides.tune.parameters" if "batch_size" in varied else ""
    batch = batch or "Set overrides.fine_tune.batch_size"
    length = "Set overrides.fine_tune.sequence_length"

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
    if train.method == "full":
        changes.append(("Set method to lora", other(method="lora"), at_once))
    if cuda and train.method != "qlora" and train.precision != "fp32":
        changes.append(("Set method to qlora", other(method="qlora"), at_once))
    return changes


def _halves(number: int, least: int) -> list[int]:
    """A half, a quarter and so on, down to `least`."""
    found = []
    while number // 2 >= least:
        number //= 2
        found.append(number)
    return found
