"""DRA: ResourceClaimTemplates and shared ResourceClaims of resource.k8s.io/v1, with NVIDIA's settings.

Devices of one's own come from a ResourceClaimTemplate: each pod gets a claim, which goes with it. Devices that are
shared come from one ResourceClaim by name: all pods of the namespace that name it get the same devices.
"""

from __future__ import annotations

import re
from typing import Any

from goldpath.accelerators import expressions, products
from goldpath.accelerators.placement import ClusterPaths, Path, Placement
from goldpath.accelerators.profiles import nvidia_spelling
from goldpath.accelerators.requests import GpuRequest
from goldpath.accelerators.terms import NVIDIA, Capacity, Term
from goldpath.core.digest import digest_json
from goldpath.core.errors import SpecError

API = "resource.k8s.io/v1"
MIG_CLASS = "mig.nvidia.com"
VFIO_CLASS = "vfio.gpu.nvidia.com"
_CARDS = (NVIDIA, VFIO_CLASS)
CARD = "resource.kubernetes.io/pciBusID"
SETTINGS_API = "resource.nvidia.com/v1beta1"
MANAGED = {"app.kubernetes.io/managed-by": "goldpath"}
REQUEST_ANNOTATION = "goldpath/gpu-request"
# resource.k8s.io/v1: AllocationResultsMaxSize, DeviceSelectorsMaxSize, DeviceConstraintsMaxSize
MAX_DEVICES = MAX_SELECTORS = MAX_CONSTRAINTS = 32


def refusal(request: GpuRequest, cluster: ClusterPaths) -> str:
    """Why DRA cannot serve the request; empty where it can."""
    missing = [device_class(term) for term in request.terms if cluster.classes]
    missing = [name for name in missing if name not in cluster.classes]
    if missing:
        return f"there is no DeviceClass {missing[0]}"
    return _too_much(request) or _wrong_cel(request)


def _wrong_cel(request: GpuRequest) -> str:
    """What the API server has against the expressions, ours among them."""
    try:
        for selector in dict.fromkeys(one for term in request.terms for one in selectors_of(term)):
            expressions.check(selector)
    except SpecError as error:
        return error.message
    return ""


def _too_much(request: GpuRequest) -> str:
    """What a claim cannot hold."""
    if any(len(selectors_of(term)) > MAX_SELECTORS for term in request.terms):
        return f"a device can have at most {MAX_SELECTORS} selectors"
    most = MAX_CONSTRAINTS - two_drivers(request.terms)
    if len(request.same) > most:
        return f"devices can match (same=) in at most {most} attributes"
    alone, shared = _groups(request)
    for terms in (alone, shared):
        if sum(term.count for term in terms) > MAX_DEVICES:
            return f"a claim holds at most {MAX_DEVICES} devices"
    if request.same and alone and shared:
        return "devices that must match (same=) have to be all shared or all one's own"
    return ""


def placement(request: GpuRequest, name: str, namespace: str = "") -> Placement:
    """The claims of a workload called `name`; `refusal` has said that DRA can do it."""
    pod_claims, container_claims, objects = [], [], []
    for terms in filter(None, _groups(request)):
        is_shared = _is_shared(request, terms)
        claim = "gpu-shared" if is_shared and len(terms) < len(request.terms) else "gpu"
        spec = _claim(request, terms)
        if is_shared:
            known_as = request.share or shared_name(request, terms)
            objects.append(_object("ResourceClaim", known_as, namespace, _part(request, terms), spec))
            pod_claims.append({"name": claim, "resourceClaimName": known_as})
        else:
            known_as = f"{name}-gpu"
            part = _part(request, terms)
            objects.append(_object("ResourceClaimTemplate", known_as, namespace, part, {"spec": spec}))
            pod_claims.append({"name": claim, "resourceClaimTemplateName": known_as})
        container_claims.append({"name": claim})
    return Placement(
        request=request,
        path=Path.DRA,
        pod_claims=tuple(pod_claims),
        container_claims=tuple(container_claims),
        objects=tuple(objects),
    )


def device_class(term: Term) -> str:
    """The DeviceClass that its devices belong to."""
    return {"whole": NVIDIA, "mig": MIG_CLASS, "dra": term.device_class}[term.kind]


def two_drivers(terms: tuple[Term, ...]) -> bool:
    """Whether it is GPUs for CUDA and others for vfio-pci: each card is offered as both, and can be one of them."""
    return set(_CARDS) <= {device_class(term) for term in terms}


def shared_name(request: GpuRequest, terms: tuple[Term, ...]) -> str:
    """The claim that everybody in the namespace shares who asks for the same, where no name is given."""
    text = _part(request, terms)
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return f"gpu-{slug}-{digest_json(text)[:8]}"


def _part(request: GpuRequest, terms: tuple[Term, ...]) -> str:
    """The text of what one claim holds: the same for all who ask for it, whatever else they ask for."""
    same = tuple(sorted(request.same)) if _is_shared(request, terms) else request.same
    sliced = any(term.time_sliced and term.kind == "whole" for term in terms)
    interval = request.interval if sliced else ""
    return str(GpuRequest(terms=terms, same=same, share=request.share, interval=interval))


