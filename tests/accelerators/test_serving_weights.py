"""The bytes of weights: by their type, as published, and on each of several GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from goldpath.accelerators import models
from goldpath.accelerators.architecture import from_config
from goldpath.accelerators.serving_weights import gpu_weight_bytes, weight_bytes
from goldpath.accelerators.training_memory import estimate
from goldpath.accelerators.training_shape import TrainingShape
from goldpath.cli.main import cli
from goldpath.core.errors import ModelError, SpecError
from tests.accelerators import tiny

LLAMA = models.load("Llama-3.1-8B")
DEEPSEEK = models.load("DeepSeek-V3")
GIB = 2**30


def test_weights_take_the_bytes_of_their_type() -> None:
    """8,030,261,248 parameters: 1,050,673,152 in the embedding and the output head, 266,240 in norms."""
    assert weight_bytes(LLAMA, "bf16") == 2 * 8_030_261_248
    assert weight_bytes(LLAMA, "fp32") == 4 * 8_030_261_248
    plain = 1_050_673_152 + 266_240
    inside = 8_030_261_248 - plain
    assert weight_bytes(LLAMA, "fp8") == weight_bytes(LLAMA, "int8") == inside + 2 * plain
    # 4 bits a weight, and for each 128 a scale of 16 bits and a zero point of 4.
    assert weight_bytes(LLAMA, "int4") == inside // 2 + inside // 128 * 5 // 2 + 2 * plain
    assert weight_bytes(LLAMA, "nf4") == inside // 2 + inside // 64 * 4 + 2 * plain
    with pytest.raises(SpecError, match="dtype is 'fp7'"):
        weight_bytes(LLAMA, "fp7")


@pytest.mark.parametrize(
    ("name", "size"), [("gpt-oss-20b", 13_761_264_768), ("gpt-oss-120b", 65_248_815_744)]
)
def test_gpt_oss_takes_the_bytes_that_are_published(name: str, size: int) -> None:
    """`total_size` in the index of its safetensors on the hub."""
    found = models.load(name)
    assert found.stored == "mxfp4"
    assert weight_bytes(found, "mxfp4") == size


def test_deepseek_is_published_in_fp8() -> None:
    assert DEEPSEEK.stored == models.load("DeepSeek-R1").stored == "fp8"
    assert DEEPSEEK.dtype == "bf16"  # what it computes in, and caches
    assert weight_bytes(DEEPSEEK, DEEPSEEK.stored) == pytest.approx(671e9, rel=0.005)


def test_what_is_not_divided_is_on_every_gpu() -> None:
    """61 layers of DeepSeek-V3 with projections of 7168 to 1536 and to 576, norms, and 58 routers of 256 experts."""
    whole, one_of_8 = weight_bytes(DEEPSEEK, "fp8"), gpu_weight_bytes(DEEPSEEK, "fp8", 8)
    latent = 61 * 7168 * (1536 + 576)
    copied = latent + 2 * (61 * 2 * 7168 + 7168 + 58 * 256 * 7168)
    assert one_of_8 == pytest.approx(copied + (whole - copied) / 8, abs=1)
    assert one_of_8 - whole / 8 > 0.75 * GIB
    assert gpu_weight_bytes(DEEPSEEK, "fp8", 1) == whole


def test_a_gpu_has_a_key_value_head_of_its_own_where_heads_are_fewer() -> None:
    """vLLM copies the 2 heads of this model to each of 8 GPUs."""
    found = from_config(tiny.raw("llama-head-dim"), "it")
    norms = 2 * (4 * 2 * 64 + 64)
    shared = (weight_bytes(found, "bf16") - norms) / 8
    one_head = 2 * 2 * 64 * 24
    assert gpu_weight_bytes(found, "bf16", 8) == pytest.approx(
        norms + shared + 4 * (one_head - 2 * one_head / 8), abs=1
    )


QUANTISED: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.layers.3.mlp.gate"]}, "fp8"),
    ({"quant_method": "fbgemm_fp8"}, "fp8"),
    ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, "mxfp4"),
    ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4"),
    ({"quant_method": "gptq", "bits": 8}, "int8"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4"),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
    ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
    (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            "ignore": ["lm_head"],
        },
        "fp8",
    ),
]


@pytest.mark.parametrize(("given", "stored"), QUANTISED)
def test_a_config_says_what_its_weights_are_stored_in(given: dict[str, Any], stored: str) -> None:
    raw = {**tiny.raw("llama-gqa"), "quantization_config": given}
    found = from_config(raw, "it")
    assert (found.stored, found.dtype, found.assumed) == (stored, "bf16", ())
    towers = {"text_config": tiny.raw("gemma3"), "quantization_config": given}
    assert from_config(towers, "it").stored == stored
    assert any(f"published in {stored}" in note for note in estimate(found, TrainingShape()).assumed)


@pytest.mark.parametrize(
    ("given", "stored", "says"),
    [
        ({"quant_method": "quip"}, "bf16", "quantization_config has quip, which is not read"),
        ({"quant_method": "gptq", "bits": 3}, "bf16", "has gptq, which is not read"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "bf16", "compressed-tensors"),
        ({}, "bf16", "no quant_method"),
        (
            {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.self_attn.q_proj"]},
            "fp8",
            r"leaves model\.layers\.0\.self_attn\.q_proj and the like in 16 bits: weights take more",
        ),
    ],
)
def test_what_is_not_read_is_said(given: dict[str, Any], stored: str, says: str) -> None:
    import re

    found = from_config({**tiny.raw("llama-gqa"), "quantization_config": given}, "it")
    assert found.stored == stored
    assert re.search(says, found.assumed[0])


def test_a_quantization_that_is_no_object_is_refused() -> None:
    with pytest.raises(ModelError, match="config of it: quantization_config is no object"):
        from_config({**tiny.raw("llama-gqa"), "quantization_config": "fp8"}, "it")


def test_auto_serves_a_model_as_it_is_published() -> None:
    """gpt-oss-20b was made to be served on one GPU of 16 GB; in bf16 it would need 39 GiB for weights alone."""
    words = ["plan", "serve", "--model", "gpt-oss-20b", "--gpu", "A100-40GB"]
    done = CliRunner().invoke(cli, words)
    assert "20.91 B in mxfp4" in done.output
    assert "weights 12.82 GiB" in done.output
    assert "weights 38.96 GiB" in CliRunner().invoke(cli, [*words, "--dtype", "bf16"]).output
