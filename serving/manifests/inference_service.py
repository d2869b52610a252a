"""InferenceService (serving.kserve.io/v1beta1) in Standard mode, with a canary beside it."""

from __future__ import annotations

from copy import deepcopy

from goldpath.accelerators import render as gpus
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.placement import Placement
from goldpath.core.errors import SpecError
from goldpath.serving.cluster import KSERVE_RUNTIME, ClusterServeSpec
from goldpath.serving.manifests import engine, lmcache
from goldpath.serving.manifests.parts import (
    USER,
    Manifest,
    check_placement,
    container_security,
    metadata,
    pod_security,
    probes,
    resources,
)

_PORT = 8080
_HEALTH = {KSERVE_RUNTIME: "/v2/health/ready"}


def render(
    spec: ClusterServeSpec,
    placement: Placement,
    architecture: Architecture | None = None,
    namespace: str = "",
) -> list[Manifest]:
    """The InferenceService, after the objects that it needs.

    Args:
        spec: of kind inference-service.
        placement: of its GPU request (`accelerators.render.place`).
        architecture: of the model, for LMCache and for checks.
        namespace: empty leaves it to whoever creates the objects.

    Raises:
        SpecError: of another kind, a placement of another request, or a model that cannot be served so.
    """
    if spec.kind != "inference-service":
        raise SpecError(f"the spec's kind is {spec.kind}", "Render it as that, or set kind.")
    check_placement(spec, placement)
    spec.check_model(architecture)
    service: Manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata(spec.name, namespace, _annotations(spec)),
        "spec": {"predictor": _predictor(spec, placement, spec.model_uri)},
    }
    if spec.revision:
        service["spec"]["predictor"] = {"name": spec.revision, **service["spec"]["predictor"]}
    service["spec"]["predictor"] |= {"minReplicas": spec.min_replicas, "maxReplicas": spec.max_replicas}
    *beside, made = gpus.inference_service(service, placement)
    if spec.canary:
        made["spec"]["canary"] = [_canary(spec, placement, service)]
    return [*lmcache.render(spec, namespace), *beside, made]


def _annotations(spec: ClusterServeSpec) -> dict[str, str]:
    """`external`: the replicas are those of our ScaledObject. `none`: they stay as many as asked for."""
    made = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "external" if spec.scales else "none",
        "serving.kserve.io/enable-prometheus-scraping": "true",
    }
    if spec.node_group:
        made["serving.kserve.io/nodegroup"] = spec.node_group
    return made


def _predictor(spec: ClusterServeSpec, placement: Placement, uri: str) -> Manifest:
    scratch = [{"name": "tmp", "emptyDir": {}}, {"name": "home", "emptyDir": {}}]
    seen = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": "/home/goldpath"}]  # noqa: S108
    made: Manifest = {
        "model": {
            "modelFormat": {"name": "huggingface"},
            "runtime": spec.serving_runtime,
            "storageUri": uri,
            **({"image": spec.image} if spec.image else {}),
            "args": engine.arguments(spec),
            "env": engine.environment(spec),
            "resources": resources(spec),
            **probes(spec, _HEALTH.get(spec.serving_runtime, "/health"), _PORT),
            "securityContext": container_security(placement),
            "volumeMounts": [*seen, *engine.mounts(spec)],
        },
        "securityContext": {**pod_security(), "runAsUser": USER},
        "automountServiceAccountToken": False,
        "volumes": [*scratch, *engine.volumes(spec)],
    }
    if spec.service_account:
        made["serviceAccountName"] = spec.service_account
    if spec.kv.mode == "lmcache-in-process":
        made["annotations"] = {"goldpath.io/lmcache-settings": lmcache.settings_digest(spec)}
    return made


def _canary(spec: ClusterServeSpec, placement: Placement, service: Manifest) -> Manifest:
    """The other model, with as many replicas of its own as asked for: KServe would take none for 0 %."""
    canary = spec.canary
    if canary is None:
        raise AssertionError("no canary")
    other = deepcopy(service)
    other["spec"]["predictor"] = _predictor(spec, placement, canary.model_uri)
    *_, placed = gpus.inference_service(other, placement)
    # KServe 0.20's schema wants the container's name here, and refuses it in the predictor beside.
    placed["spec"]["predictor"]["model"] = {
        "name": "kserve-container",
        **placed["spec"]["predictor"]["model"],
    }
    predictor = {"name": canary.revision, **placed["spec"]["predictor"], "minReplicas": canary.replicas}
    return {"predictor": predictor, "trafficPercent": canary.percent}
