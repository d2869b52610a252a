"""Compiled pipelines in Kubeflow's Model Registry: a version each, by content, that holds the file."""

from __future__ import annotations

from goldpath.core.digest import code_version
from goldpath.core.errors import InputError
from goldpath.registry.kubeflow.client import Server, ask
from goldpath.registry.kubeflow.models import require_model
from goldpath.registry.store import KIND, PIPELINE

_DIGEST = "digest"
_DIGITS = 12


def register(title: str, digest: str, uri: str, description: str) -> str:
    """Register a compiled pipeline, or adopt the version of the same content; returns the version.

    Args:
        title: what it is called in the registry.
        digest: SHA-256 of the file.
        uri: where it lies in the storage.
        description: the pipeline's own.

    Raises:
        InputError: the name is another's or is archived; the version holds another content.
        MachineError: the registry is away.
    """

    def work(server: Server) -> str:
        model = require_model(server, title, PIPELINE, description or "A compiled pipeline.")
        wanted = digest[:_DIGITS]
        version = server.version(model, wanted)
        if version is None:
            properties = {KIND: PIPELINE, _DIGEST: digest, "code_version": code_version()}
            version = server.add_version(
                model, name=wanted, description=description, custom_properties=properties
            )
        elif (version.custom_properties or {}).get(_DIGEST) != digest:
            raise InputError(
                f"version {wanted} of {title} is in the model registry with another content",
                "Delete that version there.",
            )
        if server.artifact(version) is None:
            server.add_artifact(version, "DocArtifact", name=title, uri=uri)
        return wanted

    return ask(work)


def digest(title: str, version: str) -> str:
    """SHA-256 of the compiled file of a version.

    Raises:
        InputError: there is no such version.
        MachineError: the registry is away.
    """

    def work(server: Server) -> str:
        model = server.model(title)
        found = server.version(model, version) if model else None
        return str((found.custom_properties or {}).get(_DIGEST, "")) if found else ""

    if known := ask(work):
        return known
    raise InputError(f"{title} has no version {version}", "The model registry's page lists what there is.")
