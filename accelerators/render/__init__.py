"""Pure functions from a request to what Kubernetes objects carry: dict in, dict out, always in the same order."""

from goldpath.accelerators.render.choose import explain, place
from goldpath.accelerators.render.kserve import inference_service, llm_inference_service
from goldpath.accelerators.render.pods import pod
from goldpath.accelerators.render.trainer import train_job

__all__ = ["explain", "inference_service", "llm_inference_service", "place", "pod", "train_job"]
