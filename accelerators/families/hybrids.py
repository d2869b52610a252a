"""Models of Mamba or linear layers, alone or with attention between or beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from goldpath.accelerators.families import experts, states
from goldpath.accelerators.families.experts import Block, mixture
from goldpath.accelerators.families.parts import Blueprint, Heads, attention, linear, mlp, outside, read_heads
from goldpath.accelerators.families.states import Mixer
from goldpath.accelerators.fields import Fields
from goldpath.accelerators.layers import Layer

Part = Literal["attention", "state", "both", "feed-forward"]
_PARTS: dict[str, Part] = {
    "full_attention": "attention",
    "attention": "attention",
    "linear_attention": "state",
    "mamba": "state",
    "conv": "state",
}
_NEMOTRON = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}


def _parts(fields: Fields, key: str, count: int) -> list[Part] | None:
    names = fields.names(key, _PARTS, count)
    return None if names is None else [_PARTS[name] for name in names]


def _layer(
    part: Part, sizes: Heads | None, weights: int, mixer: Mixer | None, block: Block, norms: int
) -> Layer:
    """One layer; `norms` are weights, half of them before the mixer."""
    has_attention, has_state = part in ("attention", "both"), part in ("state", "both")
    mixer_weights = (weights if has_attention else 0) + (mixer.parameters if mixer and has_state else 0)
    shape = {}
    if has_attention and sizes:
        shape = {
            "heads": sizes.heads,
            "kv_heads": sizes.kv_heads,
            "head_dim": sizes.head_dim,
            "value_dim": sizes.head_dim,
        }
    return Layer(
        kind="full" if has_attention else "state" if has_state else "none",
        state=mixer.state if mixer and has_state else None,
        mixer_parameters=mixer_weights + norms // 2,
        **shape,
        **block.plus(norms - norms // 2),
    )


def _blueprint(fields: Fields, layers: Sequence[Layer], heads: int, *, tied: bool) -> Blueprint:
    hidden, vocab = fields.size("hidden_size"), fields.size("vocab_size")
    tied = fields.flag("tie_word_embeddings", tied)
    positions = fields.size("max_position_embeddings", least=0, default=0)
    weights = outside(hidden, vocab, tied=tied, norm=hidden)
    return Blueprint(hidden, heads, vocab, list(layers), tied, positions, weights)


def _pure(mixer: Callable[[Fields, int], Mixer], fields: Fields, *, tied: bool) -> Blueprint:
    hidden, count = fields.size("hidden_size"), fields.layers()
    layer = _layer("state", None, 0, mixer(fields, hidden), Block.none(), hidden)
    return _blueprint(fields, [layer] * count, 0, tied=tied)


def build_mamba(fields: Fields) -> Blueprint:
    """Mamba 1: states only."""
    return _pure(states.mamba1, fields, tied=True)


def build_mamba2(fields: Fields) -> Blueprint:
    """Mamba 2: states only."""
    return _pure(states.mamba2_plain, fields, tied=False)


def build_jamba(fields: Fields) -> Blueprint:
    """Jamba (arXiv 2403.19887): Mamba 1 with attention and experts at fixed periods."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    sizes, width = read_heads(fields), fields.size("intermediate_size")
    mixer = states.mamba1(fields, hidden, prefix="mamba_", norms=True)
    every, offset = _period(fields, "attn_layer", 8, 4)
    expert_every, expert_offset = _period(fields, "expert_layer", 2, 1)
    dense = Block.dense(width, mlp(hidden, width))
    many = fields.size("num_local_experts", default=16)
    sparse = dense if many == 1 else mixture(fields.replaced(num_local_experts=many), width)
    layers = []
    for index in range(count):
        part: Part = "attention" if index % every == offset else "state"
        block = sparse if index % expert_every == expert_offset else dense
        layers.append(_layer(part, sizes, attention(hidden, sizes), mixer, block, 2 * hidden))
    return _blueprint(fields, layers, sizes.heads, tied=False)


def _period(fields: Fields, stem: str, period: int, offset: int) -> tuple[int, int]:
    every = fields.size(f"{stem}_period", default=period)
    first = fields.size(f"{stem}_offset", least=0, default=offset)
    if first >= every:
        raise fields.wrong(f"{stem}_offset", f"is {first}", f"less than {stem}_period = {every}")
    return every, first


def build_bamba(fields: Fields) -> Blueprint:
    """Bamba: Mamba 2, with attention in the layers of `attn_layer_indices`."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    attended = fields.indices("attn_layer_indices", count)
    listed = _parts(fields, "layer_types", count)
    parts = listed or ["attention" if index in attended else "state" for index in range(count)]
    return _interleaved(fields, parts, states.mamba2_of_hybrid(fields, hidden), _bamba_block)


def _bamba_block(fields: Fields, hidden: int) -> Block:
    width = fields.size("intermediate_size")
    return Block.dense(width, mlp(hidden, width, bias=fields.flag("mlp_bias")))


def build_granite(fields: Fields) -> Blueprint:
    """Granite 4: Mamba 2 and attention as `layer_types` says, with experts or, where it counts none, an MLP."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    parts = _parts(fields, "layer_types", count) or _parts(fields, "layers_block_type", count)
    parts = parts or ["state"] * count
    mixer = states.mamba2_of_hybrid(fields, hidden) if "state" in parts else None
    return _interleaved(fields, parts, mixer, _granite_block)


