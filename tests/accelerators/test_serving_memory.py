"""Serving memory: exact weights, what is left for the cache, and the limits of contexts and concurrency."""

from __future__ import annotations

import math

import pytest

from goldpath.accelerators import models, plan, serving_memory
from goldpath.accelerators.architecture import from_config
from goldpath.accelerators.catalogue import find
from goldpath.accelerators.kv_cache import kv_cache
from goldpath.accelerators.serving_memory import ServingShape
from goldpath.core.errors import SpecError

LLAMA = models.load("Llama-3.1-8B")
GIB = 2**30


def shape(**given) -> ServingShape:
    return ServingShape.parse(given)


def test_the_cache_of_what_is_asked_for_is_exact():
    found = serving_memory.estimate(LLAMA, shape(context=8192, concurrency=4))
    assert found.kv_cache == 4 * 8192 * 131_072
    assert serving_memory.estimate(LLAMA, shape(context=8192, kv_dtype="fp8")).kv_cache == 8192 * 65_536
    assert serving_memory.estimate(LLAMA, shape(context=8191)).kv_cache == 8192 * 131_072  # whole blocks


def test_what_the_weights_leave_of_an_a100_is_the_caches():
    """0.9 of 79 GiB, less 15 GiB of weights and some GiB of allowances."""
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
    assert found.kv_cache < whole / 2


VLLM = {
    # model: layers with a window and all tokens, the window, bytes of a token in one layer; chunked or sliding
    "Gemma-3-27B": (52, 10, 1024, 2 * 16 * 128 * 2, "sliding"),
    "Gemma-3-12B": (40, 8, 1024, 2 * 8 * 256 * 2, "sliding"),
    "gpt-oss-20b": (12, 12, 128, 2 * 8 * 64 * 2, "sliding"),
    "Llama-4-Scout": (36, 12, 8192, 2 * 8 * 128 * 2, "chunked"),
}
SCOUT = {
    **{"model_type": "llama4_text", "hidden_size": 5120, "intermediate_size": 8192, "vocab_size": 202_048},
    **{"num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128},
    **{"intermediate_size_mlp": 16_384, "num_local_experts": 16, "attention_chunk_size": 8192},
    "max_position_embeddings": 10_485_760,
}


def vllm_bytes(name: str, context: int, batched: int) -> int:
    """`max_memory_usage_bytes` of all layers, as vllm/v1/kv_cache_interface.py has it, with blocks of 16 tokens."""
    windowed, full, window, size, kind = VLLM[name]
    held = min(window - 1 + batched, context) if kind == "sliding" else min(window + batched, context)
    blocks = math.ceil(held / 16) + (1 if kind == "sliding" else 0)
    return 16 * size * (windowed * blocks + full * math.ceil(context / 16))


@pytest.mark.parametrize("name", VLLM)
@pytest.mark.parametrize(
    ("context", "batched"), [(100, 8192), (16_384, 8192), (32_768, 2048), (32_768, 8192)]
)
def test_the_cache_is_what_vllm_asks_for(name, context, batched):
    model = from_config(SCOUT, name) if name == "Llama-4-Scout" else models.load(name)
    asked = shape(context=context, batched_tokens=batched, concurrency=3)
    assert serving_memory.estimate(model, asked).kv_cache == 3 * vllm_bytes(name, context, batched)


def test_the_longest_context_is_one_that_vllm_starts_with():
    """It demands room for one whole sequence, the prefill's tokens in windows with it."""
    gemma = models.load("Gemma-3-27B")
    found = serving_memory.capacity(gemma, shape(utilization=0.8), find("A100-80GB").usable_bytes)
    assert 1024 < found.longest_context < 131_072
    assert vllm_bytes("Gemma-3-27B", found.longest_context, 8192) <= found.kv_bytes
    assert vllm_bytes("Gemma-3-27B", found.longest_context + 16, 8192) > found.kv_bytes


def test_a_window_that_vllm_fills_while_it_reads_does_not_fit_where_it_only_just_would():
    """Gemma 3 12B with 16k in 3/8 of an H200: 30.0 of 32.5 GiB with windows alone, 32.8 with what is read at once."""
    made = plan.serve(models.load("Gemma-3-12B"), shape(context=16_384), "H200")
    assert not next(row for row in made.rows if row.request == "mig:2g.35gb").fits


def test_what_does_not_hold_the_weights_holds_nothing():
    found = serving_memory.capacity(LLAMA, shape(), find("T4").usable_bytes)
    assert found.kv_bytes == found.kv_tokens == found.longest_context == found.concurrent_sequences == 0


def test_tensor_parallel_shares_weights_and_heads():
    one, four = (serving_memory.estimate(LLAMA, shape(tensor_parallel=n)) for n in (1, 4))
    norms = 2 * (32 * 2 * 4096 + 4096)  # each has them whole
    assert four.weights == norms + (one.weights - norms) // 4
    assert four.kv_cache == one.kv_cache // 4
    assert four.framework == one.framework


def test_a_smaller_share_of_the_gpu_needs_a_larger_gpu():
    half = serving_memory.estimate(LLAMA, shape(utilization=0.45))
    assert half.gpu_bytes == pytest.approx(2 * serving_memory.estimate(LLAMA, shape()).gpu_bytes, abs=2)
    assert serving_memory.estimate(LLAMA, shape(cuda_graphs=False)).framework < half.framework


@pytest.mark.parametrize(
    ("issue", "gib", "graphs"),
    [
        ("vllm-project/vllm issue 11251: non_torch_memory takes 0.39GiB", 0.39, False),
        ("vllm-project/vllm issue 14452: non_torch_memory takes 0.33GiB", 0.33, False),
        (
            "vllm-project/vllm pull request 11349: Graph capturing took 0.21 GiB, and a context",
            0.21 + 0.39,
            True,
        ),
        (
            "gpustack/runner pull request 251: Estimated CUDA graph memory 0.36 GiB, and a context",
            0.36 + 0.39,
            True,
        ),
    ],
)
def test_the_allowances_hold_what_vllm_logs(issue, gib, graphs):
    assert serving_memory.estimate(LLAMA, shape(cuda_graphs=graphs)).framework > gib * GIB, issue


def test_mistakes_are_named():
    with pytest.raises(SpecError, match=r"context is 131073 and .*131072 positions"):
        serving_memory.estimate(LLAMA, shape(context=131_073))
    with pytest.raises(SpecError, match=r"utilization is 1.5"):
        shape(utilization=1.5)
    with pytest.raises(SpecError, match="dtype is 'fp7'"):
        serving_memory.estimate(LLAMA, shape(kv_dtype="fp7"))
