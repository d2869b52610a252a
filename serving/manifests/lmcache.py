"""The ConfigMap with LMCache's settings, for its in-process connector: the multi-process mode reads none."""

from __future__ import annotations

import math

import yaml

from goldpath.core.digest import digest_bytes
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.manifests.parts import Manifest, metadata

FOLDER = "/etc/lmcache"
FILE = "lmcache.yaml"
PATH = f"{FOLDER}/{FILE}"
"""What `LMCACHE_CONFIG_FILE` names."""
DISK = "/var/lmcache"


def render(spec: ClusterServeSpec, namespace: str = "") -> list[Manifest]:
    """The ConfigMap of the service, where it has one."""
    if spec.kv.mode != "lmcache-in-process":
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(name(spec), namespace),
            "data": {FILE: settings(spec)},
        }
    ]


def name(spec: ClusterServeSpec) -> str:
    """Of the ConfigMap."""
    return f"{spec.name}-lmcache"


def settings(spec: ClusterServeSpec) -> str:
    """The file; sizes are of one GPU's worker."""
    kv = spec.kv
    made: dict[str, object] = {
        "chunk_size": kv.chunk_size,
        "local_cpu": True,
        "max_local_cpu_size": kv.cpu_gib,
    }
    if kv.disk_gib:
        made |= {"local_disk": f"file://{DISK}/", "max_local_disk_size": kv.disk_gib}
    if kv.remote_url:
        made |= {"remote_url": kv.remote_url, "remote_serde": "naive"}
    return str(yaml.safe_dump(made, sort_keys=False))


def settings_digest(spec: ClusterServeSpec) -> str:
    """Stands on the pods, so that other settings start them again."""
    return digest_bytes(settings(spec).encode())[:16]


def disk_gib(spec: ClusterServeSpec) -> int:
    """Room on the node's disk, with a tenth more than LMCache is told to use."""
    workers = spec.workers if spec.kv.mode == "lmcache-in-process" else 1
    return math.ceil(spec.kv.disk_gib * workers * 1.1)
