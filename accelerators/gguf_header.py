"""The header of a GGUF file, as the fields of a config.json. No weights are read, and no reader is imported.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: magic, version, counts of tensors
and of key-value pairs, the pairs, then a description of each tensor. The gguf package reads the same, but takes
seconds over the tokenizer's lists, which are skipped here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from goldpath.core.errors import ModelError

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_FAMILIES = ("llama", "qwen2", "qwen3")
_FIELDS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
"""GGUF's name, below the architecture's, to the config's."""
_TOKENS = "tokenizer.ggml.tokens"


class Count(int):
    """How many entries a list has, in place of the list."""


def read_config(file: Path) -> dict[str, Any]:
    """The config of the model in a GGUF file, by the names that config.json has for it.

    Raises:
        ModelError: no GGUF file, cut short, or of a family whose names differ.
    """
    try:
        with file.open("rb") as opened:
            values, tensors = _read(opened)
    except (struct.error, UnicodeDecodeError, KeyError, EOFError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"{file} is no readable GGUF file ({type(error).__name__}: {error})", "Fetch it again."
        ) from error
    family = values.get("general.architecture")
    if family not in _FAMILIES:
        raise ModelError(
            f"{file} holds a model of the architecture {family!r}",
            f"Give its config.json; of GGUF files these are read: {', '.join(_FAMILIES)}.",
        )
    config: dict[str, Any] = {"model_type": family, "tie_word_embeddings": "output.weight" not in tensors}
    for given, name in _FIELDS.items():
        if (value := values.get(f"{family}.{given}")) is not None:
            config[name] = value
    if "vocab_size" not in config and isinstance(values.get(_TOKENS), Count):
        config["vocab_size"] = int(values[_TOKENS])
    return config


def _read(opened: BinaryIO) -> tuple[dict[str, Any], set[str]]:
    if opened.read(4) != b"GGUF":
        raise EOFError("its first bytes are not GGUF")
    version = _number(opened, "I")
    if version not in (2, 3):
        raise EOFError(f"its version is {version}")
    tensors, pairs = _number(opened, "Q"), _number(opened, "Q")
    values = {}
    for _ in range(pairs):
        key = _string(opened)
        values[key] = _value(opened, _number(opened, "I"))
    names = set()
    for _ in range(tensors):
        names.add(_string(opened))
        dimensions = _number(opened, "I")
        _skip(opened, 8 * dimensions + 4 + 8)  # the dimensions, the type, the offset
    return values, names


def _number(opened: BinaryIO, kind: str) -> Any:
    return struct.unpack(f"<{kind}", opened.read(struct.calcsize(f"<{kind}")))[0]


def _string(opened: BinaryIO) -> str:
    length = _number(opened, "Q")
    raw = opened.read(length)
    if len(raw) != length:
        raise EOFError("it ends inside a text")
    return raw.decode()


def _skip(opened: BinaryIO, length: int) -> None:
    opened.seek(length, 1)


def _value(opened: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(opened)
    if kind != _ARRAY:
        return _number(opened, _FORMATS[kind])
    inner, count = _number(opened, "I"), _number(opened, "Q")
    if inner in (_STRING, _ARRAY):
        skip: Callable[[], Any] = (
            (lambda: _skip(opened, _number(opened, "Q")))
            if inner == _STRING
            else (lambda: _value(opened, _ARRAY))
        )
        for _ in range(count):
            skip()
    else:
        _skip(opened, count * struct.calcsize(f"<{_FORMATS[inner]}"))
    return Count(count)
