"""One workload of each consumer, without GPUs, and the clusters that they are rendered for."""

from __future__ import annotations

from typing import Any

from goldpath.accelerators.placement import ClusterPaths, Path, Placement
from goldpath.accelerators.render import inference_service, llm_inference_service, place, pod, train_job
from goldpath.accelerators.requests import parse

Manifest = dict[str, Any]
IMAGE = "registry.example/goldpath:0.1.0"


def a_pod() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "work", "namespace": "team"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": IMAGE, "resources": {"limits": {"memory": "16Gi"}}}],
        },
    }


def a_runtime() -> Manifest:
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {
            "name": "torch-distributed",
            "uid": "4b7e",
            "resourceVersion": "7",
            "labels": {"trainer.kubeflow.org/framework": "torch"},
        },
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {
                "spec": {
                    "replicatedJobs": [
                        {
                            "name": "dataset-initializer",
                            "template": {
                                "metadata": {
                                    "labels": {
                                        "trainer.kubeflow.org/trainjob-ancestor-step": "dataset-initializer"
                                    }
                                },
                                "spec": {
                                    "template": {
                                        "spec": {
                                            "containers": [{"name": "dataset-initializer", "image": IMAGE}]
                                        }
                                    }
                                },
                            },
                        },
                        {
                            "name": "node",
                            "template": {
                                "metadata": {
                                    "labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
                                },
                                "spec": {
                                    "template": {
                                        "spec": {
                                            "containers": [
                                                {
                                                    "name": "node",
                                                    "image": IMAGE,
                                                    "resources": {"limits": {"cpu": "4", "memory": "8Gi"}},
                                                }
                                            ]
                                        }
                                    }
                                },
                            },
                        },
                    ]
                }
            },
        },
    }


def a_train_job() -> Manifest:
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "tuning", "namespace": "team"},
        "spec": {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {"numNodes": 2, "resourcesPerNode": {"limits": {"memory": "32Gi"}}},
        },
    }


def an_inference_service() -> Manifest:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "chat", "namespace": "team"},
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "huggingface"},
                    "storageUri": "s3://models/chat",
                    "resources": {"limits": {"memory": "16Gi"}},
                }
            }
        },
    }


def an_llm_service() -> Manifest:
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": "chat", "namespace": "team"},
        "spec": {
            "model": {"uri": "s3://models/chat", "name": "chat"},
            "replicas": 2,
            "router": {"route": {}},
        },
    }


CONSUMERS = {
    "pod": lambda placement: pod(a_pod(), placement),
    "trainjob": lambda placement: train_job(a_train_job(), placement, a_runtime()),
    "inferenceservice": lambda placement: inference_service(an_inference_service(), placement),
    "llminferenceservice": lambda placement: llm_inference_service(an_llm_service(), placement),
}
NAMES = {
    "pod": "work",
    "trainjob": "tuning",
    "inferenceservice": "chat",
    "llminferenceservice": "chat",
}
H100S = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-NVL")
EVERYTHING = ClusterPaths(
    paths=tuple(path for path in Path if path is not Path.EXTENDED),
    products=(*H100S, "NVIDIA-L4", "NVIDIA-L4-SHARED", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"),
)
EXTENDED = ClusterPaths(
    paths=(Path.EXTENDED,),
    classes=("gpu.nvidia.com", "mig.nvidia.com", "mig-1g-10gb.gpu.nvidia.com", "gpu.amd.com"),
    extended={"gpu.nvidia.com": "nvidia.com/gpu", "mig-1g-10gb.gpu.nvidia.com": "nvidia.com/mig-1g.10gb"},
)
CASES: dict[Path, tuple[str, ...]] = {
    Path.EXTENDED: ("whole*2", "mig:1g.10gb", "dra:gpu.amd.com"),
    Path.PLUGIN: ("whole", "whole:H100*2", "whole:L4"),
    Path.MIG_SINGLE: ("mig:1g.10gb",),
    Path.MIG_MIXED: ("mig:1g.10gb.me", "mig:2g.20gb*2"),
    Path.SHARED: ("shared", "shared:L4", "mig:1g.10gb.shared"),
    Path.SHARED_RENAMED: ("shared", "mig:1g.10gb.shared"),
    Path.MPS: ("mps",),
    Path.MPS_RENAMED: ("mps",),
    Path.DRA: (
        "whole:H100*2",
        "mig:1g.10gb.me",
        "shared",
        "shared:L4;share=team-a;interval=long",
        "mig:1g.10gb.shared",
        "mps:50%,10Gi",
        "mig:2g.20gb.mps;share=team-a",
        "mig:1g.10gb*2;same=parentUUID",
        "dra:gpu.nvidia.com[device.attributes['gpu.nvidia.com'].architecture == 'Hopper']{memory>=70Gi}*2;"
        "same=resource.kubernetes.io/pcieRoot",
        "dra:gpu.nvidia.com{memory=4Gi}",
        "whole:H100+mig:1g.10gb",
        "whole+shared;interval=short",
    ),
}
"""Requests to render on each path."""


def on(path: Path) -> ClusterPaths:
    """A cluster that has this path first and all others besides."""
    base = EXTENDED if path is Path.EXTENDED else EVERYTHING
    others = tuple(other for other in base.paths if other is not path)
    return base.model_copy(update={"paths": (path, *others)})


def placed(text: str, path: Path, consumer: str) -> Placement:
    made = place(parse(text), on(path), name=NAMES[consumer], namespace="team")
    assert made.path is path, f"{text} went to {made.path}"
    return made
