"""The memory of serving a model with vLLM on a GPU: weights, and what is left for the KV cache.

vLLM takes `gpu_memory_utilization` of a GPU's memory. It loads the weights, runs one batch of the largest size to see
what activations need, and gives the rest to the KV cache in blocks of 16 tokens (arXiv 2309.06180). What activations
and CUDA graphs take is an allowance here, stated with each constant; the cache is what vLLM's own formula asks for.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.kv_cache import KvCache, dtype_name, kv_cache
from goldpath.accelerators.serving_weights import gpu_weight_bytes
from goldpath.core.errors import SpecError
from goldpath.core.spec import Result, Spec

MIB = 1024**2
BLOCK = 16
"""Tokens in a block of the cache."""
CONTEXT_BYTES = 600 * MIB
"""An allowance for CUDA's context, cuBLAS and, among several GPUs, NCCL: not PyTorch's, but inside vLLM's share.

It logs `non_torch_memory` of 0.33 and 0.39 GiB on two GPUs (vllm-project/vllm issues 14452 and 11251)."""
GRAPH_BYTES = 800 * MIB
"""An allowance for CUDA graphs of the batch sizes that vLLM captures by default.

It logs 0.21 GiB for a model of 1 B (vllm-project/vllm pull request 11349) and estimates 0.36 GiB in another log
(gpustack/runner pull request 251); vLLM 0.5 took 2.4 GiB for one of 34 B (issue 7553), beside its share."""
SAMPLER_SEQUENCES = 256
"""Sequences whose logits are sampled at once (`max_num_seqs`)."""


class ServingShape(Spec):
    """How a model is served on each GPU."""

    weights: Literal["bf16", "fp16", "fp32", "fp8", "int8", "int4", "nf4", "mxfp4"] = "bf16"
    """Of the layers' matrices (mxfp4: of the experts'); the rest stays in 16 bits when they are quantised."""
    kv_dtype: str = "auto"
    """As in `kv_cache.DTYPES`; `auto`: 16 bits, or fp32 with fp32 weights."""
    context: Annotated[int, Field(ge=1, le=16_777_216)] = 8192
    """Tokens of a sequence, prompt and answer together."""
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Sequences at once, all of that length."""
    tensor_parallel: Annotated[int, Field(ge=1, le=1_024)] = 1
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """vLLM's `gpu_memory_utilization`: its share of the GPU's memory."""
    batched_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 8192
    """Tokens in a forward pass (`max_num_batched_tokens`)."""
    cuda_graphs: bool = True
    """False: `--enforce-eager`."""


