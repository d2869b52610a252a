"""Plain decoders: attention and a feed-forward block in every layer, dense or with experts.

The weights are those of the models in transformers 5.23 (`transformers/models/<model_type>/modeling_*.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from goldpath.accelerators.families import windows
from goldpath.accelerators.families.experts import Block, no_experts
from goldpath.accelerators.families.parts import Blueprint, Heads, attention, mlp, outside, read_heads
from goldpath.accelerators.fields import Fields
from goldpath.accelerators.layers import Kind, Layer


@dataclass(frozen=True)
class Decoder:
    """How a family differs from Llama."""

    windows: Callable[[Fields, int], list[tuple[Kind, int]]] = windows.from_config
    """Kind and window of each layer."""
    block: Callable[[Fields, int], Block | None] = no_experts
    """The feed-forward block with experts of a layer, None where it is a dense one."""
    heads: Callable[[Fields], Heads] = read_heads
    bias: bool | None = None
    """Of the projections to queries, keys and values; None: `attention_bias`."""
    out_bias: bool | None = None
    """Of the projection back; None: `attention_bias`."""
    mlp_bias: bool | None = None
    """None: `mlp_bias`."""
    gated: bool = True
    qk_norm: bool = False
    """A norm over each head of queries and of keys."""
    sinks: bool = False
    """One learned number a head (gpt-oss)."""
    norms: int = 2
    """Norms a layer."""
    norm_bias: bool = False
    positions: bool = False
    """Learned positions."""
    tied: bool = False
    """Where the config does not say."""
    dense_width: str = "intermediate_size"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What the configs on the hub leave out."""


def build(family: Decoder, fields: Fields) -> Blueprint:
    """The blueprint of a plain decoder."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    vocab, sizes = fields.size("vocab_size"), family.heads(fields)
    norm = hidden * (2 if family.norm_bias else 1)
    mixer = _mixer(family, fields, hidden, sizes) + family.norms * norm // 2
    layers = []
    for index, (kind, window) in enumerate(family.windows(fields, count)):
        block = family.block(fields, index) or _dense(family, fields, hidden)
        layers.append(
            Layer(
                kind=kind,
                heads=sizes.heads,
                kv_heads=sizes.kv_heads,
                head_dim=sizes.head_dim,
                value_dim=sizes.head_dim,
                window=window,
                mixer_parameters=mixer,
                **block.plus(family.norms * norm - family.norms * norm // 2),
            )
        )
    tied = fields.flag("tie_word_embeddings", family.tied)
    positions = fields.size("max_position_embeddings", least=0, default=0)
    learned = positions if family.positions else 0
    return Blueprint(
        hidden,
        sizes.heads,
        vocab,
        layers,
        tied,
        positions,
        outside(hidden, vocab, tied=tied, norm=norm, positions=learned),
    )


def _mixer(family: Decoder, fields: Fields, hidden: int, sizes: Heads) -> int:
    given = fields.flag("attention_bias")
    bias = given if family.bias is None else family.bias
    out_bias = given if family.out_bias is None else family.out_bias
    extra = (2 * sizes.head_dim if family.qk_norm else 0) + (sizes.heads if family.sinks else 0)
    return attention(hidden, sizes, bias=bias, out_bias=out_bias) + extra


def _dense(family: Decoder, fields: Fields, hidden: int) -> Block:
    width = fields.size(family.dense_width, default=None if family.gated else 4 * hidden)
    bias = fields.flag("mlp_bias") if family.mlp_bias is None else family.mlp_bias
    return Block.dense(width, mlp(hidden, width, gated=family.gated, bias=bias))


def build_falcon(fields: Fields) -> Blueprint:
    """Falcon: parallel attention, so one norm a layer, or two of its new architecture; biases by `bias`."""
    new = fields.flag("new_decoder_architecture")
    norms = 2 if new or not fields.flag("parallel_attn", True) else 1
    if (given := fields.optional("num_ln_in_parallel_attn")) is not None and norms == 2 and new:
        norms = given
    bias = fields.flag("bias")
    family = Decoder(
        heads=_falcon_heads,
        bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        gated=False,
        norms=norms,
        norm_bias=True,
        tied=True,
        dense_width="ffn_hidden_size",
    )
    return build(family, fields)


def _falcon_heads(fields: Fields) -> Heads:
    one = fields.flag("multi_query", True) and not fields.flag("new_decoder_architecture")
    return read_heads(fields.replaced(num_key_value_heads=1) if one else fields)


def build_bigcode(fields: Fields) -> Blueprint:
    """GPT-BigCode (StarCoder): GPT-2 with one key-value head where `multi_query` says so."""
    kv_heads = 1 if fields.flag("multi_query", True) else fields.size("num_attention_heads")
    return build(GPT2, fields.replaced(num_key_value_heads=kv_heads))


GPT2 = Decoder(
    bias=True, out_bias=True, mlp_bias=True, gated=False, norm_bias=True, positions=True, tied=True
)
