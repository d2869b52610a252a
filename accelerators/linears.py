"""The linear layers of a model by their sizes: what LoRA adapts and what is held in 4 bits."""

from __future__ import annotations

import functools
from typing import NamedTuple

from goldpath.accelerators.architecture import Architecture, Layer

FUSED_ATTENTION = {"phi3", "gpt2", "gpt_neox", "falcon", "gpt_bigcode"}
"""Families with one projection to queries, keys and values together."""
FUSED_MLP = {"phi3"}
"""Families with one projection to gate and up together."""
UNADAPTED_EXPERTS = {"gpt_oss", "llama4_text"}
"""Families whose experts never were linear layers: PEFT's `all-linear` leaves them alone."""


class Linear(NamedTuple):
    """One linear layer."""

    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        """Elements of its matrix."""
        return self.inputs * self.outputs


def linears(architecture: Architecture, layer: Layer) -> list[Linear]:
    """The `nn.Linear` modules of a layer: what a 4-bit base holds in 4 bits.

    Experts and their routers are stacked parameters in transformers 5, which bitsandbytes leaves alone. A Mamba or
    linear-attention layer's projections are not known one by one: its weights count as two matrices, and the estimate
    says that it was assumed.
    """
    hidden = architecture.hidden_size
    return [*_mixer(architecture, layer, hidden), *_feed_forward(architecture, layer, hidden)]


def _mixer(architecture: Architecture, layer: Layer, hidden: int) -> list[Linear]:
    if layer.kind == "mla":
        return _latent(layer, hidden)
    if not layer.heads:
        inner = layer.mixer_parameters // (3 * hidden)
        return [Linear(hidden, 2 * inner), Linear(inner, hidden)] if inner else []
    queries, values = layer.heads * layer.head_dim, layer.heads * layer.value_dim
    key, value = layer.kv_heads * layer.head_dim, layer.kv_heads * layer.value_dim
    if architecture.model_type in FUSED_ATTENTION:
        return [Linear(hidden, queries + key + value), Linear(values, hidden)]
    return [Linear(hidden, queries), Linear(hidden, key), Linear(hidden, value), Linear(values, hidden)]


def _latent(layer: Layer, hidden: int) -> list[Linear]:
    """Multi-head latent attention (arXiv 2405.04434): the queries' rank follows from the weights of the block."""
    rank, rope = layer.kv_lora_rank, layer.qk_rope_head_dim
    queries, values = layer.heads * layer.head_dim, layer.heads * layer.value_dim
    keys = layer.heads * (layer.head_dim - rope)
    rest = [Linear(hidden, rank + rope), Linear(rank, keys + values), Linear(values, hidden)]
    left = layer.mixer_parameters - hidden - rank - sum(one.weights for one in rest)
    if left == hidden * queries:
        return [Linear(hidden, queries), *rest]
    query_rank = left // (hidden + 1 + queries)
    return [Linear(hidden, query_rank), Linear(query_rank, queries), *rest]


def latent(layer: Layer, hidden: int) -> list[Linear]:
    """The projections to the latent vectors of multi-head latent attention: of queries, and of keys and values."""
    queries = layer.heads * layer.head_dim
    return [one for one in _latent(layer, hidden) if one.inputs == hidden and one.outputs != queries]


def _feed_forward(architecture: Architecture, layer: Layer, hidden: int) -> list[Linear]:
    width = layer.shared_intermediate_size if layer.feed_forward == "moe" else layer.intermediate_size
    if layer.feed_forward == "none" or not width:
        return []
    if not gated(architecture, layer):
        return [Linear(hidden, width), Linear(width, hidden)]
    if architecture.model_type in FUSED_MLP:
        return [Linear(hidden, 2 * width), Linear(width, hidden)]
    return [Linear(hidden, width), Linear(hidden, width), Linear(width, hidden)]


def gated(architecture: Architecture, layer: Layer) -> bool:
    """Whether the MLP has a gate: its weights are those of three matrices, not two."""
    if layer.feed_forward != "dense":
        return True
    return layer.feed_forward_parameters >= 3 * architecture.hidden_size * layer.intermediate_size


@functools.lru_cache(maxsize=64)  # the walk through a training's layers asks at each of them
def adapter_parameters(architecture: Architecture, rank: int) -> int:
    """Trainable weights of LoRA on everything linear but the output head (arXiv 2106.09685, section 4.1).

    A matrix of `outputs` x `inputs` gets A of `rank` x `inputs` and B of `outputs` x `rank`.
    """
    return sum(layer_adapters(architecture, layer, rank) for layer in architecture.layers)


def layer_adapters(architecture: Architecture, layer: Layer, rank: int) -> int:
    """Trainable weights of LoRA in one layer."""
    adapted = adapted_linears(architecture, layer)
    return sum(rank * (one.inputs + one.outputs) for one in adapted) + _expert_adapters(
        architecture, layer, rank
    )


def adapted_linears(architecture: Architecture, layer: Layer) -> list[Linear]:
    """The linear layers that get an adapter: all, or in a model with adapted experts those of attention alone."""
    if _adapts_experts(architecture):
        return _mixer(architecture, layer, architecture.hidden_size)
    return linears(architecture, layer)


def _adapts_experts(architecture: Architecture) -> bool:
    """PEFT 0.21 adapts stacked experts of the families whose experts were once linear layers, and their router.

    In exchange it drops the names gate_proj, up_proj and down_proj: dense and shared MLPs get no adapter.
    """
    return architecture.model_type not in UNADAPTED_EXPERTS and architecture.has_experts


def _expert_adapters(architecture: Architecture, layer: Layer, rank: int) -> int:
    """Gate and up are stacked in one parameter, which gets twice the rank."""
    if not layer.experts or not _adapts_experts(architecture):
        return 0
    hidden, width = architecture.hidden_size, layer.intermediate_size
    each = 2 * rank * (hidden + 2 * width) + rank * (width + hidden)
    return layer.experts * each + rank * (hidden + layer.experts)


def linear_weights(architecture: Architecture) -> int:
    """Elements of all matrices that a 4-bit base holds in 4 bits."""
    return sum(one.weights for layer in architecture.layers for one in linears(architecture, layer))


def count_linears(architecture: Architecture) -> int:
    """How many linear layers there are."""
    return sum(len(linears(architecture, layer)) for layer in architecture.layers)
