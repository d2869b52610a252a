"""What the registry takes and hands back."""

from __future__ import annotations

from goldpath.core.spec import Result


class Lineage(Result):
    """Where a model comes from: every field is a digest, a version or a name that can be looked up."""

    run: str
    dataset: str
    dataset_digest: str
    base_model: str
    base_model_digest: str
    model_digest: str
    code_version: str
    pipeline: str
    pipeline_digest: str
    pipeline_version: str


class RegisteredVersion(Result):
    """A version in the registry."""

    name: str
    version: str
    uri: str
    """Folder of the model's files, a URI that the model cache can fetch."""
    accepted: bool
    """Passed the gate; a rejected version is kept, and never served."""
    aliases: list[str]
    adopted: bool
    """The same content stood there already."""
    champion: str
    """Version that is champion after this registration; empty if none."""
    previous_champion: str
    lineage: Lineage
    metrics: dict[str, float]
    parameters: dict[str, str]
