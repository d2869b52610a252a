"""KServe: InferenceService (v1beta1) and LLMInferenceService (v1alpha2)."""

from __future__ import annotations

from copy import deepcopy

from goldpath.accelerators.placement import Placement
from goldpath.accelerators.render.pods import Manifest, give, inside, place_pod
from goldpath.core.errors import SpecError

MODE = "serving.kserve.io/deploymentMode"
_STANDARD = ("Standard", "RawDeployment")
_FRAMEWORKS = (
    "model", "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton",
    "xgboost",
)  # fmt: skip


def inference_service(manifest: Manifest, placement: Placement) -> list[Manifest]:
    """An InferenceService, after the objects that it needs. Claims put it in Standard mode: Knative refuses them.

    Raises:
        SpecError: it has no container, asks for GPUs itself, or wants Knative with claims.
    """
    made = deepcopy(manifest)
    if placement.request.none:
        return [made]
    predictor = made["spec"]["predictor"]
    give(_served(predictor), placement)
    place_pod(predictor, placement)
    if predictor.get("workerSpec") is not None:
        worker = predictor["workerSpec"]
        give(_named(worker, "worker-container"), placement)
        place_pod(worker, placement)
    if placement.pod_claims:
        annotations = inside(made["metadata"], "annotations")
        if annotations.setdefault(MODE, "Standard") not in _STANDARD:
            raise SpecError(
                f"{MODE} is {annotations[MODE]}, which refuses resource claims",
                f"Leave it away or make it Standard: the GPU request {placement.request} needs claims.",
            )
    return [*map(deepcopy, placement.objects), made]


def llm_inference_service(
    manifest: Manifest, placement: Placement, prefill: Placement | None = None
) -> list[Manifest]:
    """An LLMInferenceService, after the objects that it needs.

    Args:
        manifest: the service, without GPUs.
        placement: for its pods, workers too.
        prefill: for the pods that prefill, where it has such; the same as for the others by default.

    Raises:
        SpecError: a container asks for GPUs itself.
    """
    made = deepcopy(manifest)
    spec = made["spec"]
    _workload(spec, placement)
    objects = list(placement.objects)
    if spec.get("prefill") is not None:
        _workload(spec["prefill"], prefill or placement)
        objects += [item for item in (prefill or placement).objects if item not in objects]
    return [*map(deepcopy, objects), made]


def _workload(workload: Manifest, placement: Placement) -> None:
    """Its template, and the workers' where several nodes serve one replica."""
    if placement.request.none:
        return
    for part in ("template", "worker") if workload.get("worker") is not None else ("template",):
        pod_spec = inside(workload, part)
        give(_named(pod_spec, "main"), placement)
        place_pod(pod_spec, placement)


def _served(predictor: Manifest) -> Manifest:
    """The part of a predictor that becomes the container with the model."""
    for framework in _FRAMEWORKS:
        if predictor.get(framework) is not None:
            model: Manifest = predictor[framework]
            return model
    if predictor.get("containers"):
        return _named(predictor, "kserve-container")
    raise SpecError("the InferenceService's predictor has no model and no containers", "Give it a model.")


def _named(pod_spec: Manifest, name: str) -> Manifest:
    """The container of that name, else the first, else a new one: KServe merges it into its own by name."""
    containers: list[Manifest] = pod_spec.get("containers") or []
    pod_spec["containers"] = containers
    if not containers:
        containers.append({"name": name})
    return next((one for one in containers if one.get("name") == name), containers[0])
