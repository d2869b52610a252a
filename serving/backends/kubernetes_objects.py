"""What an endpoint on a cluster is made of: its objects from a spec, found again by their label, put and restored."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from goldpath.accelerators import reading
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.models import load
from goldpath.accelerators.placement import Placement
from goldpath.accelerators.render import place
from goldpath.accelerators.requests import GpuRequest
from goldpath.core.digest import digest_json
from goldpath.core.kubernetes import Cluster, ClusterError, Ref, label_value
from goldpath.core.kubernetes.refs import OURS, in_deletion, labels_of
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.cluster_deploy import cluster_spec
from goldpath.serving.cluster_parts import Canary
from goldpath.serving.manifests import autoscaling, inference_service, llm_inference_service, read
from goldpath.serving.results import Endpoint
from goldpath.serving.specs import ServeSpec

Manifest = dict[str, Any]
ENDPOINT = "goldpath.io/endpoint"
"""Label of all objects of an endpoint: its name."""
_STATUS = {"ready": "ready", "waiting": "starting", "failed": "failed"}
KSERVE_LABEL = "serving.kserve.io/inferenceservice"
"""Label of an InferenceService's pods."""
LLM = "LLMInferenceService"
SERVICES = {"InferenceService": "serving.kserve.io/v1beta1", LLM: "serving.kserve.io/v1alpha2"}
KINDS = {
    "inference-service": (SERVICES["InferenceService"], "InferenceService"),
    "llm-inference-service": (SERVICES[LLM], LLM),
}
"""`ClusterServeSpec.kind` to version and kind."""
_BESIDE = {
    "ScaledObject": "keda.sh/v1alpha1",
    "ConfigMap": "v1",
    "ResourceClaimTemplate": "resource.k8s.io/v1",
}
_SHARED = "ResourceClaim"
"""Belongs to all who name it, so no endpoint removes one."""
_FIXED = (_SHARED, "ResourceClaimTemplate")
"""Kinds whose spec cannot be changed; their names tell apart what differs."""
_RECORD = "goldpath.io/"
_FIELDS = {
    "serve": "serve-digest",
    "uri": "model-uri",
    "digest": "model-digest",
    "version": "model-version",
    "model": "model-name",
}


@dataclass(frozen=True)
class Plan:
    """The objects of an endpoint, in the order in which they have to be created."""

    spec: ClusterServeSpec
    before: list[Manifest]
    service: Manifest
    after: list[Manifest]
    digest: str
    """Of all of them and of the model: what is live and has the same is adopted."""

    def refs(self, cluster: Cluster) -> set[Ref]:
        """Their references, as they are on the cluster."""
        return {Ref.of(one).within(cluster.namespace) for one in (*self.before, self.service, *self.after)}


def plan(cluster: Cluster, asked: ServeSpec, revision: str = "", canary: Canary | None = None) -> Plan:
    """What to put on the cluster for a deployment; nothing is created.

    Args:
        cluster: read for its GPUs.
        asked: what to serve.
        revision: the predictor's name, which its pods keep.
        canary: a model beside it.

    Raises:
        SpecError: it cannot be served so; the cluster has no such GPU.
        ModelError: its config.json is needed for a check and cannot be read.
        GoldpathError: the cluster cannot be read.
    """
    spec = cluster_spec(asked, revision, canary)
    placement = _place(cluster, spec.gpu, spec.name)
    if spec.kind == "llm-inference-service":
        own = spec.prefill.gpu if spec.prefill else None
        prefill = _place(cluster, own, f"{spec.name}-prefill") if own else None
        made = llm_inference_service.render(spec, placement, _architecture(spec), cluster.namespace, prefill)
    else:
        made = inference_service.render(spec, placement, _architecture(spec), cluster.namespace)
    *before, service = made
    after = autoscaling.render(spec, cluster.namespace)
    for manifest in (*before, service, *after):
        if manifest["kind"] != _SHARED:
            manifest["metadata"]["labels"][ENDPOINT] = label_value(spec.name)
    digest = digest_json([*before, service, *after, asked.model_digest])
    told = {"serve": digest, "uri": spec.model_uri, "digest": asked.model_digest}
    told |= {"version": asked.model_version, "model": spec.served_name}
    _annotations(service).update({f"{_RECORD}{_FIELDS[key]}": value for key, value in told.items()})
    return Plan(spec, before, service, after, digest)


def endpoint(thing: Manifest, cluster: Cluster, url: str) -> Endpoint:
    """The endpoint that a service is."""
    told, name = record(thing), thing["metadata"]["name"]
    label = "app.kubernetes.io/name" if thing["kind"] == LLM else KSERVE_LABEL
    return Endpoint(
        name=name,
        url=url,
        model=told.get("model", name),
        model_version=told.get("version", ""),
        model_path=told.get("uri", ""),
        model_digest=told.get("digest", ""),
        engine="vllm",
        pid=0,
        pid_started=0,
        ready_seconds=0,
        adopted=True,
        log=f"`kubectl logs -n {cluster.namespace} -l {label}={name}`",
        status=_STATUS[read.service(thing).state],
    )


