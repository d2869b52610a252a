"""LLMInferenceService (serving.kserve.io/v1alpha2): router, scheduler, KV offloading, prefill of its own.

KServe's presets bring image, command, probes and volumes; what stands here is merged into them by container name.
"""

from __future__ import annotations

import math
import shlex

from goldpath.accelerators import render as gpus
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.placement import Placement
from goldpath.core.errors import SpecError
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.manifests import engine
from goldpath.serving.manifests.parts import (
    Manifest,
    check_placement,
    container_security,
    metadata,
    pod_security,
    resources,
)


def render(
    spec: ClusterServeSpec,
    placement: Placement,
    architecture: Architecture | None = None,
    namespace: str = "",
    prefill: Placement | None = None,
) -> list[Manifest]:
    """The LLMInferenceService, after the objects that it needs; with a canary, a second one that shares its route.

    There is never `replicas` together with `scaling`, which KServe refuses: a fixed number is `replicas`, and a
    changing one is neither, for then they are those of our ScaledObject (`scaling` needs llm-d's autoscaler).

    Args:
        spec: of kind llm-inference-service.
        placement: of its GPU request (`accelerators.render.place`).
        architecture: of the model, for LMCache and for checks.
        namespace: empty leaves it to whoever creates the objects.
        prefill: placement of the prefill pods' request, where they have one of their own.

    Raises:
        SpecError: of another kind, a placement of another request, or a model that cannot be served so.
    """
    if spec.kind != "llm-inference-service":
        raise SpecError(f"the spec's kind is {spec.kind}", "Render it as that, or set kind.")
    check_placement(spec, placement)
    own = spec.prefill.gpu if spec.prefill else None
    if own is not None and (prefill is None or prefill.request != own):
        raise SpecError(
            f"prefill.gpu is {own}, which is not placed", "Place it too, and hand the placement over."
        )
    spec.check_model(architecture)
    fixed = None if spec.scales else spec.min_replicas
    objects = _service(spec, placement, prefill, namespace, spec.name, spec.model_uri, fixed)
    if spec.canary:
        name = f"{spec.name}-{spec.canary.revision}"
        more = _service(
            spec, placement, prefill, namespace, name, spec.canary.model_uri, spec.canary.replicas
        )
        for item, percent in ((objects[-1], 100 - spec.canary.percent), (more[-1], spec.canary.percent)):
            item["spec"]["router"]["route"] = {"group": spec.name, "weight": percent}
        objects += [item for item in more if item not in objects]
    return objects


def _service(
    spec: ClusterServeSpec,
    placement: Placement,
    prefill: Placement | None,
    namespace: str,
    name: str,
    uri: str,
    replicas: int | None,
) -> list[Manifest]:
    body: Manifest = {"model": {"uri": uri, "name": spec.served_name}}
    if replicas is not None:
        body["replicas"] = replicas
    body["router"] = {"gateway": {}, "route": {}, "scheduler": {}}
    body |= _workload(spec, placement, spec.workers)
    if spec.prefill:
        at = prefill or placement
        body["prefill"] = {"replicas": spec.prefill.replicas, **_workload(spec, at, max(1, at.request.count))}
    annotations = {"serving.kserve.io/nodegroup": spec.node_group} if spec.node_group else None
    service = {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": metadata(name, namespace, annotations),
        "spec": body,
    }
    return gpus.llm_inference_service(service, placement, prefill)


def _workload(spec: ClusterServeSpec, placement: Placement, workers: int) -> Manifest:
    made: Manifest = {}
    if spec.kv.mode == "offload":
        made["kvCacheOffloading"] = _offloading(spec)
    if workers > 1:
        made["parallelism"] = {"tensor": workers}
    made["template"] = _template(spec, placement)
    return made


def _offloading(spec: ClusterServeSpec) -> Manifest:
    """vLLM's own tiers: the host's memory, then the node's disk."""
    made: Manifest = {"cpu": f"{math.ceil(spec.kv.cpu_gib * 1024)}Mi", "evictionPolicy": spec.kv.eviction}
    if spec.kv.disk_gib:
        made["secondary"] = [{"fileSystem": {"emptyDir": {"size": f"{math.ceil(spec.kv.disk_gib)}Gi"}}}]
    return made


def _template(spec: ClusterServeSpec, placement: Placement) -> Manifest:
    # KServe knows no LMCache in its image, so that one is ours.
    image = spec.image or (engine.IMAGE if spec.kv.lmcache else "")
    container: Manifest = {
        "name": "main",
        **({"image": image} if image else {}),
        # The preset's command puts them through a shell's eval.
        "args": [shlex.quote(argument) for argument in engine.arguments(spec)],
        "env": engine.environment(spec),
        "resources": resources(spec),
        # The preset's probe knows path, port and whether TLS is on; only the deadline is ours.
        "startupProbe": {"periodSeconds": 10, "failureThreshold": -(-spec.ready_seconds // 10)},
        "securityContext": container_security(placement),
    }
    if mounts := engine.mounts(spec):
        container["volumeMounts"] = mounts
    made: Manifest = {"containers": [container], "securityContext": pod_security()}
    if spec.service_account:
        made["serviceAccountName"] = spec.service_account
    if volumes := engine.volumes(spec):
        made["volumes"] = volumes
    return made