def _is_shared(request: GpuRequest, terms: tuple[Term, ...]) -> bool:
    return bool(request.share) or any(term.sharing for term in terms)


def _groups(request: GpuRequest) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """Terms for a claim of one's own, and terms for a shared one; a name to share by takes all of them.

    The shared ones are in one order, so that all who ask for the same name the same claim.
    """
    shared = tuple(term for term in request.terms if term.sharing or request.share)
    return tuple(term for term in request.terms if term not in shared), tuple(sorted(shared, key=str))


def _object(kind: str, name: str, namespace: str, text: str, spec: dict[str, Any]) -> dict[str, Any]:
    where = {"namespace": namespace} if namespace else {}
    annotations = {REQUEST_ANNOTATION: text}
    metadata = {"name": name, **where, "labels": dict(MANAGED), "annotations": annotations}
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}


def _claim(request: GpuRequest, terms: tuple[Term, ...]) -> dict[str, Any]:
    """`ResourceClaimSpec`: which devices, which must match or differ, and NVIDIA's settings for them."""
    if two_drivers(terms):
        # Kubernetes 1.36 compares one device of each request, so that each device needs a request of its own.
        terms = tuple(term.model_copy(update={"count": 1}) for term in terms for _ in range(term.count))
    names = ["gpu"] if len(terms) == 1 else [f"gpu-{index}" for index in range(len(terms))]
    devices: dict[str, Any] = {
        "requests": [
            {"name": name, "exactly": _exactly(term)} for name, term in zip(names, terms, strict=True)
        ]
    }
    same = sorted(request.same) if _is_shared(request, terms) else request.same
    if constraints := [{"matchAttribute": attribute} for attribute in same] + _apart(names, terms):
        devices["constraints"] = constraints
    settings = [(name, _settings(term, request.interval)) for name, term in zip(names, terms, strict=True)]
    if config := [
        {"requests": [name], "opaque": {"driver": NVIDIA, "parameters": parameters}}
        for name, parameters in settings
        if parameters
    ]:
        devices["config"] = config
    return {"devices": devices}


def _apart(names: list[str], terms: tuple[Term, ...]) -> list[dict[str, Any]]:
    """Keeps a GPU for CUDA and one for vfio-pci apart: the scheduler takes the first of either, which is one card.

    It needs the feature gate DRAConsumableCapacity, on by default from Kubernetes 1.36.
    """
    if not two_drivers(terms):
        return []
    both = [name for name, term in zip(names, terms, strict=True) if device_class(term) in _CARDS]
    return [{"requests": both, "distinctAttribute": CARD}]


def _exactly(term: Term) -> dict[str, Any]:
    request: dict[str, Any] = {"deviceClassName": device_class(term)}
    if selectors := selectors_of(term):
        request["selectors"] = [{"cel": {"expression": text}} for text in selectors]
    if term.count > 1:
        request |= {"allocationMode": "ExactCount", "count": term.count}
    if taken := {one.name: one.quantity for one in term.capacity if one.operator == "="}:
        request["capacity"] = {"requests": taken}
    return request


def selectors_of(term: Term) -> list[str]:
    """The CEL expressions, all of which a device must fulfil besides those of its class."""
    if term.kind == "mig":
        return [f"device.attributes['{NVIDIA}'].profile == '{nvidia_spelling(term.profile)}'"]
    if term.kind == "whole":
        return [products.selector(term.product)] if term.product else []
    return [*term.selectors, *(_at_least(term, one) for one in term.capacity if one.operator == ">=")]


def _at_least(term: Term, capacity: Capacity) -> str:
    """CEL that takes devices with enough of it; a driver's own names stand under the driver's domain."""
    domain, _, name = term.qualified(capacity.name).rpartition("/")
    return f"device.capacity['{domain}'].{name}.compareTo(quantity('{capacity.quantity}')) >= 0"


def _settings(term: Term, interval: str) -> dict[str, Any]:
    """NVIDIA's `GpuConfig` or `MigDeviceConfig`.

    A GPU that is shared is used in turns without any setting. Settings need the driver's alpha feature gates
    TimeSlicingSettings or MPSSupport, so there are none unless asked for; on MIG slices turns cannot be set at all.
    """
    sharing: dict[str, Any] = {}
    if term.sharing == "mps":
        limits: dict[str, Any] = {}
        if term.percent is not None:
            limits["defaultActiveThreadPercentage"] = term.percent
        if term.memory:
            limits["defaultPinnedDeviceMemoryLimit"] = term.memory
        sharing = {"strategy": "MPS", **({"mpsConfig": limits} if limits else {})}
    elif term.sharing == "time" and term.kind == "whole" and interval:
        sharing = {"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval.capitalize()}}
    kind = "MigDeviceConfig" if term.kind == "mig" else "GpuConfig"
    return {"apiVersion": SETTINGS_API, "kind": kind, "sharing": sharing} if sharing else {}
