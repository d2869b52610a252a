"""Feed-forward blocks with experts: Mixtral, Qwen3-MoE, gpt-oss, Llama 4, DeepSeek and the hybrids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from goldpath.accelerators.families.parts import linear, mlp
from goldpath.accelerators.fields import Fields
from goldpath.accelerators.layers import FeedForward


@dataclass(frozen=True)
class Block:
    """A feed-forward block, by the names of `Layer`."""

    feed_forward: FeedForward
    intermediate_size: int
    feed_forward_parameters: int
    experts: int = 0
    experts_per_token: int = 0
    shared_intermediate_size: int = 0
    idle_parameters: int = 0

    @classmethod
    def dense(cls, width: int, parameters: int) -> Block:
        """An MLP that every token uses."""
        return cls("dense", width, parameters)

    @classmethod
    def none(cls) -> Block:
        """No feed-forward block."""
        return cls("none", 0, 0)

    def plus(self, norms: int) -> dict[str, Any]:
        """Fields for `Layer`, with the weights of norms added."""
        values = dict(vars(self))
        values["feed_forward_parameters"] += norms
        return values


def mixture(
    fields: Fields,
    width: int,
    *,
    expert: int | None = None,
    shared: int = 0,
    router_bias: bool = False,
    extra: int = 0,
) -> Block:
    """A block of equal experts behind a router.

    Args:
        fields: the config; `num_local_experts` (or its aliases) and `num_experts_per_tok`.
        width: of one expert.
        expert: weights of one expert; by default a gated MLP without biases.
        shared: width of the shared experts together.
        router_bias: whether the router has biases.
        extra: other weights that every token uses.
    """
    hidden = fields.size("hidden_size")
    experts = fields.size("num_local_experts")
    used = fields.size("num_experts_per_tok")
    if used > experts:
        raise fields.wrong("num_experts_per_tok", f"is {used}", f"at most the number of experts, {experts}")
    each = mlp(hidden, width) if expert is None else expert
    fixed = linear(hidden, experts, router_bias) + (mlp(hidden, shared) if shared else 0) + extra
    return Block("moe", width, fixed + experts * each, experts, used, shared, (experts - used) * each)


_FIRST = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
"""Of an unknown family: layers without experts at the beginning, where both have a width of their own."""
_SHARED_WIDTH = ("shared_expert_intermediate_size", "shared_intermediate_size")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def no_experts(fields: Fields, index: int) -> Block | None:
    """Every layer is dense."""
    return None


def mixtral(fields: Fields, index: int) -> Block | None:
    """Every layer has experts."""
    return mixture(fields, fields.size("intermediate_size"))


def gpt_oss(fields: Fields, index: int) -> Block | None:
    """Every layer has experts, with biases everywhere."""
    hidden, width = fields.size("hidden_size"), fields.size("intermediate_size")
    return mixture(fields, width, expert=mlp(hidden, width, bias=True), router_bias=True)


def qwen3_moe(fields: Fields, index: int) -> Block | None:
    """Experts in every `decoder_sparse_step`-th layer that is not in `mlp_only_layers`."""
    if not _sparse(fields, index):
        return None
    return mixture(fields, fields.size("moe_intermediate_size"))


def qwen2_moe(fields: Fields, index: int) -> Block | None:
    """As `qwen3_moe`, with a shared expert behind a gate of its own (Qwen3-Next too)."""
    if not _sparse(fields, index):
        return None
    shared = fields.size("shared_expert_intermediate_size")
    return mixture(
        fields, fields.size("moe_intermediate_size"), shared=shared, extra=fields.size("hidden_size")
    )


def _sparse(fields: Fields, index: int) -> bool:
    dense = fields.indices("mlp_only_layers", fields.layers())
    step = fields.size("decoder_sparse_step", default=1)
    return index not in dense and fields.size("num_local_experts", least=0) > 0 and (index + 1) % step == 0


def llama4(fields: Fields, index: int) -> Block | None:
    """Experts and one shared expert in every `interleave_moe_layer_step`-th layer."""
    step = fields.size("interleave_moe_layer_step", default=1)
    listed = fields.indices("moe_layers", fields.layers())
    chosen = index in listed if fields.get("moe_layers") is not None else (index + 1) % step == 0
    width = fields.size("intermediate_size")
    return mixture(fields, width, shared=width) if chosen else None


def deepseek(fields: Fields, index: int) -> Block | None:
    """Experts and shared experts after the first `first_k_dense_replace` layers."""
    if fields.get("num_local_experts") is None or index < fields.size(
        "first_k_dense_replace", least=0, default=0
    ):
        return None
    width = fields.size("moe_intermediate_size")
    shared = width * fields.size("n_shared_experts", least=0, default=0)
    return mixture(fields, width, shared=shared)


def guessed(fields: Fields, index: int) -> Block | None:
    """Experts, shared ones with them, where an unknown config counts some, as far as it says in which layers."""
    if not fields.get("num_local_experts") or not _sparse(fields, index):
        return None
    width = fields.optional("moe_intermediate_size")
    first = max(fields.size(key, least=0, default=0) for key in _FIRST)
    if width is None:
        width = fields.size("intermediate_size")
    elif index < first:
        return None
    wide = max(fields.size(key, least=0, default=0) for key in _SHARED_WIDTH)
    shared = wide or width * max(fields.size(key, least=0, default=0) for key in _SHARED)
    return mixture(fields, width, shared=shared, extra=fields.size("hidden_size") if shared else 0)
