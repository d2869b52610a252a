"""What autograd keeps of a layer for the backward pass, counted tensor by tensor.

Korthikanti et al. (arXiv 2205.05198, section 4.1) count a GPT layer as s*b*h*(34 + 5*a*s/h) bytes in 16 bits. The
layers of today differ: no dropout, a gated MLP, norms in fp32, fewer keys than queries, attention that is fused. So we
count what PyTorch 2.13 saves for each operation of transformers' own layers; `saved_tensors_hooks` lists the same
tensors, and `benchmarks/bench_training_memory.py` compares the sums.

T: tokens in a batch; h: hidden size; q, k, v: elements of all heads' queries, keys, values; f: width of the MLP.
"""

from __future__ import annotations

from goldpath.accelerators.architecture import Architecture, Layer
from goldpath.accelerators.linears import (
    FUSED_ATTENTION,
    FUSED_MLP,
    adapted_linears,
    gated,
    layer_adapters,
    linears,
)
from goldpath.accelerators.training_shape import TrainingShape

QK_NORMS = {"qwen3", "qwen3_moe", "gemma3_text"}
"""Families that normalise each head of queries and keys."""
FOUR_NORMS = {"gemma2", "gemma3_text"}
"""Families with a norm before and after each block."""
LAYER_NORMS = {"gpt2", "gpt_neox", "falcon", "gpt_bigcode"}
"""Families with LayerNorm, of which only the input and two numbers a token are kept."""
GELU_BY_HAND = {"gpt2"}
"""Families whose activation function is written out in Python: every intermediate result is kept."""
DROPOUT = {"gpt2", "gpt_bigcode"}
"""Families that drop out by default: attention is not fused on a CPU then, and keeps its probabilities."""


