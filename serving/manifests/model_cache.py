"""LocalModelNamespaceCache and LocalModelCache (serving.kserve.io/v1alpha1).

To be created before the service: KServe compares URIs when a service is admitted, and never again.
"""

from __future__ import annotations

from goldpath.serving.cluster_cache import ClusterCacheSpec
from goldpath.serving.manifests.parts import Manifest, metadata


def render(spec: ClusterCacheSpec, namespace: str = "") -> list[Manifest]:
    """The cache; `namespace` is for one of a namespace."""
    wanted: Manifest = {
        "sourceModelUri": spec.model_uri,
        "modelSize": spec.size,
        "nodeGroups": list(spec.node_groups),
    }
    if spec.service_account:
        wanted["serviceAccountName"] = spec.service_account
    storage = {"key": spec.storage_key, "parameters": dict(spec.storage_parameters)}
    if given := {name: value for name, value in storage.items() if value}:
        wanted["storage"] = given
    return [
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "LocalModelNamespaceCache" if spec.namespaced else "LocalModelCache",
            "metadata": metadata(spec.name, namespace if spec.namespaced else ""),
            "spec": wanted,
        }
    ]