def _granite_block(fields: Fields, hidden: int) -> Block:
    shared = fields.size("shared_intermediate_size")
    if not fields.size("num_local_experts", least=0, default=0):
        return Block.dense(shared, mlp(hidden, shared))
    return mixture(fields, fields.size("intermediate_size"), shared=shared)


def _interleaved(
    fields: Fields,
    parts: Sequence[Part],
    mixer: Mixer | None,
    block: Callable[[Fields, int], Block],
) -> Blueprint:
    hidden, sizes = fields.size("hidden_size"), read_heads(fields)
    bias = fields.flag("attention_bias")
    weights = attention(hidden, sizes, bias=bias, out_bias=bias)
    each = block(fields, hidden)
    layers = [_layer(part, sizes, weights, mixer, each, 2 * hidden) for part in parts]
    return _blueprint(fields, layers, sizes.heads, tied=False)


def build_falcon_h1(fields: Fields) -> Blueprint:
    """Falcon-H1: attention and Mamba 2 side by side in every layer."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    parts: list[Part] = ["both"] * count
    return _interleaved(fields, parts, states.mamba2_of_hybrid(fields, hidden), _bamba_block)


def build_nemotron(fields: Fields) -> Blueprint:
    """Nemotron-H: each layer is Mamba 2, attention, an MLP or experts, and nothing else."""
    pattern = fields.get("hybrid_override_pattern")
    names = fields.get("layers_block_type") or fields.get("layer_types")
    if names is None and isinstance(pattern, str) and set(pattern) <= set(_NEMOTRON):
        names = [_NEMOTRON[sign] for sign in pattern]
    allowed = {**_PARTS, "moe": "feed-forward", "mlp": "feed-forward"}
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) and name in allowed for name in names)
        or not names
    ):
        raise fields.wrong(
            "layers_block_type", "is missing or has another name", f"{', '.join(allowed)}, one for each layer"
        )
    count = fields.optional("num_hidden_layers")
    if count is not None and count != len(names):
        raise fields.wrong(
            "num_hidden_layers", f"is {count}", f"{len(names)}, as many as layers_block_type has"
        )
    hidden, sizes = fields.size("hidden_size"), read_heads(fields)
    mixer = states.mamba2_of_nemotron(fields, hidden)
    layers = []
    for name in names:
        part = allowed[name]
        block = _nemotron_block(fields, hidden, name) if part == "feed-forward" else Block.none()
        layers.append(_layer(part, sizes, attention(hidden, sizes), mixer, block, hidden))
    return _blueprint(fields, layers, sizes.heads, tied=False)


def _nemotron_block(fields: Fields, hidden: int, name: str) -> Block:
    bias = fields.flag("mlp_bias")
    if name == "mlp":
        width = fields.size("intermediate_size")
        return Block.dense(width, mlp(hidden, width, gated=False, bias=bias))
    width, shared = fields.size("moe_intermediate_size"), fields.size("moe_shared_expert_intermediate_size")
    latent = fields.optional("moe_latent_size")
    extra = mlp(hidden, shared, gated=False, bias=bias)
    if latent is not None:
        extra += linear(hidden, latent, bias) + linear(latent, hidden, bias)
    block = mixture(fields, width, expert=2 * width * (latent or hidden), extra=extra)
    return Block(**{**vars(block), "shared_intermediate_size": shared})


def build_qwen3_next(fields: Fields) -> Blueprint:
    """Qwen3-Next: a gated delta net, every fourth layer gated attention instead, and many small experts."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    sizes, mixer = read_heads(fields), states.delta_net(fields, hidden)
    every = fields.size("full_attention_interval", default=4)
    parts: list[Part] = ["state" if (index + 1) % every else "attention" for index in range(count)]
    parts = _parts(fields, "layer_types", count) or parts
    bias = fields.flag("attention_bias")
    gate = linear(hidden, sizes.heads * sizes.head_dim, bias)
    weights = attention(hidden, sizes, bias=bias, out_bias=bias) + gate + 2 * sizes.head_dim
    layers = []
    for index, part in enumerate(parts):
        block = experts.qwen2_moe(fields, index) or _bamba_block(fields, hidden)
        layers.append(_layer(part, sizes, weights, mixer, block, 2 * hidden))
    return _blueprint(fields, layers, sizes.heads, tied=False)


def build_lfm2(fields: Fields) -> Blueprint:
    """LFM2: short convolutions with attention between them."""
    hidden, count = fields.size("hidden_size"), fields.layers()
    attended = fields.indices("full_attn_idxs", count)
    listed = _parts(fields, "layer_types", count)
    parts = listed or ["attention" if index in attended else "state" for index in range(count)]
    sizes, mixer = read_heads(fields), states.short_convolution(fields, hidden)
    weights = attention(hidden, sizes) + 2 * sizes.head_dim
    width = _lfm2_width(fields)
    block = Block.dense(width, mlp(hidden, width))
    layers = [_layer(part, sizes, weights, mixer, block, 2 * hidden) for part in parts]
    return _blueprint(fields, layers, sizes.heads, tied=fields.flag("tie_embedding", True))


def _lfm2_width(fields: Fields) -> int:
    width = fields.optional("block_ff_dim") or fields.size("intermediate_size")
    if not fields.flag("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    factor = fields.get("block_ffn_dim_multiplier", 1.0)
    if isinstance(factor, int | float) and factor > 0:
        unit = fields.size("block_multiple_of", default=256)
        width = unit * -(-int(factor * width) // unit)
    return width
