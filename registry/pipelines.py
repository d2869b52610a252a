"""Compiled pipelines as versions of their own, by content digest; model versions point to them.

A pipeline `finetune` is the registered model `pipeline-finetune` (tag `kind: pipeline`), so that a model of the same
name does not mix with it. Its file lies under `mlartifacts/pipelines/<digest>/`, and where the registry is a server
in the storage of the pods, under `pipelines/<digest>/`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from goldpath.core import settings, storage
from goldpath.core.digest import code_version, digest_file
from goldpath.core.errors import InputError, from_os_error
from goldpath.core.files import write_text
from goldpath.registry import kubeflow, place
from goldpath.registry.store import (
    KIND,
    PIPELINE,
    check_name,
    exists,
    reading,
    require_kind,
    tagged_versions,
    writing,
)

_DIGEST = "digest"
_FILE = "pipeline.yaml"


def registered_name(name: str) -> str:
    """What the pipeline is called in the registry: `pipeline-NAME`."""
    return f"pipeline-{check_name(name)}"


def pipeline_name(compiled: Path) -> str:
    """The name inside a compiled pipeline.

    Raises:
        InputError: it is not a compiled pipeline.
    """
    return str(_read(compiled)["pipelineInfo"]["name"])


def register_pipeline(compiled: Path, name: str) -> str:
    """Register a compiled pipeline, or adopt the version that has the same content.

    Args:
        compiled: the YAML that KFP's compiler wrote.
        name: the pipeline's name.

    Returns:
        The version.

    Raises:
        InputError: the file is missing or is not a compiled pipeline.
        MachineError: the database is damaged or locked; the disk is full or read-only.
    """
    title = registered_name(name)
    info = _read(compiled)["pipelineInfo"]
    digest = digest_file(compiled)
    if kubeflow.address():
        from goldpath.registry.kubeflow import pipelines as elsewhere

        place.require()
        return elsewhere.register(title, digest, _store(compiled, digest), str(info.get("description", "")))
    with writing() as client:
        require_kind(client, title, PIPELINE, str(info.get("description", "A compiled pipeline.")))
        for version in tagged_versions(client, title):
            if version.tags.get(_DIGEST) == digest:
                _put(compiled, digest)
                return str(version.version)
        uri = _put(compiled, digest)
        made = client.create_model_version(
            title,
            source=uri.rpartition("/")[0],
            tags={KIND: PIPELINE, _DIGEST: digest, "code_version": code_version(), "file": _FILE},
            description=str(info.get("description", "")),
        )
        return str(made.version)


def pipeline_file(name: str, version: str) -> Path:
    """The compiled YAML of a registered version, to run it again as it was.

    Raises:
        InputError: there is no such version.
    """
    title = registered_name(name)
    unknown = InputError(f"{title} has no version {version}", "`goldpath ui` lists what there is.")
    if kubeflow.address():
        from goldpath.registry.kubeflow import pipelines as elsewhere

        return _bring(elsewhere.digest(title, str(version)))
    if not exists():
        raise unknown
    with reading() as client:
        for found in tagged_versions(client, title):
            if str(found.version) == str(version):
                digest = found.tags[_DIGEST]
                return _place(digest) if place.embedded() else _bring(digest)
    raise unknown


def _place(digest: str) -> Path:
    return settings.home() / "mlartifacts" / "pipelines" / digest[:32] / _FILE


def _put(compiled: Path, digest: str) -> str:
    """Keep a copy where the registry's readers find it; returns the file's URI."""
    return _keep(compiled, digest).as_uri() if place.embedded() else _store(compiled, digest)


def _store(compiled: Path, digest: str) -> str:
    uri = f"{storage.storage()}/pipelines/{digest[:32]}/{_FILE}"
    storage.put_file(compiled, uri)
    return uri


def _bring(digest: str) -> Path:
    """A copy on this machine of what lies in the storage."""
    uri = f"{storage.storage()}/pipelines/{digest[:32]}/{_FILE}"
    content = storage.read(uri)
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise InputError(
            f"the compiled pipeline at {uri} is gone or was changed", "Compile and run the pipeline again."
        )
    file = _place(digest)
    write_text(file, content.decode("utf-8"))
    return file


def _keep(compiled: Path, digest: str) -> Path:
    """Our own copy; put back if it was lost or damaged."""
    file = _place(digest)
    if not file.exists() or digest_file(file) != digest:
        write_text(file, compiled.read_text(encoding="utf-8"))
    return file


def _read(compiled: Path) -> dict[str, Any]:
    import yaml

    try:
        documents = list(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"there is no compiled pipeline at {compiled}", "Compile it first.") from None
    except OSError as error:
        raise from_os_error(error, compiled) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{compiled} is not YAML ({error})", "Compile the pipeline again.") from None
    first = documents[0] if documents else None
    if not isinstance(first, dict) or not first.get("pipelineInfo", {}).get("name"):
        raise InputError(f"{compiled} is not a compiled pipeline", "Use what KFP's compiler wrote.")
    return first
