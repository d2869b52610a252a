"""A model's layers as the planners see them: what each one caches, and how many weights it holds."""

from __future__ import annotations

from typing import Literal

from goldpath.core.spec import Result

Kind = Literal["full", "sliding", "chunked", "mla", "state", "none"]
FeedForward = Literal["dense", "moe", "none"]


class StateCache(Result):
    """What a Mamba, linear-attention or convolution layer keeps of a sequence, however long it is.

    Tensor parallelism divides the heads and, as far as there are enough of them, the groups (of B and C in Mamba 2,
    of keys in a gated delta net).
    """

    heads: int
    """Heads; channels where the layer has no heads."""
    groups: int = 0
    """Groups that several heads share."""
    conv_per_head: int
    """Elements of the convolution's state per head: its channels times the kernel's width."""
    conv_per_group: int = 0
    """Elements of the convolution's state per group."""
    recurrent_per_head: int
    """Elements of the recurrent (SSM) state per head."""
    conv_dtype: str = ""
    """As in `kv_cache.DTYPES`; empty: the model computes in it."""
    recurrent_dtype: str = ""
    """As in `kv_cache.DTYPES`; empty: the model computes in it."""

    @property
    def conv_elements(self) -> int:
        """Elements of the convolution's state, per sequence."""
        return self.heads * self.conv_per_head + self.groups * self.conv_per_group

    @property
    def recurrent_elements(self) -> int:
        """Elements of the recurrent state, per sequence."""
        return self.heads * self.recurrent_per_head


class Layer(Result):
    """One decoder layer."""

    kind: Kind
    """`full` attention; `sliding` and `chunked`: at most `window` tokens; `mla`: one latent vector a token for all
    heads; `state`: no attention, only `state`; `none`: caches nothing (no attention, or another layer's cache)."""
    heads: int = 0
    """Query heads."""
    kv_heads: int = 0
    head_dim: int = 0
    """Elements of a key; a query's too."""
    value_dim: int = 0
    """Elements of a value, mostly those of a key."""
    window: int = 0
    """Tokens; only for `sliding` and `chunked`."""
    kv_lora_rank: int = 0
    """Elements of the latent vector; only for `mla`."""
    qk_rope_head_dim: int = 0
    """Elements of the position's part of the key, one for all heads; only for `mla`."""
    state: StateCache | None = None
    """Of a `state` layer; also of a layer in which attention and Mamba stand side by side."""
    feed_forward: FeedForward = "dense"
    intermediate_size: int = 0
    """Width of the MLP, or of one expert."""
    experts: int = 0
    experts_per_token: int = 0
    shared_intermediate_size: int = 0
    """Width of the shared experts together: they see every token."""
    mixer_parameters: int = 0
    """Weights of attention or Mamba with its norms."""
    feed_forward_parameters: int = 0
    """Weights of MLP, router and experts with their norms."""
    idle_parameters: int = 0
    """Weights of the experts that one token does not use."""

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.mixer_parameters + self.feed_forward_parameters

    @property
    def active_parameters(self) -> int:
        """Weights that one token uses."""
        return self.parameters - self.idle_parameters

    @property
    def per_token(self) -> int:
        """Cached elements per token on one GPU without tensor parallelism, while its window is not full."""
        if self.kind == "mla":
            return self.kv_lora_rank + self.qk_rope_head_dim
        return self.kv_heads * (self.head_dim + self.value_dim)
