"""From what the pipeline asks of an endpoint to what is asked of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from goldpath.core import storage
from goldpath.core.errors import InputError, ModelError, SpecError
from goldpath.core.spec import Spec
from goldpath.core.uris import local_path
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.cluster_parts import Canary, Positive, storage_uri
from goldpath.serving.rollout import RolloutSpec

if TYPE_CHECKING:
    from goldpath.serving.specs import ServeSpec

OURS = ("name", "model_uri", "model_name", "revision")
"""Fields that are set for the user."""


class CanaryAsked(Spec):
    """A new model is tried beside the one that serves, and takes over or goes by the probe's figures."""

    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Of the requests that it gets meanwhile."""
    replicas: Positive = 1
    limits: RolloutSpec = RolloutSpec()
    """How much worse it may be."""
    probe: dict[str, Any] = Field(default_factory=dict)
    """Fields of `ProbeSpec`: what both are asked."""


def canary_asked(fields: Mapping[str, Any]) -> CanaryAsked | None:
    """The canary that `cluster.canary` asks for.

    Raises:
        SpecError: a field is wrong.
    """
    if "canary" not in fields:
        return None
    given = fields["canary"]
    if not isinstance(given, Mapping):
        raise SpecError(f"cluster.canary is {given!r}", 'Give an object, such as {"percent": 10}.')
    try:
        return CanaryAsked.parse(given)
    except SpecError as error:
        raise SpecError(f"cluster.canary.{error.message}", error.remedy) from None


def check_cluster(fields: Mapping[str, Any]) -> CanaryAsked | None:
    """Refuse what no cluster could serve, before anything starts; the canary, where one is asked for.

    Raises:
        SpecError: a field is wrong; the message begins with `cluster.`.
    """
    asked = canary_asked(fields)
    spec = _parse(fields, {"name": "endpoint", "model_uri": "s3://bucket/model"})
    if asked and spec.kind != "inference-service":
        raise SpecError(
            f"cluster.canary does not go with the kind {spec.kind} in a pipeline",
            "Take one of them out.",
        )
    return asked


def cluster_spec(spec: ServeSpec, revision: str = "", canary: Canary | None = None) -> ClusterServeSpec:
    """What a `ServeSpec` means on a cluster.

    Args:
        spec: what the pipeline asks for.
        revision: the name that the predictor has, or shall have.
        canary: the model beside it.

    Raises:
        SpecError: a field is wrong; a cluster could not use the name.
        ModelError: the model lies where no cluster can read it.
    """
    values = {"name": spec.name, "model_uri": cluster_uri(spec.model_uri), "model_name": spec.model_name}
    return _parse(spec.cluster, {**values, "revision": revision, "canary": canary})


def cluster_uri(uri: str) -> str:
    """The URI under which a cluster reads a model; what a step left in a folder lies in the storage besides.

    Raises:
        ModelError: it lies on this machine only.
        SpecError: KServe knows no such scheme; no storage is set.
    """
    if "://" not in uri or uri.startswith("file://"):
        try:
            uri = storage.where(local_path(uri))
        except SpecError:
            raise
        except InputError:
            raise ModelError(
                f"{uri} lies on this machine, and the nodes of a cluster cannot read it",
                "Put it where they can (s3://, gs://, hf://), and give that URI.",
            ) from None
    return storage_uri(uri)


def _parse(fields: Mapping[str, Any], values: dict[str, Any]) -> ClusterServeSpec:
    for field in OURS:
        if field in fields:
            raise SpecError(
                f"cluster.{field} cannot be set",
                "Leave it out: it follows from the endpoint's name and model.",
            )
    # vLLM wants a GPU; who brings an image may have built it for CPUs.
    usual = {} if "image" in fields else {"gpu": "whole"}
    try:
        return ClusterServeSpec.parse(
            {**usual, **{k: v for k, v in fields.items() if k != "canary"}, **values}
        )
    except SpecError as error:
        raise SpecError(f"cluster.{error.message}", error.remedy) from None
