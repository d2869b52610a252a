"""Model folders: whole ones pass, each kind of damage is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from goldpath.core.errors import ModelError
from goldpath.core.modelfiles import INDEX, check_model_folder, count_parameters, positions, read_header
from tests.models import make_tiny_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


def rewrite_header(file: Path, change: Callable[[dict[str, dict[str, object]]], None]) -> None:
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    fresh = json.dumps(header).encode()
    file.write_bytes(len(fresh).to_bytes(8, "little") + fresh + raw[8 + length :])


def shift(header: dict[str, dict[str, object]]) -> None:
    header["model.norm.weight"]["data_offsets"] = [0, 256]


def grow(header: dict[str, dict[str, object]]) -> None:
    header["model.norm.weight"]["shape"] = [65]


def forget(header: dict[str, dict[str, object]]) -> None:
    del header["model.norm.weight"]["data_offsets"]


def only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
    "config not an object": (lambda f: (f / "config.json").write_text("[]"), "is not a JSON object"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), r"no \*\.safetensors"),
    "pickle": (only_pickle, "pytorch_model.bin is a pickle checkpoint"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
    "cut short": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]),
        "is damaged: it has",
    ),
    "grown": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes() + b"x"), "is damaged: it has"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "is damaged: its header cannot be"),
    "header length": (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 100), "is damaged: its header cannot be"),
    "header not JSON": (
        lambda f: (f / WEIGHTS).write_bytes((4).to_bytes(8, "little") + b"xxxx"),
        "is damaged: its header is not readable",
    ),
    "hole": (lambda f: rewrite_header(f / WEIGHTS, shift), "starts at"),
    "wrong shape": (lambda f: rewrite_header(f / WEIGHTS, grow), "260 expected"),
    "no offsets": (lambda f: rewrite_header(f / WEIGHTS, forget), "is not readable"),
    "no folder": (shutil.rmtree, "does not exist"),
}


def test_a_whole_model_passes(model: Path) -> None:
    check_model_folder(model)
    assert count_parameters(model) == sum(tensor.size for tensor in load_file(model / WEIGHTS).values())
    assert read_header(model / WEIGHTS)["model.norm.weight"]["shape"] == [64]


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(model: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(model)
    with pytest.raises(ModelError, match=said) as caught:
        check_model_folder(model)
    assert caught.value.remedy


def split_in_shards(model: Path) -> None:
    tensors = load_file(model / WEIGHTS)
    names = sorted(tensors)
    where = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({name: np.ascontiguousarray(tensors[name]) for name in part}, model / file)
        where |= dict.fromkeys(part, file)
    (model / INDEX).write_text(json.dumps({"weight_map": where}))
    (model / WEIGHTS).unlink()


def test_shards_are_followed_through_their_index(model: Path) -> None:
    whole = count_parameters(model)
    split_in_shards(model)
    check_model_folder(model)
    assert count_parameters(model) == whole
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors"):
        check_model_folder(model)


def test_an_index_without_a_map_is_refused(model: Path) -> None:
    (model / INDEX).write_text("{}")
    with pytest.raises(ModelError, match="no weight_map"):
        check_model_folder(model)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"max_position_embeddings": 300}, 300),
        ({"n_positions": 300}, 300),
        ({"text_config": {"max_position_embeddings": 300}, "max_position_embeddings": 4}, 300),
        ({"text_config": {"n_positions": 300}}, 300),
        ({"text_config": None, "n_positions": 300}, 300),
        ({"max_position_embeddings": "many"}, None),
        ({}, None),
    ],
)
def test_positions_wherever_a_configuration_keeps_them(
    tmp_path: Path, config: dict[str, object], found: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert positions(tmp_path) == found
