"""From what the pipeline asks of an endpoint to what is asked of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from goldpath.core import storage
from goldpath.core.errors import InputError, ModelError, SpecError
from goldpath.core.uris import local_path
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.cluster_parts import storage_uri

OURS = ("name", "model_uri", "model_name", "revision", "canary")
"""Fields that are set for the user."""


def check_cluster(fields: Mapping[str, Any]) -> None:
    """Refuse what no cluster could serve, before anything starts.

    Raises:
        SpecError: a field is wrong; the message begins with `cluster.`.
    """
    _parse(fields, "endpoint", "s3://bucket/model", "")


def cluster_spec(spec: Any) -> ClusterServeSpec:
    """What a `ServeSpec` means on a cluster.

    Raises:
        SpecError: a field is wrong; a cluster could not use the name.
        ModelError: the model lies where no cluster can read it.
    """
    return _parse(spec.cluster, spec.name, cluster_uri(spec.model_uri), spec.model_name)


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


def _parse(fields: Mapping[str, Any], name: str, uri: str, model_name: str) -> ClusterServeSpec:
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
            {"name": name, "model_uri": uri, "model_name": model_name, **usual}, fields
        )
    except SpecError as error:
        raise SpecError(f"cluster.{error.message}", error.remedy) from None
