"""Multi-head latent attention: DeepSeek-V2, V3 and R1 (arXiv 2405.04434, section 2.1)."""

from __future__ import annotations

from goldpath.accelerators.families.experts import Block, deepseek
from goldpath.accelerators.families.parts import Blueprint, linear, mlp, outside
from goldpath.accelerators.fields import Fields
from goldpath.accelerators.layers import Layer


def build(fields: Fields) -> Blueprint:
    """One compressed vector of keys and values a token and layer, and one rotated key for all heads."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    vocab, heads = fields.size("vocab_size"), fields.size("num_attention_heads")
    rank, rope = fields.size("kv_lora_rank"), fields.size("qk_rope_head_dim")
    nope, value = fields.size("qk_nope_head_dim"), fields.size("v_head_dim")
    width = fields.size("intermediate_size")
    mlp_bias = fields.flag("mlp_bias")
    mixer = _mixer(fields, hidden, heads) + hidden
    layers = []
    for index in range(count):
        block = deepseek(fields, index) or Block.dense(width, mlp(hidden, width, bias=mlp_bias))
        layers.append(
            Layer(
                kind="mla",
                heads=heads,
                kv_heads=heads,
                head_dim=nope + rope,
                value_dim=value,
                kv_lora_rank=rank,
                qk_rope_head_dim=rope,
                mixer_parameters=mixer,
                **block.plus(hidden),
            )
        )
    tied = fields.flag("tie_word_embeddings")
    positions = fields.size("max_position_embeddings", least=0, default=0)
    return Blueprint(
        hidden, heads, vocab, layers, tied, positions, outside(hidden, vocab, tied=tied, norm=hidden)
    )


def _mixer(fields: Fields, hidden: int, heads: int) -> int:
    bias = fields.flag("attention_bias")
    rank, rope = fields.size("kv_lora_rank"), fields.size("qk_rope_head_dim")
    nope, value = fields.size("qk_nope_head_dim"), fields.size("v_head_dim")
    query_rank = fields.optional("q_lora_rank")
    if query_rank is None:
        query = linear(hidden, heads * (nope + rope))
    else:
        query = linear(hidden, query_rank, bias) + query_rank + linear(query_rank, heads * (nope + rope))
    key_value = linear(hidden, rank + rope, bias) + rank + linear(rank, heads * (nope + value))
    return query + key_value + linear(heads * value, hidden, bias)