def saved(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    """Bytes that are kept of one layer without gradient checkpointing."""
    per_token = (
        _norms(architecture, shape)
        + _mixer(architecture, layer, shape)
        + _feed_forward(architecture, layer, shape)
        + _low_rank(architecture, layer, shape)
    )
    return shape.tokens * per_token + _copies(architecture, layer, shape)


def norm(architecture: Architecture, shape: TrainingShape) -> int:
    """Bytes a token that one norm keeps: its input in fp32, the reciprocal root, and what its weight multiplied."""
    hidden = architecture.hidden_size
    if architecture.model_type in LAYER_NORMS:
        return shape.stored_bytes * hidden + 8
    return 4 * hidden + 4 + (shape.stored_bytes * hidden if shape.method == "full" else 0)


def _norms(architecture: Architecture, shape: TrainingShape) -> int:
    return (4 if architecture.model_type in FOUR_NORMS else 2) * norm(architecture, shape)


def _inputs(size: int, readers: int, shape: TrainingShape, shared: bool = False) -> int:
    """Bytes a token for the input of `readers` linear layers that read the same `size` elements.

    Args:
        size: elements.
        readers: linear layers.
        shape: of the run.
        shared: the input is a tensor that is kept anyway, in the type of computation.
    """
    if shape.copies_adapter_inputs:
        return readers * size * shape.adapter_input_bytes
    if shape.autocast and not shared:
        return readers * size * 2  # cast once for each reader
    return 0 if shared else size * shape.compute_bytes


def _mixer(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    if layer.kind == "mla":
        return _latent(architecture, layer, shape)
    if not layer.heads:
        return _state(architecture, layer, shape)
    hidden, size = architecture.hidden_size, shape.compute_bytes
    queries, keys = layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
    values, out = layer.kv_heads * layer.value_dim, layer.heads * layer.value_dim
    readers = 1 if architecture.model_type in FUSED_ATTENTION else 3
    bytes_ = _inputs(hidden, readers, shape) + _inputs(out, 1, shape, shared=True)
    if architecture.model_type in FUSED_ATTENTION:
        # Values are a view of the projection's output, which stays whole.
        bytes_ += size * (hidden if layer.kv_heads != layer.heads else queries + keys)
    if architecture.model_type in DROPOUT:
        bytes_ += layer.heads * shape.sequence_length * (size + 1) + 3 * hidden
    if architecture.model_type in QK_NORMS:
        both = queries + keys
        bytes_ += (
            4 * both + 4 * (layer.heads + layer.kv_heads) + (size * both if shape.method == "full" else 0)
        )
    return bytes_ + _attention(layer, shape, (queries, keys, values, out))


def _attention(layer: Layer, shape: TrainingShape, sizes: tuple[int, int, int, int]) -> int:
    """Bytes a token. Fused kernels keep queries, keys, values, the output and a sum a head (arXiv 2205.14135)."""
    queries, keys, values, out = sizes
    size, length = shape.compute_bytes, shape.sequence_length
    masked = shape.masked or (layer.kind in ("sliding", "chunked") and length > layer.window)
    if shape.attention == "flash":
        return size * (queries + keys + values + out) + 4 * layer.heads
    if shape.attention == "eager" or masked:
        keys, values = queries, out  # repeated for each query head
    if shape.attention == "eager":
        # The probabilities in fp32, and once more in the type of computation.
        scores = layer.heads * length * (4 if size == 4 else 4 + size)
        return size * (queries + keys + values) + scores
    mask = length * size if masked else 0  # one row of the mask a token, in the queries' type
    return size * (queries + keys + values + out) + 4 * layer.heads + mask


def _latent(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    """Multi-head latent attention: the low ranks with their norms, then attention over all heads."""
    hidden, full = architecture.hidden_size, shape.method == "full"
    queries, out = layer.heads * layer.head_dim, layer.heads * layer.value_dim
    ranks = layer.kv_lora_rank + sum(one.outputs for one in linears(architecture, layer)[:1])
    norms = ranks * (4 + (shape.compute_bytes if full else 0))
    inputs = _inputs(hidden, 2, shape) + _inputs(ranks, 1, shape) + _inputs(out, 1, shape, shared=True)
    return inputs + norms + _attention(layer, shape, (queries, queries, out, out))


def _state(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    """A Mamba or linear-attention layer: about 14 tensors of its inner width (mamba_ssm's fused kernels keep fewer)."""
    inner = layer.mixer_parameters // (3 * architecture.hidden_size)
    return _inputs(architecture.hidden_size, 1, shape) + 14 * inner * shape.compute_bytes


def _feed_forward(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    if layer.feed_forward == "none":
        return 0
    hidden, width, size = architecture.hidden_size, layer.intermediate_size, shape.compute_bytes
    if layer.feed_forward == "moe":
        used = layer.experts_per_token
        # Each expert's copy of the token, gate and up, the activation, the product, what comes out; the router.
        routed = used * (2 * hidden + 5 * width) * size + layer.experts * (4 + size)
        wide = layer.shared_intermediate_size
        return routed + _inputs(hidden, 1, shape) + 4 * wide * size
    if not gated(architecture, layer):
        inner = 6 if architecture.model_type in GELU_BY_HAND else 1
        return _inputs(hidden, 1, shape) + inner * width * size + _inputs(width, 1, shape)
    readers = 1 if architecture.model_type in FUSED_MLP else 2
    # gate, up, the activated gate; their product is what the last projection reads.
    inner = 3 * width * size
    last = _inputs(width, 1, shape) if shape.copies_adapter_inputs else width * size
    return _inputs(hidden, readers, shape) + inner + last


def _low_rank(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    """Bytes a token for the inputs of LoRA's second matrices."""
    if shape.method == "full":
        return 0
    read = shape.adapter_input_bytes
    return len(adapted_linears(architecture, layer)) * shape.lora_rank * read


def _copies(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    """The bf16 copies of weights that autocast makes and autograd keeps."""
    if shape.autocast:
        return 2 * (
            sum(one.weights for one in linears(architecture, layer)) + _expert_weights(layer, architecture)
        )
    if shape.method == "lora" and shape.adapter_input_bytes == 2:
        return 2 * layer_adapters(architecture, layer, shape.lora_rank)
    return 0


def _expert_weights(layer: Layer, architecture: Architecture) -> int:
    return 3 * layer.experts * architecture.hidden_size * layer.intermediate_size


def working(architecture: Architecture, layer: Layer, shape: TrainingShape) -> int:
    """Bytes that a layer's backward pass needs beside what it kept, at its worst moment.

    In the MLP, the gradients of its three wide tensors while the kept input of the last projection is gone already;
    in attention, the gradients of queries, keys and values.
    """
    size, hidden = shape.compute_bytes, architecture.hidden_size
    stream = hidden * (shape.stored_bytes + size)
    used = max(1, layer.experts_per_token) if layer.feed_forward == "moe" else 1
    wide = 2 * used * layer.intermediate_size * size
    queries = layer.heads * layer.head_dim
    narrow = 4 * queries * size
    if shape.attention == "eager":
        narrow += layer.heads * shape.sequence_length * (4 + 2 * size)
    return shape.tokens * (stream + max(wide, narrow))
