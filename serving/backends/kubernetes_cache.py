"""The model cache of a cluster: copies on the disks of its nodes, which KServe makes and mounts.

The cache outlives the run, and the same model is the same cache for every run. It saves time when pods start, and
nothing else depends on it; so where a cluster has no place for copies the step says so and goes on, unless the spec
requires them.
"""

from __future__ import annotations

import re
from contextlib import suppress
from time import monotonic

from goldpath.core import storage
from goldpath.core.digest import digest_json, digest_manifest
from goldpath.core.errors import GoldpathError, MachineError, ModelError, SpecError, StepError
from goldpath.core.kubernetes import Cluster, ClusterError, Ref
from goldpath.core.progress import emit, progress
from goldpath.core.sources import Source, open_source
from goldpath.serving.backends import kubernetes
from goldpath.serving.backends.kubernetes_objects import Manifest
from goldpath.serving.cluster_cache import ClusterCacheSpec, account, source_bytes
from goldpath.serving.cluster_deploy import cluster_uri
from goldpath.serving.manifests import model_cache, read
from goldpath.serving.results import CachedModel
from goldpath.serving.specs import CacheSpec

_API = "serving.kserve.io/v1alpha1"
_SUMS = "SHA256SUMS"


def warm(spec: CacheSpec) -> CachedModel:
    """See `model_cache.warm`.

    Raises:
        StepError: a node could not fetch the model (which, and why), or the copies are not there in time.
    """
    began = monotonic()
    uri = cluster_uri(spec.uri)
    source = open_source(uri, ModelError)
    digest = _check(spec, uri, source)
    size = spec.cluster.bytes or source_bytes(uri)
    cluster = kubernetes.connect()
    fetched, note = 0, _unfit(cluster, spec, uri)
    if note:
        if spec.cluster.required:
            raise MachineError(
                f"the cluster cannot keep copies of {uri}: {note}",
                "Have KServe's local model controller and a LocalModelNodeGroup set up (deploy/serving), or leave "
                "overrides.warm_cache.cluster.required out.",
            )
        note = f"no copies on nodes, the pods fetch the model themselves: {note}"
        emit("no-model-cache", what=uri, why=note)
    else:
        fetched = _bring(cluster, spec, uri, size)
    return CachedModel(
        source=spec.uri,
        path=uri,
        digest=digest,
        files=len(source.files),
        bytes=size,
        bytes_fetched=fetched,
        seconds=round(monotonic() - began, 3),
        note=note,
    )


def _unfit(cluster: Cluster, spec: CacheSpec, uri: str) -> str:
    """Why there can be no copies on nodes; empty where there can.

    Raises:
        MachineError: a node group that the spec names does not exist.
    """
    if uri.startswith(("pvc://", "oci://")):
        return "volumes and images are on the nodes already"
    kind = "LocalModelNamespaceCache" if spec.cluster.namespaced else "LocalModelCache"
    for needed in (kind, "LocalModelNodeGroup"):
        if not cluster.has(_API, needed):
            return f"the cluster has no {needed} ({_API})"
    there = [] if spec.cluster.node_groups else _groups(cluster)
    if not spec.cluster.node_groups and len(there) != 1:
        return (
            f"it has the node groups {', '.join(there)}, and overrides.warm_cache.cluster.node_groups chooses none"
            if there
            else "it has no LocalModelNodeGroup"
        )
    return ""


def _groups(cluster: Cluster) -> list[str]:
    return sorted(one["metadata"]["name"] for one in cluster.find(_API, "LocalModelNodeGroup"))


