"""The formula against the tensors that transformers caches: models of random weights, run for real."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from goldpath.accelerators.architecture import from_config
from goldpath.accelerators.kv_cache import kv_cache
from tests.accelerators import tiny

WINDOW = 16
EXPANDED = {"falcon-new": 4}
"""transformers caches a key and a value for each query head of this one; the architecture needs one for each group."""


def tensors(cache: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor | None] = []
    for layer in cache.layers:
        found += [getattr(layer, "keys", None), getattr(layer, "values", None)]
        for states in ("conv_states", "recurrent_states"):
            found += (getattr(layer, states, None) or {}).values()
    return [tensor for tensor in found if tensor is not None]


def run(name: str, tokens: int, dtype: torch.dtype, sequences: int = 1) -> Any:
    """The cache after a prompt of all but one token, and one token more."""
    model = tiny.model(name, "cpu", dtype)
    ids = torch.randint(3, 300, (sequences, tokens), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = model(ids[:, :-1], use_cache=True)
        old = "cache_params" if hasattr(first, "cache_params") else "past_key_values"
        return model(ids[:, -1:], use_cache=True, **{old: first[old]})[old]


def short_by_one_token(name: str, tokens: int, dtype: str) -> int:
    """Bytes by which transformers 5.23 holds less: of a full window it keeps all but the oldest token, which the
    next token no longer sees. An engine's window holds it while the token itself is computed."""
    found = kv_cache(from_config(tiny.raw(name), name), tokens, dtype)
    return sum(group.bytes_per_token for group in found.groups if group.window and tokens >= group.window)


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_bytes_are_those_of_the_cache(name: str) -> None:
    tokens = 40  # past every window, and more than a convolution's kernel
    held = sum(tensor.nbytes for tensor in tensors(run(name, tokens, torch.bfloat16)))
    needed = kv_cache(from_config(tiny.raw(name), name), tokens, "bf16")
    assert held == (needed.bytes_total - short_by_one_token(name, tokens, "bf16")) * EXPANDED.get(name, 1)


@pytest.mark.parametrize(
    "name", ["gemma3", "gpt_oss", "llama4", "qwen2-window", "jamba", "qwen3_next", "falcon_h1"]
)
@pytest.mark.parametrize(("tokens", "dtype"), [(WINDOW - 4, torch.float32), (WINDOW, torch.bfloat16)])
def test_bytes_before_and_at_the_windows_end(name: str, tokens: int, dtype: torch.dtype) -> None:
    text = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    held = sum(tensor.nbytes for tensor in tensors(run(name, tokens, dtype, sequences=2)))
    needed = kv_cache(from_config(tiny.raw(name), name), tokens, text, sequences=2)
    assert held == needed.bytes_total - 2 * short_by_one_token(name, tokens, text)


def test_the_latent_cache_is_one_vector_for_all_heads() -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors(run("deepseek_v3", 20, torch.float32))}
    assert shapes == {(1, 1, 20, 24), (1, 1, 20, 8)}  # kv_lora_rank and qk_rope_head_dim


def test_recurrent_states_are_float32_and_convolutions_are_not() -> None:
    states = [tensor for tensor in tensors(run("bamba", 20, torch.bfloat16)) if tensor.dtype == torch.float32]
    assert [tuple(tensor.shape) for tensor in states] == [(1, 8, 16, 12)] * 3  # heads, head_dim, state
    state = from_config(tiny.raw("bamba"), "it").layers[0].state
    assert state is not None
    assert (state.recurrent_elements, state.conv_elements) == (8 * 16 * 12, (128 + 2 * 2 * 12) * 4)
