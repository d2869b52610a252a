"""Content digests: the identity of files, folders, values and of our own code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from goldpath.core.errors import MachineError


def digest_bytes(data: bytes) -> str:
    """SHA-256 of `data`, hex."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 over canonical JSON: sorted keys, no spaces."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


def digest_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest(folder: str | Path) -> dict[str, str]:
    """Relative POSIX path to SHA-256, for every file below `folder`, sorted by path."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): digest_file(path) for path in files}


def digest_manifest(files: Mapping[str, str]) -> str:
    """One digest for a folder, from its `manifest`."""
    return digest_json(dict(files))


@lru_cache
def code_digest(*packages: str) -> str:
    """SHA-256 over the sources of subpackages or modules (`"training"`, `"core.files"`).

    Work that was made by other code is not reused.
    """
    found: dict[str, str] = {}
    for package in packages:
        spec = importlib.util.find_spec(f"goldpath.{package}")
        if spec is None:
            raise ModuleNotFoundError(f"goldpath.{package}")
        if spec.submodule_search_locations is None and spec.origin:
            found[f"{package}.py"] = digest_file(spec.origin)
        for place in spec.submodule_search_locations or []:
            for path in sorted(Path(place).rglob("*.py")):
                found[f"{package}/{path.relative_to(place).as_posix()}"] = digest_file(path)
    return digest_json(found)


def versions(*packages: str) -> dict[str, str]:
    """Versions of the libraries that do the work, by the names under which they are installed.

    Work that was made by other versions is not reused.

    Raises:
        MachineError: one is not installed.
    """
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise MachineError(f"the package {name} is not installed", "Install it: `make setup`.") from None
    return found


def code_version() -> str:
    """Package version and a digest of the installed sources: `0.1.0+3f2a9c01d4e7`."""
    packages = (
        "components",
        "core",
        "feature_repo",
        "pipelines",
        "registry",
        "reporting",
        "serving",
        "training",
    )
    return f"{importlib.metadata.version('goldpath')}+{code_digest(*packages)[:12]}"
