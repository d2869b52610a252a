"""What all families share: the blueprint that they return, and the weights of common blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from goldpath.accelerators.fields import Fields
from goldpath.accelerators.layers import Layer


@dataclass
class Blueprint:
    """What a family makes of a config."""

    hidden_size: int
    attention_heads: int
    """0 where there is no attention."""
    vocab_size: int
    layers: list[Layer]
    tied: bool
    max_positions: int
    """0: the config sets no limit."""
    outside_parameters: int
    """Embeddings, learned positions, the last norm and the output head."""
    assumed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Heads:
    """Sizes of an attention block."""

    heads: int
    kv_heads: int
    head_dim: int


def read_heads(fields: Fields) -> Heads:
    """Heads, key-value heads and head dimension; without the last two, as many as heads, and hidden / heads.

    Raises:
        ModelError: the heads are not a multiple of the key-value heads; hidden / heads leaves a rest.
    """
    heads = fields.size("num_attention_heads")
    kv_heads = fields.size("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise fields.wrong(
            "num_key_value_heads", f"is {kv_heads}", f"a divisor of num_attention_heads = {heads}"
        )
    head_dim = fields.optional("head_dim")
    if head_dim is None:
        hidden = fields.size("hidden_size")
        if hidden % heads:
            raise fields.wrong(
                "num_attention_heads",
                f"is {heads}",
                f"a divisor of hidden_size = {hidden}, or a head_dim beside it",
            )
        head_dim = hidden // heads
    return Heads(heads, kv_heads, head_dim)


def linear(inputs: int, outputs: int, bias: bool = False) -> int:
    """Weights of a linear layer."""
    return inputs * outputs + (outputs if bias else 0)


def attention(hidden: int, sizes: Heads, *, bias: bool = False, out_bias: bool = False) -> int:
    """Weights of the four projections of an attention block."""
    query, key = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    return linear(hidden, query, bias) + 2 * linear(hidden, key, bias) + linear(query, hidden, out_bias)


def mlp(hidden: int, width: int, *, gated: bool = True, bias: bool = False) -> int:
    """Weights of a feed-forward block: up, down and, where it is gated, gate."""
    ups = 2 if gated else 1
    return ups * linear(hidden, width, bias) + linear(width, hidden, bias)


def outside(hidden: int, vocab: int, *, tied: bool, norm: int, positions: int = 0) -> int:
    """Weights outside the layers: embeddings, learned positions, the last norm, the head unless it is tied."""
    return vocab * hidden * (1 if tied else 2) + positions * hidden + norm