def _bring(cluster: Cluster, spec: CacheSpec, uri: str, size: int) -> int:
    """Make the cache, or adopt it, and wait for its copies; returns the bytes that each node fetched for it."""
    manifest = _manifest(cluster, spec, uri, size)
    ref = Ref.of(manifest)
    present = cluster.get(ref)
    if present is not None:
        status = read.cache(present)
        if status.state == "ready":
            return 0
        if status.state == "failed" and not status.available:
            cluster.remove(ref)  # KServe tries a failed download again only after an hour
    cluster.create_or_adopt(manifest, keep=True)

    def judge(thing: Manifest) -> bool | None:
        status = read.cache(thing)
        if status.state == "failed":
            raise StepError(f"{', '.join(status.failed_nodes)}: {status.reason}")
        return True if status.state == "ready" else None

    last = ""
    with progress("Copying the model to nodes", None, "copies") as bar:

        def show(thing: Manifest) -> None:
            nonlocal last
            status = read.cache(thing)
            last = status.reason
            bar.update(status.available, status.total or None)

        try:
            cluster.wait(ref, judge, spec.cluster.wait_seconds, show)
        except ClusterError:
            raise
        except StepError as error:
            raise StepError(
                f"the model cache {ref.name} is not there: {error.message}{_more(last, error)}",
                f"Check that the nodes can read {uri} and have room. Then run it again; where some have a copy, "
                f"`kubectl delete {ref.kind.lower()} {ref.name}` first, which has all fetched anew.",
            ) from None
    return size


def _more(last: str, error: GoldpathError) -> str:
    return f": {last}" if last and last not in error.message else ""


def _manifest(cluster: Cluster, spec: CacheSpec, uri: str, size: int) -> Manifest:
    asked = spec.cluster
    groups = asked.node_groups or tuple(_groups(cluster))
    fields = asked.model_dump(include={"namespaced", "storage_key", "storage_parameters"})
    reader = asked.service_account or account(asked.namespaced, asked.storage_key)
    wanted = {
        **fields,
        "service_account": reader,
        "model_uri": uri,
        "bytes": size,
        "node_groups": groups,
    }
    # What a cache holds cannot be changed: with other content it is another one.
    start = re.sub(r"[^a-z0-9]+", "-", "-".join(uri.rstrip("/").split("/")[-2:]).lower()).strip("-")[-36:]
    name = f"{start.strip('-') or 'model'}-{digest_json(wanted)[:10]}"
    try:
        made = ClusterCacheSpec.parse({**wanted, "name": name})
    except SpecError as error:
        raise SpecError(f"overrides.warm_cache.cluster: {error.message}", error.remedy) from None
    return model_cache.render(made, cluster.namespace)[0]


def _check(spec: CacheSpec, uri: str, source: Source) -> str:
    """The model's digest, where the source publishes those of its files; the registered one where it does not.

    Raises:
        ModelError: it is not the model that was registered.
    """
    listed = {file.name: file.sha256 for file in source.files if file.name != _SUMS}
    sums = _sums(uri) if not all(listed.values()) else listed
    if not sums or not all(sums.values()):
        return spec.model_digest
    digest = digest_manifest(dict(sorted(sums.items())))
    if spec.model_digest and (digest != spec.model_digest or set(sums) - set(listed)):
        raise ModelError(
            f"{spec.uri} was changed after it was registered: its digest is {digest[:12]}, the registered one's "
            f"{spec.model_digest[:12]}",
            "Run the pipeline again: it makes damaged files anew.",
        )
    return digest


def _sums(uri: str) -> dict[str, str]:
    """The digests of a folder's files that a build in the storage holds; empty where it is in none."""
    root = ""
    with suppress(SpecError):  # none is set
        root = storage.storage()
    parts = uri.removeprefix(f"{root}/store/").split("/")
    if not root or not uri.startswith(f"{root}/store/") or len(parts) < 3:
        return {}
    inside = "".join(f"{part}/" for part in parts[3:])
    text = (storage.read(f"{root}/store/{'/'.join(parts[:3])}/{_SUMS}") or b"").decode()
    rows = [line.partition("  ") for line in text.splitlines() if line]
    return {name.removeprefix(inside): digest for digest, _, name in rows if name.startswith(inside)}
