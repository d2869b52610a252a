"""The pipelines that there are, and their compiled form."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldpath.core.digest import digest_file
from goldpath.core.errors import InputError
from goldpath.core.files import write_beside

PIPELINES = {"finetune": "goldpath.pipelines.finetune"}
"""Name to module; the pipeline function has the same name."""


@dataclass(frozen=True)
class FormField:
    """One parameter of a pipeline's form."""

    name: str
    kind: str
    """string, integer, number, boolean, struct or list."""
    default: Any
    help: str


def names() -> list[str]:
    """Names of all pipelines."""
    return sorted(PIPELINES)


def load(name: str) -> Any:
    """The pipeline as a KFP object, to compile it or to use it inside another.

    Raises:
        InputError: there is no pipeline of that name.
    """
    if name not in PIPELINES:
        raise InputError(f"there is no pipeline {name!r}", f"Pipelines: {', '.join(names())}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp's own, at import
        return getattr(importlib.import_module(PIPELINES[name]), name)


def compile_pipeline(name: str, out: str | Path) -> str:
    """Compile a pipeline to YAML, the same bytes for the same code. Returns the file's SHA-256."""
    from kfp import compiler

    pipeline = load(name)
    with write_beside(out) as fresh:
        # kfp asks for a name that ends in .yaml, which the temporary file has as well
        compiler.Compiler().compile(pipeline, str(fresh))
    return digest_file(out)


def form(name: str) -> list[FormField]:
    """The parameters of a pipeline, in their order, with defaults and help."""
    spec = load(name).pipeline_spec.root.input_definitions.parameters
    kinds = {1: "number", 2: "integer", 3: "string", 4: "boolean", 5: "list", 6: "struct"}
    fields = []
    for key in load(name).component_spec.inputs:
        entry = spec[key]
        fields.append(FormField(key, kinds[entry.parameter_type], _default(entry), entry.description))
    return fields


def _default(entry: Any) -> Any:
    from google.protobuf.json_format import MessageToDict

    value = MessageToDict(entry.default_value)
    return int(value) if entry.parameter_type == 2 else value
