"""Is a model folder whole and safe to load? Answered from the files' headers, in milliseconds, without torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from goldpath.core.errors import ModelError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
"""Suffixes of files that Python would unpickle: loading one can run any code."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
INDEX = "model.safetensors.index.json"
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
}
"""Bits of an element; a type that is not listed is not measured."""
_MAX_HEADER = 100_000_000
_AGAIN = "Fetch the model again, or give another one."


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that is not a whole model in safetensors with a tokenizer.

    Raises:
        ModelError: no folder, no config.json, only pickle weights, damaged or missing safetensors, no tokenizer.
    """
    if not folder.is_dir():
        raise ModelError(f"model folder {folder} does not exist", "Check the path.")
    read_config(folder)
    weights = weight_files(folder)
    for file in weights:
        read_header(file)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(
            f"{folder} has no tokenizer ({', '.join(TOKENIZERS)})",
            "Save the tokenizer beside the weights (`tokenizer.save_pretrained(folder)`).",
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The model's `config.json`.

    Raises:
        ModelError: it is missing or not a JSON object.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(
            f"{folder} has no config.json",
            "Give the folder that `save_pretrained` wrote: config.json, model.safetensors, tokenizer.json.",
        )
    return _json_object(file)


def positions(folder: Path) -> int | None:
    """Tokens that the model can place; None where its configuration does not say.

    `max_position_embeddings`, which GPT-2 and its kin call `n_positions`; models of several kinds of input keep it in
    `text_config`.

    Raises:
        ModelError: config.json is missing or not a JSON object.
    """
    config = read_config(folder)
    text = config.get("text_config")
    if not isinstance(text, dict):
        text = config
    most = text.get("max_position_embeddings") or text.get("n_positions")
    return most if isinstance(most, int) else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model: all shards of its index, or the files themselves.

    Raises:
        ModelError: there are none, or only pickles, or a shard is missing.
    """
    index = folder / INDEX
    if index.is_file():
        shards = _json_object(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelError(f"{index} has no weight_map", _AGAIN)
        files = [folder / Path(str(name)).name for name in sorted(set(shards.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise ModelError(f"{folder} lacks {', '.join(missing)}, named in {INDEX}", _AGAIN)
        return files
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    refuse_pickles(path.name for path in folder.iterdir())
    raise ModelError(f"{folder} has no *.safetensors file", "Give a folder with weights in safetensors.")


def refuse_pickles(names: Any) -> None:
    """Refuse names of pickle checkpoints.

    Raises:
        ModelError: one of the names is a pickle's.
    """
    found = sorted(str(name) for name in names if str(name).lower().endswith(PICKLES))
    if found:
        raise ModelError(
            f"{found[0]} is a pickle checkpoint, which can run any code when it is loaded",
            "Give the model as safetensors (`model.save_pretrained(folder)` in its own project writes it).",
        )


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """Tensor name to `{dtype, shape, data_offsets}` from a safetensors file, checked against the file's length.

    Layout (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length, JSON header,
    then the tensors' bytes without holes.

    Raises:
        ModelError: the file is damaged or cut short.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or not 0 < length <= min(size - 8, _MAX_HEADER):
            raise _damaged(file, f"its header cannot be {length} bytes long in a file of {size}")
        raw = opened.read(length)
    try:
        header = json.loads(raw)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted(_span(name, entry) for name, entry in tensors.items())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(file, f"its header is not readable ({type(error).__name__}: {error})") from error
    end = 0
    for begin, finish, name in spans:
        if begin != end:
            raise _damaged(file, f"tensor {name} starts at {begin} instead of {end}")
        end = finish
    if size != 8 + length + end:
        raise _damaged(file, f"it has {size} bytes and should have {8 + length + end}")
    return tensors


def count_parameters(folder: Path) -> int:
    """Elements in all tensors of the model.

    Raises:
        ModelError: a weight file is missing or damaged.
    """
    return sum(
        math.prod(entry["shape"]) for file in weight_files(folder) for entry in read_header(file).values()
    )


def _span(name: str, entry: dict[str, Any]) -> tuple[int, int, str]:
    begin, finish = (int(offset) for offset in entry["data_offsets"])
    bits = _BITS.get(entry["dtype"])
    wanted = None if bits is None else math.prod(entry["shape"]) * bits // 8
    if begin > finish or (wanted is not None and finish - begin != wanted):
        raise ValueError(f"{name} spans {finish - begin} bytes, {wanted} expected")
    return begin, finish, name


def _json_object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not valid JSON ({error})", _AGAIN) from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} is not a JSON object", _AGAIN)
    return found


def _damaged(file: Path, why: str) -> ModelError:
    return ModelError(f"{file} is damaged: {why}", _AGAIN)
