"""What a model's weights take when vLLM serves it, by their type, and what of them each of several GPUs holds."""

from __future__ import annotations

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.layers import Layer
from goldpath.accelerators.linears import latent
from goldpath.core.errors import SpecError

WEIGHTS = ("bf16", "fp16", "fp32", "fp8", "int8", "int4", "nf4", "mxfp4")
_PLAIN = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes of a weight that is not quantised."""
_GROUP = 128
"""Weights that share a scale and a zero point in 4 bits (AWQ and GPTQ)."""


def weight_bytes(architecture: Architecture, dtype: str) -> int:
    """Bytes of all weights.

    fp8 and int8 take a byte in the layers (their scales are one a matrix, a row or a tile of 128 x 128); int4 half a
    byte, and for each 128 a scale in 16 bits and a zero point in 4 (arXiv 2306.00978); nf4 half a byte, and for each
    64 a constant in fp32 (arXiv 2305.14314, without double quantisation, bitsandbytes' default); mxfp4 half a byte in
    the experts alone, and for each 32 a scale of a byte (OCP Microscaling Formats 1.0; gpt-oss). Norms, routers, all
    that is outside the layers and a tower for images stay in 16 bits.

    Raises:
        SpecError: an unknown dtype.
    """
    if dtype not in WEIGHTS:
        raise SpecError(f"dtype is {dtype!r}", f"Use one of {', '.join(WEIGHTS)}.")
    weights = architecture.parameters + (architecture.tower.parameters if architecture.tower else 0)
    small = sum(_quantised(architecture, layer, dtype) for layer in architecture.layers)
    return _small_bytes(small, dtype) + _PLAIN.get(dtype, 2) * (weights - small)


def gpu_weight_bytes(architecture: Architecture, dtype: str, tensor_parallel: int) -> int:
    """Bytes on each of `tensor_parallel` GPUs: a share of the weights, and copies of what vLLM does not divide.

    Each GPU has norms and routers whole, the projections to latent vectors (MLA), and a key-value head of its own where
    there are fewer heads than GPUs.
    """
    whole = weight_bytes(architecture, dtype)
    if tensor_parallel == 1:
        return whole
    plain, small = architecture.hidden_size, 0
    more_heads = 0.0
    for layer in architecture.layers:
        plain += _norms_and_router(architecture, layer)
        if layer.kind == "mla":
            small += sum(one.weights for one in latent(layer, architecture.hidden_size))
        elif 0 < layer.kv_heads < tensor_parallel:
            head = architecture.hidden_size * (layer.head_dim + layer.value_dim)
            more_heads += head * (1 - layer.kv_heads / tensor_parallel)
    copied = _PLAIN.get(dtype, 2) * plain + _small_bytes(small, dtype)
    return copied + -(-(whole - copied) // tensor_parallel) + _small_bytes(int(more_heads), dtype)


def _quantised(architecture: Architecture, layer: Layer, dtype: str) -> int:
    """Weights of a layer that are held in `dtype` where that is not a plain type."""
    if dtype in _PLAIN:
        return 0
    if dtype == "mxfp4":
        return 3 * layer.experts * architecture.hidden_size * layer.intermediate_size
    return max(0, layer.parameters - _norms_and_router(architecture, layer))


def _norms_and_router(architecture: Architecture, layer: Layer) -> int:
    return architecture.hidden_size * (2 + layer.experts)


def _small_bytes(weights: int, dtype: str) -> int:
    if dtype in ("fp8", "int8"):
        return weights
    if dtype == "int4":
        return weights // 2 + -(-weights // _GROUP) * 5 // 2
    if dtype == "nf4":
        return weights // 2 + 4 * -(-weights // 64)
    if dtype == "mxfp4":
        return weights // 2 + -(-weights // 32)
    return _PLAIN[dtype] * weights
