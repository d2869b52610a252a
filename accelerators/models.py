"""From what a person calls a model to its architecture: a name, a path, a URI, a package."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from goldpath.accelerators.architecture import Architecture, from_config
from goldpath.core.errors import ModelError
from goldpath.core.packages import PACKAGE, gguf_file
from goldpath.core.uris import local_path

_CONFIG = "config.json"
_MAX_CONFIG = 16 * 2**20
"""Bytes: a config.json has some thousands."""
_SUFFIXES = ("-it", "-pt", "-base", "-chat", "-hf", "-bf16", "-fp8", "-2501", "-v0.1", "-v1")
_PREFIXES = ("meta-", "ai21-")


def load(model: str) -> Architecture:
    """The architecture of a model; its weights are not read.

    Args:
        model: a known model's name (`known`), with or without its owner and `-Instruct` and the like; a folder, a
            config.json or a GGUF file; a URI of a folder or a config.json (hf://, s3://, gs://, file://);
            `package://NAME` of a Python package that ships a GGUF file.

    Raises:
        ModelError: unknown (with the names that are near), no config.json there, or one that makes no sense.
        MachineError: no network.
    """
    model = model.strip()
    if not model:
        raise ModelError("no model is given", "Give a name (`goldpath kv-cache --list`), a path or a URI.")
    if model.startswith(PACKAGE):
        return _from_gguf(gguf_file(model), model)
    if "://" in model and not model.startswith("file://"):
        return from_config(_remote(model), model)
    path = local_path(model)
    if path.exists():
        return _local(path, model)
    name = _find(model)
    if name is None:
        raise _unknown(model)
    return _known(name)


def known() -> dict[str, Architecture]:
    """The bundled models by name."""
    return {name: _known(name) for name in _table()}


def source(name: str) -> str:
    """Where the facts about a bundled model come from: the address of its config.json."""
    return str(_table()[name]["source"])


def _known(name: str) -> Architecture:
    return from_config(_table()[name]["config"], name)


@cache
def _table() -> dict[str, Any]:
    text = resources.files("goldpath.accelerators.known_models").joinpath("models.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def _plain(name: str) -> str:
    """A name without owner, capitals and what does not change an architecture."""
    plain = name.rsplit("/", 1)[-1].lower().replace("_", "-").replace(" ", "-")
    plain = plain.replace("-instruct", "")
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    while True:
        shorter = next((plain.removesuffix(end) for end in _SUFFIXES if plain.endswith(end)), plain)
        if shorter == plain:
            return plain
        plain = shorter


def _find(model: str) -> str | None:
    exact = {name.lower(): name for name in _table()}
    last = model.rsplit("/", 1)[-1].lower()
    plain = {_plain(name): name for name in _table()}
    return exact.get(last) or plain.get(_plain(model))


def _unknown(model: str) -> ModelError:
    plain = {_plain(name): name for name in _table()}
    near = [plain[found] for found in difflib.get_close_matches(_plain(model), plain, n=3, cutoff=0.5)]
    hint = f"Nearest: {', '.join(near)}. " if near else ""
    return ModelError(
        f"unknown model {model!r}: no such path, and not among the known models",
        f"{hint}Give a folder with config.json or a URI (hf://owner/name); `goldpath kv-cache --list` lists the names.",
    )


def _local(path: Path, name: str) -> Architecture:
    if path.suffix == ".gguf":
        return _from_gguf(path, name)
    file = path / _CONFIG if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"{path} has no {_CONFIG}", "Give the folder that `save_pretrained` wrote.")
    if file.stat().st_size > _MAX_CONFIG:
        raise ModelError(f"{file} has {file.stat().st_size:,} bytes", f"Give a {_CONFIG}.")
    return from_config(_parse(file.read_bytes(), str(file)), name)


def _from_gguf(file: Path, name: str) -> Architecture:
    from goldpath.accelerators.gguf_header import read_config

    return from_config(read_config(file), name)


def _remote(uri: str) -> dict[str, Any]:
    from goldpath.core.sources import open_source

    source = open_source(uri, ModelError)
    found = next((file for file in source.files if file.name == _CONFIG), None)
    if found is None and len(source.files) == 1 and source.files[0].name.endswith(".json"):
        found = source.files[0]
    if found is None:
        raise ModelError(f"{uri} has no {_CONFIG}", "Give the folder that `save_pretrained` wrote.")
    try:
        with source.open(found, _MAX_CONFIG) as opened:
            raw = opened.read(_MAX_CONFIG)
    except Exception as failure:
        raise source.explain(failure, found.name) from failure
    return _parse(raw, f"{uri}/{_CONFIG}")


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        config = json.loads(raw)
    except RecursionError:
        raise ModelError(f"{where} is nested too deeply", "Give the config.json of a model.") from None
    except ValueError as error:
        raise ModelError(f"{where} is no JSON ({error})", "Fetch it again, or give another model.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{where} holds no object", "Give the config.json of a model.")
    return config
