"""Base models: from folders, URIs and packages; kept once; unsafe and unknown ones refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from goldpath.core.errors import GoldpathError, ModelError
from goldpath.core.modelfiles import check_model_folder
from goldpath.training import base_models
from tests.models import make_tiny_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


def test_a_folder_is_kept_once_by_its_content(home: Path, model: Path, tmp_path: Path) -> None:
    (model / "training_args.bin").write_bytes(b"\x80\x04.")
    (model / "modeling_own.py").write_text("raise SystemExit")
    first = base_models.resolve(str(model))
    kept = first.path / "model"
    check_model_folder(kept)
    assert {file.name for file in kept.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert first.result.architecture == "LlamaForCausalLM"
    assert first.result.parameters == 106_816
    elsewhere = model.rename(tmp_path / "moved")
    second = base_models.resolve(elsewhere.as_uri())
    assert second.reused
    assert second.result == first.result.model_copy(update={"source": elsewhere.as_uri()})
    other = base_models.resolve(str(make_tiny_model(tmp_path / "other", seed=1)))
    assert not other.reused
    assert other.result.digest != first.result.digest


def test_a_remote_folder_is_fetched(home: Path, model: Path) -> None:
    remote = fsspec.filesystem("memory")
    remote.put(str(model), "/models/tiny", recursive=True)
    base_models.check("memory://models/tiny")
    found = base_models.resolve("memory://models/tiny")
    assert (found.path / "model/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert base_models.resolve("memory://models/tiny").reused
    remote.rm("/models/tiny/model.safetensors")
    remote.pipe("/models/tiny/pytorch_model.bin", b"\x80\x04.")
    for refused in (base_models.check, base_models.resolve):
        with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle checkpoint"):
            refused("memory://models/tiny")


REFUSED = {
    "unknown package": (
        "package://no-such-model-package",
        "the package no-such-model-package is not installed",
    ),
    "package without a model": ("package://click", "has 0 GGUF files"),
    "no package name": ("package://../x", "names no package"),
    "no folder": ("/no/such/model", "unknown model '/no/such/model'"),
    "nothing": ("  ", "no model is given"),
    "pickle file": ("/no/such/model.pt", "is a pickle checkpoint"),
    "file": (__file__, "is a file"),
    "nothing remote": ("memory://no-such-model", "no-such-model"),
}


@pytest.mark.parametrize(("uri", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(home: Path, uri: str, said: str) -> None:
    for ask in (base_models.check, base_models.resolve):
        with pytest.raises(GoldpathError, match=said) as caught:
            ask(uri)
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "said"), [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer")]
)
def test_a_remote_folder_without_its_parts_is_refused(home: Path, model: Path, name: str, said: str) -> None:
    remote = fsspec.filesystem("memory")
    remote.put(str(model), f"/models/{name}-less", recursive=True)
    remote.rm(f"/models/{name}-less/{name}")
    with pytest.raises(ModelError, match=said):
        base_models.check(f"memory://models/{name}-less")


def test_a_tokenizer_without_a_template_is_refused_and_nothing_kept(home: Path, model: Path) -> None:
    described = model / "tokenizer_config.json"
    described.write_text(described.read_text().replace('"chat_template"', '"unused"'))
    with pytest.raises(ModelError, match="no chat template"):
        base_models.resolve(str(model))
    assert not list(home.rglob("result.json"))


def write_gguf(file: Path, model: Path) -> None:
    """The tiny model as GGUF, in F32, as llama.cpp names things."""
    import json

    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    config = json.loads((model / "config.json").read_text())
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if i < 3 else gguf.TokenType.NORMAL for i in range(len(tokens))]
    )
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(json.loads((model / "tokenizer_config.json").read_text())["chat_template"])
    for name, tensor in load_file(model / "model.safetensors").items():
        writer.add_tensor(gguf_name(name), reorder(name, tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[
            name
        ]
    _, _, layer, *part = name.split(".")
    known = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    return f"blk.{layer}.{known['.'.join(part[:-1])]}.weight"


def reorder(name: str, tensor: np.ndarray) -> np.ndarray:
    """llama.cpp interleaves the halves of each head's query and key rows (rotary embedding)."""
    heads = 4 if "q_proj" in name else 2 if "k_proj" in name else 0
    if not heads:
        return tensor
    rows, columns = tensor.shape
    return np.ascontiguousarray(
        tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


@pytest.fixture
def package(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `tiny-gguf` that ships the tiny model, and cannot be imported."""
    site = tmp_path / "site"
    folder = site / "tiny_gguf"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (site / "tiny_gguf-1.0.dist-info").mkdir()
    (site / "tiny_gguf-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n"
    )
    write_gguf(folder / "tiny.gguf", model)
    monkeypatch.syspath_prepend(site)
    return folder


def test_a_package_is_converted_once_without_importing_it(home: Path, package: Path, model: Path) -> None:
    base_models.check("package://tiny-gguf")
    found = base_models.resolve("package://tiny-gguf")
    kept = found.path / "model"
    check_model_folder(kept)
    assert base_models.resolve("package://tiny-gguf").reused

    from transformers import AutoModelForCausalLM, AutoTokenizer

    converted = AutoModelForCausalLM.from_pretrained(kept)
    assert str(converted.dtype) == "torch.bfloat16"
    wanted = load_file(model / "model.safetensors")
    for name, tensor in converted.state_dict().items():
        if name in wanted:
            np.testing.assert_allclose(
                tensor.float().numpy(), wanted[name], rtol=0.01, atol=1e-6, err_msg=name
            )
    tokenizer = AutoTokenizer.from_pretrained(kept)
    text = "The field replicas of a Pod"
    assert tokenizer(text)["input_ids"] == AutoTokenizer.from_pretrained(model)(text)["input_ids"]
    assert tokenizer.chat_template


def test_a_damaged_package_is_refused(home: Path, package: Path) -> None:
    gguf = package / "tiny.gguf"
    gguf.write_bytes(gguf.read_bytes()[:3000])
    with pytest.raises(ModelError, match=r"tiny\.gguf cannot be converted"):
        base_models.resolve("package://tiny-gguf")
    assert not list(home.rglob("result.json"))
    shutil.copy(gguf, package / "second.gguf")
    with pytest.raises(ModelError, match="has 2 GGUF files"):
        base_models.check("package://tiny-gguf")
