"""What can be asked of KServe's model cache: a copy of a model on the disks of the nodes that serve it."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from goldpath.accelerators.quantities import value
from goldpath.core import settings
from goldpath.core.errors import ModelError, SpecError
from goldpath.core.spec import Spec, matching
from goldpath.serving.cluster_parts import quantity, storage_uri

_MIB = 2**20
_NAME = r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$"
_NAME_SAID = "at most 50 lower-case letters, digits and dashes, with a letter or digit at both ends"
_ACCESS = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany")


def account(namespaced: bool, storage_key: str) -> str:
    """The service account of a cache that names none: that of the pipelines' namespace, where it counts."""
    return settings.model_account() if namespaced and not storage_key else ""


class ClusterCacheSpec(Spec):
    """A model to be at hand on nodes before it is served.

    KServe compares a service's URI with the cache's when the service is created, so the cache has to be there first.
    """

    name: Annotated[str, matching(_NAME, _NAME_SAID)]
    model_uri: str
    """Fixed for the cache's life: another model is another cache."""
    bytes: Annotated[int, Field(ge=1)]
    """Of all files below the URI: KServe fetches all of them (`source_bytes`)."""
    node_groups: Annotated[tuple[str, ...], Field(min_length=1)]
    """LocalModelNodeGroups; the first is the one that a service takes which names none."""
    namespaced: bool = True
    """A LocalModelNamespaceCache for services of one namespace, else a LocalModelCache for all."""
    storage_key: str = ""
    """Key of the secret `storage-config` in the namespace of the account."""
    storage_parameters: dict[str, str] = Field(default_factory=dict)
    """What the storage needs besides: type, region, endpoint_url."""
    service_account: str = Field(
        default_factory=lambda given: account(given.get("namespaced", True), given.get("storage_key", ""))
    )
    """Whose secrets read the model: in the cache's namespace, for a LocalModelCache in `kserve-localmodel-jobs`.
    GOLDPATH_MODEL_ACCOUNT names one for all caches of a namespace that have no `storage_key`."""

    @model_validator(mode="after")
    def _together(self) -> ClusterCacheSpec:
        storage_uri(self.model_uri)
        if self.model_uri.startswith(("pvc://", "oci://")):
            raise SpecError(
                f"model_uri is {self.model_uri}: volumes and images are on the nodes already",
                "Serve it without a cache, or give s3://, gs://, hf:// or https://.",
            )
        if len(set(self.node_groups)) < len(self.node_groups):
            raise SpecError(f"node_groups is {', '.join(self.node_groups)}", "Name each group once.")
        if self.storage_key and self.service_account:
            raise SpecError(
                "storage_key and service_account are both set", "Keep the one that holds the secret."
            )
        return self

    @property
    def size(self) -> str:
        """`modelSize`, rounded up to whole MiB."""
        return f"{math.ceil(self.bytes / _MIB)}Mi"


class ClusterWarmSpec(Spec):
    """What a pipeline asks of the cluster's cache; the model is known to it."""

    node_groups: tuple[str, ...] = ()
    """LocalModelNodeGroups; none: the cluster's only one."""
    namespaced: bool = True
    """As in `ClusterCacheSpec`, and so are the next three."""
    service_account: str = ""
    storage_key: str = ""
    storage_parameters: dict[str, str] = Field(default_factory=dict)
    bytes: Annotated[int, Field(ge=0)] = 0
    """0: asked of the source."""
    wait_seconds: Annotated[int, Field(ge=60, le=7 * 86_400)] = 3_600
    """Give up if the copies are not there by then."""
    required: bool = False
    """Refuse a cluster that cannot keep copies; else the pods fetch the model themselves, and the step says so."""


class NodeGroupSpec(Spec):
    """Nodes with a disk for models."""

    name: Annotated[str, matching(_NAME, _NAME_SAID)]
    storage: str
    """Room for models on each node."""
    path: Annotated[str, matching(r"^/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$", "an absolute path that is not /")] = (
        "/mnt/models"
    )
    """Folder on the node; it has to exist."""
    storage_class: Annotated[
        str, matching(r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$", "the name of a StorageClass")
    ] = "local-models"
    node_labels: Annotated[dict[str, str], Field(min_length=1)]
    """Labels that a node has to carry, all of them."""
    access: str = "ReadWriteOnce"

    @field_validator("storage")
    @classmethod
    def _quantity(cls, text: str) -> str:
        if not text:
            raise SpecError("storage is empty", "Give the room on each node, such as 500Gi.")
        return quantity(text, "storage")

    @model_validator(mode="after")
    def _known(self) -> NodeGroupSpec:
        if self.access not in _ACCESS:
            raise SpecError(f"access is {self.access}", f"Allowed: {', '.join(_ACCESS)}.")
        return self

    def check_fits(self, cache: ClusterCacheSpec) -> None:
        """Refuse a model that is larger than the group's disks.

        Raises:
            SpecError: it does not fit: KServe would refuse it when the cache is created.
        """
        if value(cache.size) > value(self.storage):
            raise SpecError(
                f"{cache.model_uri} has {cache.size} and the node group {self.name} {self.storage} for models",
                "Choose a group with more room, or raise its storage.",
            )


def source_bytes(uri: str) -> int:
    """Bytes of all files at a URI, as KServe fetches them: weights in other formats too.

    Raises:
        ModelError: nothing there, no permission, or a size that the source does not tell.
        MachineError: no network.
    """
    from goldpath.core.sources import open_source

    files = open_source(uri, ModelError).files
    unknown = next((file.name for file in files if file.size is None), "")
    if unknown or not files:
        what = f"does not tell the size of {unknown}" if unknown else "holds no files"
        raise ModelError(f"{uri} {what}", "Give the cache's size yourself (bytes).")
    return sum(file.size or 0 for file in files)
