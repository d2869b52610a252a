"""LocalModelNodeGroup (serving.kserve.io/v1alpha1): which nodes keep models, and on which disk."""

from __future__ import annotations

from goldpath.serving.cluster_cache import NodeGroupSpec
from goldpath.serving.manifests.parts import Manifest, metadata


def render(spec: NodeGroupSpec) -> list[Manifest]:
    """The node group. It belongs to the cluster, and is an administrator's to create."""
    expressions = [
        {"key": key, "operator": "In", "values": [value]} for key, value in sorted(spec.node_labels.items())
    ]
    shared = {
        "accessModes": [spec.access],
        "storageClassName": spec.storage_class,
        "volumeMode": "Filesystem",
    }
    return [
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "LocalModelNodeGroup",
            "metadata": metadata(spec.name, ""),
            "spec": {
                "storageLimit": spec.storage,
                "persistentVolumeClaimSpec": {**shared, "resources": {"requests": {"storage": spec.storage}}},
                "persistentVolumeSpec": {
                    **shared,
                    "accessModes": [spec.access],
                    "capacity": {"storage": spec.storage},
                    "local": {"path": spec.path},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}},
                    "persistentVolumeReclaimPolicy": "Delete",
                },
            },
        }
    ]
