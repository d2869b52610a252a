"""Serving memory: exact weights, what is left for the cache, and the limits of contexts and concurrency."""

from __future__ import annotations

import pytest

from goldpath.accelerators import models, serving_memory
from goldpath.accelerators.catalogue import find
from goldpath.accelerators.kv_cache import kv_cache
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.core.errors import SpecError

LLAMA = models.load("Llama-3.1-8B")
GIB = 2**30


def shape(**given) -> ServingShape:
    return ServingShape.parse(given)


def test_weights_take_the_bytes_of_their_type():
    """8,030,261,248 parameters, of them 1,050,673,152 in the embedding and the output head, and 4,096 in a norm."""
    assert serving_memory.weight_bytes(LLAMA, "bf16") == 2 * 8_030_261_248
    assert serving_memory.weight_bytes(LLAMA, "fp32") == 4 * 8_030_261_248
    inside = 8_030_261_248 - 1_050_673_152 - 4_096
    assert serving_memory.weight_bytes(LLAMA, "fp8") == inside + 2 * (1_050_673_152 + 4_096)
    # AWQ's files of Llama-3.1-8B-Instruct (INT4, groups of 128) hold 5.73 GB.
    assert serving_memory.weight_bytes(LLAMA, "int4") / 1e9 == pytest.approx(5.73, rel=0.01)


def test_the_cache_of_what_is_asked_for_is_exact():
    found = serving_memory.estimate(LLAMA, shape(context=8192, concurrency=4))
    assert found.kv_cache == 4 * 8192 * 131_072
    assert serving_memory.estimate(LLAMA, shape(context=8192, kv_dtype="fp8")).kv_cache == 8192 * 65_536
    assert serving_memory.estimate(LLAMA, shape(context=8191)).kv_cache == 8192 * 131_072  # whole blocks


def test_an_a100_holds_what_vllm_reports():
    """vLLM says about 54 to 56 GiB of cache for Llama-3.1-8B at 0.9 of an A100 80GB: some 440,000 tokens."""
    found = serving_memory.capacity(LLAMA, shape(), find("A100-80GB").usable_bytes)
    assert 50 * GIB < found.kv_bytes < 57 * GIB
    assert found.kv_tokens == pytest.approx(found.kv_bytes / 131_072, abs=16)


def test_capacity_is_what_fits_and_no_more():
    gpu = find("L4").usable_bytes
    wanted = shape(context=4096, concurrency=3)
    found = serving_memory.capacity(LLAMA, wanted, gpu)
    at_once = serving_memory.estimate(
        LLAMA, wanted.model_copy(update={"concurrency": found.concurrent_sequences})
    )
    more = serving_memory.estimate(
        LLAMA, wanted.model_copy(update={"concurrency": found.concurrent_sequences + 1})
    )
    assert at_once.gpu_bytes <= gpu < more.gpu_bytes
    assert kv_cache(LLAMA, found.longest_context, "bf16").bytes_total <= found.kv_bytes
    assert kv_cache(LLAMA, found.longest_context + 16, "bf16").bytes_total > found.kv_bytes


def test_a_large_gpu_is_limited_by_the_models_positions():
    assert serving_memory.capacity(LLAMA, shape(), find("B200").usable_bytes).longest_context == 131_072


def test_a_window_lets_many_more_tokens_in():
    gemma = models.load("Gemma-3-27B")
    found = serving_memory.estimate(gemma, shape(context=32_768))
    whole = 2 * 32_768 * sum(2 * layer.kv_heads * layer.head_dim for layer in gemma.layers)
    assert found.kv_cache < whole / 4


def test_what_does_not_hold_the_weights_holds_nothing():
    found = serving_memory.capacity(LLAMA, shape(), find("T4").usable_bytes)
    assert found.kv_bytes == found.kv_tokens == found.longest_context == found.concurrent_sequences == 0


def test_tensor_parallel_shares_weights_and_heads():
    one, four = (serving_memory.estimate(LLAMA, shape(tensor_parallel=n)) for n in (1, 4))
    assert four.weights == one.weights // 4
    assert four.kv_cache == one.kv_cache // 4
    assert four.framework == one.framework


def test_a_smaller_share_of_the_gpu_needs_a_larger_gpu():
    half = serving_memory.estimate(LLAMA, shape(utilization=0.45))
    assert half.gpu_bytes == pytest.approx(2 * serving_memory.estimate(LLAMA, shape()).gpu_bytes, abs=2)
    assert serving_memory.estimate(LLAMA, shape(cuda_graphs=False)).framework < half.framework


def test_mistakes_are_named():
    with pytest.raises(SpecError, match=r"context is 131073 and .*131072 positions"):
        serving_memory.estimate(LLAMA, shape(context=131_073))
    with pytest.raises(SpecError, match=r"utilization is 1.5"):
        shape(utilization=1.5)
    with pytest.raises(SpecError, match="dtype is 'fp7'"):
        serving_memory.estimate(LLAMA, shape(kv_dtype="fp7"))
