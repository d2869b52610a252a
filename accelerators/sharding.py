"""Weights, gradients and optimizer states of one GPU, whole or divided among several."""

from __future__ import annotations

from typing import NamedTuple

from goldpath.accelerators.architecture import Architecture, Layer
from goldpath.accelerators.linears import count_linears, linear_weights, linears
from goldpath.accelerators.training_shape import TrainingShape

ZERO_BUCKET = 500_000_000
"""Elements that DeepSpeed reduces at a time (`reduce_bucket_size`)."""
_STAGE = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3, "fsdp-grad-op": 2}


class States(NamedTuple):
    """Bytes on one GPU."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    gathered: int


def states(architecture: Architecture, shape: TrainingShape, trainable: int) -> States:
    """Weights, adapters, gradients and optimizer states of a run, on one GPU."""
    base = base_bytes(architecture, shape)
    idle = _idle_adapters(architecture, shape)
    if shape.sharding == "none":
        return _whole(shape, trainable, base, idle)
    stage, n = _STAGE[shape.sharding], shape.gpus
    deepspeed = shape.sharding.startswith("zero")
    if shape.method == "full":
        # The fp32 weights are the optimizer's; what is computed with is a bf16 copy.
        held = 2 if deepspeed else 0
        weights = trainable * held + (4 * architecture.tower.parameters if architecture.tower else 0)
        adapters, per_gradient, per_optimizer = 0, 2 if deepspeed else 4, 12
    else:
        weights, adapters = base, trainable * shape.adapter_bytes + idle
        per_gradient, per_optimizer = shape.adapter_bytes, 2 * shape.adapter_bytes
        if deepspeed:
            adapters, per_gradient, per_optimizer = trainable * 2 + idle, 2, 12
    gathered = _gathered(architecture, shape, trainable)
    if shape.sharding == "fsdp-grad-op":
        # Each GPU keeps its share beside what it gathers, frozen weights too.
        gathered += _whole_weights(architecture, shape, weights + adapters)
    if stage == 3 or not deepspeed:
        weights, adapters = -(-weights // n), -(-adapters // n)
    gradients = trainable * per_gradient if stage < 2 else -(-trainable * per_gradient // n)
    optimizer = -(-trainable * per_optimizer // n)
    return States(weights, adapters, gradients, optimizer, gathered)


def base_bytes(architecture: Architecture, shape: TrainingShape) -> int:
    """Bytes of the model's own weights, whole."""
    tower = architecture.tower
    held = architecture.parameters + (tower.parameters if tower else 0)
    if shape.method == "qlora":
        quantised = linear_weights(architecture) + (tower.linear_weights if tower else 0)
        matrices = count_linears(architecture) + (len(tower.linears) if tower else 0)
        return nf4_bytes(quantised, matrices) + 2 * (held - quantised)
    return held * (4 if shape.method == "full" else shape.stored_bytes)


def nf4_bytes(weights: int, matrices: int) -> int:
    """A base in 4-bit NormalFloat with double quantisation (arXiv 2305.14314, section 3).

    Half a byte a weight; a constant of 8 bits for each block of 64; a second one of 32 bits for each 256 of those; and
    for each matrix bitsandbytes' two tables of 16 and 256 fp32 values and an offset.
    """
    return weights // 2 + weights // 64 + 4 * (weights // (64 * 256)) + matrices * (4 * (16 + 256) + 4)


def _idle_adapters(architecture: Architecture, shape: TrainingShape) -> int:
    """Bytes of the adapters that a tower for images gets, which text gives no gradient."""
    if shape.method == "full" or architecture.tower is None:
        return 0
    return architecture.tower.adapter_parameters(shape.lora_rank) * shape.adapter_bytes


def _whole(shape: TrainingShape, trainable: int, base: int, idle: int) -> States:
    size = 4 if shape.method == "full" else shape.adapter_bytes
    adapters = 0 if shape.method == "full" else trainable * size + idle
    # Adam's states have the type of the weight. DistributedDataParallel copies gradients into buckets.
    buckets = trainable * size if shape.gpus > 1 else 0
    return States(base, adapters, trainable * size, 2 * trainable * size, buckets)


def _whole_weights(architecture: Architecture, shape: TrainingShape, frozen: int) -> int:
    """Bytes of all weights gathered, from the forward pass to the end of the backward pass."""
    if shape.method != "full":
        return frozen
    tower = architecture.tower.parameters if architecture.tower else 0
    return shape.stored_bytes * (architecture.parameters + tower)


def _gathered(architecture: Architecture, shape: TrainingShape, trainable: int) -> int:
    """What is whole for a moment: two layers (the present one and the next, fetched early), buckets of gradients."""
    largest = max((layer.parameters for layer in architecture.layers), default=0)
    whole_gradients = 2 * largest if shape.method == "full" else 0
    if shape.sharding == "fsdp-grad-op":
        return 2 * whole_gradients
    gradients = 2 * min(trainable, ZERO_BUCKET)
    if shape.sharding in ("zero1", "zero2"):
        return gradients
    layer = max((_layer_bytes(architecture, one, shape) for one in architecture.layers), default=0)
    outer = architecture.vocab_size * architecture.hidden_size * shape.stored_bytes
    return max(2 * layer, layer + outer) + (gradients if shape.sharding == "zero3" else whole_gradients)


def _layer_bytes(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    """Bytes of a layer's weights as they are gathered: on a 4-bit base its linear layers alone have 4 bits."""
    if shape.method != "qlora":
        return layer.parameters * shape.stored_bytes
    small = linears(architecture, layer)
    quantised = sum(one.weights for one in small)
    return nf4_bytes(quantised, len(small)) + 2 * (layer.parameters - quantised)