def record(thing: Manifest) -> dict[str, str]:
    """What `plan` noted on a service: serve (digest), uri, digest, version, model."""
    return {key: str(value) for key in _FIELDS if (value := annotation_of(_annotations(thing), key))}


def annotation(pod: Manifest, key: str) -> str:
    """The same of a pod, onto which KServe copies it."""
    return annotation_of((pod.get("metadata") or {}).get("annotations") or {}, key)


def annotation_of(annotations: dict[str, str], key: str) -> str:
    """One field of the record; empty where it is not noted."""
    return annotations.get(f"{_RECORD}{_FIELDS[key]}", "")


def revision(live: Manifest | None) -> str:
    """The name of a service's predictor; a canary that took over has left its own."""
    return str(((live or {}).get("spec") or {}).get("predictor", {}).get("name", ""))


def put(cluster: Cluster, manifest: Manifest) -> None:
    """Create an object, or bring the present one to this content; a service's labels stay, for they are its pods'."""
    ref = Ref.of(manifest)
    if manifest["kind"] in _FIXED:
        cluster.create_or_adopt(manifest, keep=True)
        return
    present = cluster.get(ref)
    if manifest["kind"] not in SERVICES or present is None or in_deletion(present):
        cluster.apply(manifest)
        return

    def edit(thing: Manifest) -> None:
        thing["spec"] = copy.deepcopy(manifest["spec"])
        thing["metadata"].setdefault("annotations", {}).update(manifest["metadata"].get("annotations") or {})

    cluster.change(ref, edit)


def services(cluster: Cluster) -> list[Manifest]:
    """The services of all endpoints."""
    found = []
    for kind, api in SERVICES.items():
        if cluster.has(api, kind):
            found += cluster.find(api, kind, labels=OURS)
    return [thing for thing in found if labels_of(thing).get(ENDPOINT) == thing["metadata"]["name"]]


def belonging(cluster: Cluster, name: str) -> list[Manifest]:
    """All objects of an endpoint, in the order in which they can be removed."""
    found: list[Manifest] = []
    for kind, api in {**_BESIDE, **SERVICES}.items():
        if not cluster.has(api, kind):
            continue
        try:
            found += cluster.find(api, kind, labels={**OURS, ENDPOINT: label_value(name)})
        except ClusterError as error:
            if error.status != 403 or kind in SERVICES:  # who may not see them has made none
                raise
    order = ("ScaledObject", *SERVICES)
    return sorted(found, key=lambda one: order.index(one["kind"]) if one["kind"] in order else len(order))


def restore(cluster: Cluster, name: str, before: list[Manifest]) -> None:
    """Bring the objects of an endpoint back to what they were; what was not there is removed."""
    for thing in before:
        if thing["kind"] in _FIXED or cluster.get(Ref.of(thing)) is None:
            continue

        def edit(now: Manifest, then: Manifest = thing) -> None:
            now["metadata"]["annotations"] = copy.deepcopy(then["metadata"].get("annotations") or {})
            for key in ("spec", "data"):
                if key in then:
                    now[key] = copy.deepcopy(then[key])
            if then["kind"] in SERVICES:
                now["spec"].pop("canary", None)  # of a try that was killed

        cluster.change(Ref.of(thing), edit)
    there = {Ref.of(thing) for thing in before}
    for thing in belonging(cluster, name):
        if Ref.of(thing) not in there and not in_deletion(thing):
            cluster.remove(Ref.of(thing), propagation="Background", wait_s=0)


def pods(cluster: Cluster, name: str) -> list[Manifest]:
    """The pods of an InferenceService that are not on their way out; none where they may not be seen."""
    try:
        found = cluster.find("v1", "Pod", labels={KSERVE_LABEL: name})
    except ClusterError as error:
        if error.status == 403:
            return []
        raise
    return [pod for pod in found if not in_deletion(pod)]


def is_ready(pod: Manifest) -> bool:
    """Whether it takes requests."""
    told = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in told)


def _annotations(service: Manifest) -> dict[str, str]:
    """Those that the pods get and the service does not, where the kind has such."""
    if service["kind"] == LLM:
        found: dict[str, str] = service["metadata"].setdefault("annotations", {})
    else:
        found = service["spec"]["predictor"].setdefault("annotations", {})
    return found


def _place(cluster: Cluster, request: GpuRequest, name: str) -> Placement:
    """What a GPU request becomes on this cluster; without a GPU nothing is looked at."""
    if request.none:
        return Placement(request=request)
    # A claim's template cannot be changed: another request is another template.
    named = f"{name}-{digest_json(str(request))[:8]}"
    return place(request, reading.paths_of(cluster), name=named, namespace=cluster.namespace)


def _architecture(spec: ClusterServeSpec) -> Architecture | None:
    """Read only where a check needs it: it costs a request to the storage."""
    if spec.architecture:
        return load(spec.architecture)
    if spec.kv.lmcache or spec.context_length or spec.workers > 1:
        return load(spec.model_uri)
    return None