class ServingMemory(Result):
    """What one GPU needs; bytes."""

    weights: int
    activations: int
    framework: int
    """CUDA context and graphs."""
    kv_cache: int
    """For `concurrency` sequences of `context` tokens."""
    kv_dtype: str
    bytes_per_token: int
    """Of the cache, once windows are full."""
    utilization: float
    assumed: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """What vLLM's share must hold."""
        return self.weights + self.activations + self.framework + self.kv_cache

    @property
    def gpu_bytes(self) -> int:
        """The memory that a GPU must have for that share."""
        return -(-self.total * 1_000_000 // round(self.utilization * 1_000_000))

    @property
    def components(self) -> dict[str, int]:
        """The components by name, in the order of a stacked bar."""
        names = ("weights", "kv_cache", "activations", "framework")
        return {name: getattr(self, name) for name in names}

    @property
    def largest(self) -> str:
        """The component that takes most."""
        return max(self.components, key=lambda name: self.components[name])


class Capacity(Result):
    """What a GPU can hold beside the weights."""

    kv_bytes: int
    """For the cache; 0 where not even the weights fit."""
    kv_tokens: int
    """Tokens of sequences of the asked length, in whole blocks."""
    longest_context: int
    """Tokens of a single sequence, at most what the model has positions for."""
    concurrent_sequences: int
    """Sequences of the asked length."""


def estimate(architecture: Architecture, shape: ServingShape) -> ServingMemory:
    """What one of `tensor_parallel` GPUs needs.

    Raises:
        SpecError: the context is longer than the model's positions, an unknown dtype, or heads that cannot be shared
            among the GPUs.
    """
    if architecture.max_positions and shape.context > architecture.max_positions:
        raise SpecError(
            f"context is {shape.context} and {architecture.name} has {architecture.max_positions} positions",
            f"Give a context of at most {architecture.max_positions}.",
        )
    dtype = _kv_dtype(architecture, shape)
    cache = kv_cache(architecture, shape.context, dtype, shape.tensor_parallel)
    return ServingMemory(
        weights=gpu_weight_bytes(architecture, shape.weights, shape.tensor_parallel),
        activations=_activations(architecture, shape),
        framework=CONTEXT_BYTES + (GRAPH_BYTES if shape.cuda_graphs else 0),
        kv_cache=shape.concurrency * _sequence_bytes(cache, shape.batched_tokens),
        kv_dtype=dtype,
        bytes_per_token=cache.bytes_per_token,
        utilization=shape.utilization,
        assumed=architecture.assumed,
    )


def capacity(architecture: Architecture, shape: ServingShape, gpu_bytes: int) -> Capacity:
    """What fits beside the weights on a GPU of `gpu_bytes`."""
    needed = estimate(architecture, shape)
    room = int(gpu_bytes * shape.utilization) - needed.total + needed.kv_cache
    if room <= 0:
        return Capacity(kv_bytes=0, kv_tokens=0, longest_context=0, concurrent_sequences=0)
    one = needed.kv_cache // shape.concurrency
    sequences = room // one if one else SAMPLER_SEQUENCES
    left = room - sequences * one
    tokens = sequences * shape.context + (left // needed.bytes_per_token if needed.bytes_per_token else 0)
    return Capacity(
        kv_bytes=room,
        kv_tokens=tokens // BLOCK * BLOCK,
        longest_context=_longest(architecture, shape, room),
        concurrent_sequences=sequences,
    )


def _kv_dtype(architecture: Architecture, shape: ServingShape) -> str:
    if shape.kv_dtype != "auto":
        return dtype_name(shape.kv_dtype, architecture)
    return shape.weights if shape.weights in ("bf16", "fp16", "fp32") else "bf16"


def _sequence_bytes(cache: KvCache, batched_tokens: int) -> int:
    """Bytes that vLLM wants for one sequence, in whole blocks: `max_memory_usage_bytes` in its kv_cache_interface.

    A layer with a window holds more than it sees: the tokens that are computed at once besides, and a block because a
    window need not begin where a block does.
    """
    total = 0
    for group in cache.groups:
        tokens, more = cache.tokens, 0
        if group.kind == "sliding":
            tokens, more = min(group.window - 1 + batched_tokens, tokens), 1
        elif group.kind == "chunked":
            tokens = min(group.window + batched_tokens, tokens)
        elif group.kind not in ("full", "mla"):
            tokens = 0
        total += (-(-tokens // BLOCK) + more) * BLOCK * group.bytes_per_token + group.state_bytes
    return total


def _activations(architecture: Architecture, shape: ServingShape) -> int:
    """Hidden states, the widest feed-forward block and the logits of one batch: they are freed layer by layer."""
    size = 4 if shape.weights == "fp32" else 2
    wide = 3 * architecture.intermediate_size // shape.tensor_parallel
    queries = max((layer.heads * layer.head_dim for layer in architecture.layers), default=0)
    hidden = 4 * architecture.hidden_size + 3 * queries // shape.tensor_parallel
    logits = min(SAMPLER_SEQUENCES, shape.batched_tokens) * architecture.vocab_size * 2 * 4
    return shape.batched_tokens * (wide + hidden) * size + logits


def _longest(architecture: Architecture, shape: ServingShape, room: int) -> int:
    """The longest single sequence in `room` bytes, in whole blocks."""
    dtype = _kv_dtype(architecture, shape)

    def fits(tokens: int) -> bool:
        cache = kv_cache(architecture, tokens, dtype, shape.tensor_parallel)
        return _sequence_bytes(cache, shape.batched_tokens) <= room

    most = architecture.max_positions or 2**24
    if fits(most):
        return most
    low, high = 0, most // BLOCK  # in blocks; `high` does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * BLOCK) else (low, middle)
    return low * BLOCK
