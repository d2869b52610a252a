"""The layers that keep a state instead of a cache: Mamba, Mamba 2, gated delta net, short convolution.

Each returns the state and the weights of the mixer. A convolution's state counts the kernel's whole width, as
transformers and the reference implementations keep it; an engine that keeps one column less needs a little less.
The recurrent state is float32: that is what their scans compute and what transformers caches.
"""

from __future__ import annotations

from dataclasses import dataclass

from goldpath.accelerators.families.parts import linear
from goldpath.accelerators.fields import Fields
from goldpath.accelerators.layers import StateCache


@dataclass(frozen=True)
class Mixer:
    """A mixer's state and its weights."""

    state: StateCache
    parameters: int


@dataclass(frozen=True)
class Mamba2Sizes:
    """What a Mamba 2 mixer is made of, under whatever names the family gives them."""

    heads: int
    head_dim: int
    groups: int
    state: int
    kernel: int
    bias: bool
    out_bias: bool
    conv_bias: bool
    gated_norm: bool = True
    recurrent_dtype: str = "fp32"


def mamba1(fields: Fields, hidden: int, *, prefix: str = "", norms: bool = False) -> Mixer:
    """Mamba 1 (arXiv 2312.00752): a state of `state_size` for each of expand * hidden channels.

    Args:
        fields: the config.
        hidden: width of the model.
        prefix: `mamba_` in hybrids, whose fields are named otherwise too.
        norms: whether dt, B and C are normalised (Jamba).
    """
    names = ("d_state", "d_conv", "dt_rank", "proj_bias", "conv_bias")
    plain = ("state_size", "conv_kernel", "time_step_rank", "use_bias", "use_conv_bias")
    state_key, conv_key, rank_key, bias_key, conv_bias_key = (
        tuple(prefix + name for name in names) if prefix else plain
    )
    inner = fields.size(f"{prefix}expand", default=2) * hidden
    state, kernel = fields.size(state_key, default=16), fields.size(conv_key, default=4)
    automatic = fields.get(rank_key, "auto") == "auto"
    rank = -(-hidden // 16) if automatic else fields.size(rank_key)
    bias = fields.flag(bias_key)
    weights = (
        linear(hidden, 2 * inner, bias)
        + inner * kernel
        + (inner if fields.flag(conv_bias_key, True) else 0)
        + linear(inner, rank + 2 * state)
        + linear(rank, inner, True)
        + inner * state
        + inner
        + linear(inner, hidden, bias)
        + (rank + 2 * state if norms else 0)
    )
    cache = StateCache(heads=inner, conv_per_head=kernel, recurrent_per_head=state, recurrent_dtype="fp32")
    return Mixer(cache, weights)


def mamba2(hidden: int, sizes: Mamba2Sizes) -> Mixer:
    """Mamba 2 (arXiv 2405.21060): a state of head_dim x state for each head; B and C are shared in groups."""
    inner = sizes.heads * sizes.head_dim
    conv = inner + 2 * sizes.groups * sizes.state
    weights = (
        linear(hidden, inner + conv + sizes.heads, sizes.bias)
        + conv * sizes.kernel
        + (conv if sizes.conv_bias else 0)
        + 3 * sizes.heads
        + (inner if sizes.gated_norm else 0)
        + linear(inner, hidden, sizes.out_bias)
    )
    cache = StateCache(
        heads=sizes.heads,
        groups=sizes.groups,
        conv_per_head=sizes.head_dim * sizes.kernel,
        conv_per_group=2 * sizes.state * sizes.kernel,
        recurrent_per_head=sizes.head_dim * sizes.state,
        recurrent_dtype=sizes.recurrent_dtype,
    )
    return Mixer(cache, weights)


def mamba2_of_hybrid(fields: Fields, hidden: int) -> Mixer:
    """Mamba 2 under the names of Bamba, Granite 4 and Falcon-H1 (`mamba_n_heads`, `mamba_d_state`, ...).

    Raises:
        ModelError: heads times head dimension is not the inner width.
    """
    inner = fields.optional("mamba_d_ssm") or fields.size("mamba_expand", default=2) * hidden
    heads = fields.size("mamba_n_heads")
    automatic = fields.get("mamba_d_head", "auto") == "auto"
    head_dim = inner // heads if automatic else fields.size("mamba_d_head")
    if heads * head_dim != inner:
        raise fields.wrong("mamba_n_heads", f"is {heads}", f"{inner} / mamba_d_head")
    falcon = fields.get("model_type") == "falcon_h1"
    bias = fields.flag("mamba_proj_bias")
    sizes = Mamba2Sizes(
        heads=heads,
        head_dim=head_dim,
        groups=fields.size("mamba_n_groups", default=1),
        state=fields.size("mamba_d_state"),
        kernel=fields.size("mamba_d_conv", default=4),
        bias=bias,
        out_bias=fields.flag("projectors_bias") if falcon else bias,
        conv_bias=fields.flag("mamba_conv_bias", True),
        gated_norm=fields.flag("mamba_rms_norm") if falcon else True,
    )
    return mamba2(hidden, sizes)


def mamba2_of_nemotron(fields: Fields, hidden: int) -> Mixer:
    """Mamba 2 under the names of Nemotron-H."""
    bias = fields.flag("use_bias")
    sizes = Mamba2Sizes(
        heads=fields.size("mamba_num_heads"),
        head_dim=fields.size("mamba_head_dim"),
        groups=fields.size("n_groups", default=8),
        state=fields.size("ssm_state_size"),
        kernel=fields.size("conv_kernel", default=4),
        bias=bias,
        out_bias=bias,
        conv_bias=fields.flag("use_conv_bias", True),
    )
    return mamba2(hidden, sizes)


def mamba2_plain(fields: Fields, hidden: int) -> Mixer:
    """Mamba 2 under its own names.

    Raises:
        ModelError: heads times head dimension is not expand * hidden.
    """
    inner = fields.size("expand", default=2) * hidden
    head_dim = fields.size("head_dim", default=64)
    heads = fields.size("num_heads")
    if heads * head_dim != inner:
        raise fields.wrong(
            "num_heads", f"is {heads}", f"expand * hidden_size / head_dim = {inner} / {head_dim}"
        )
    bias = fields.flag("use_bias")
    sizes = Mamba2Sizes(
        heads=heads,
        head_dim=head_dim,
        groups=fields.size("n_groups", default=8),
        state=fields.size("state_size", default=128),
        kernel=fields.size("conv_kernel", default=4),
        bias=bias,
        out_bias=bias,
        conv_bias=fields.flag("use_conv_bias", True),
    )
    return mamba2(hidden, sizes)


def delta_net(fields: Fields, hidden: int) -> Mixer:
    """A gated delta net (arXiv 2412.06464): a key_dim x value_dim matrix for each value head (Qwen3-Next)."""
    key_heads, value_heads = fields.size("linear_num_key_heads"), fields.size("linear_num_value_heads")
    key_dim, value_dim = fields.size("linear_key_head_dim"), fields.size("linear_value_head_dim")
    kernel = fields.size("linear_conv_kernel_dim", default=4)
    if value_heads % key_heads:
        raise fields.wrong(
            "linear_num_value_heads", f"is {value_heads}", f"a multiple of linear_num_key_heads = {key_heads}"
        )
    keys, values = key_heads * key_dim, value_heads * value_dim
    weights = (
        linear(hidden, 2 * keys + 2 * values)
        + linear(hidden, 2 * value_heads)
        + (2 * keys + values) * kernel
        + 2 * value_heads
        + value_dim
        + linear(values, hidden)
    )
    cache = StateCache(
        heads=value_heads,
        groups=key_heads,
        conv_per_head=value_dim * kernel,
        conv_per_group=2 * key_dim * kernel,
        recurrent_per_head=key_dim * value_dim,
        recurrent_dtype="fp32",
    )
    return Mixer(cache, weights)


def short_convolution(fields: Fields, hidden: int) -> Mixer:
    """LFM2's gated convolution: no recurrent state."""
    kernel, bias = fields.size("conv_L_cache", default=3), fields.flag("conv_bias")
    weights = (
        linear(hidden, 3 * hidden, bias)
        + hidden * kernel
        + (hidden if bias else 0)
        + linear(hidden, hidden, bias)
    )
    return Mixer(StateCache(heads=hidden, conv_per_head=kernel, recurrent_per_head=0), weights)
