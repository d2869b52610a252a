"""KEDA's ScaledObject (keda.sh/v1alpha1): replicas by what vLLM tells Prometheus.

KServe can make one itself, but without a cool-down, a way up from zero or a fallback, and for an LLMInferenceService
only together with llm-d's autoscaler; so the service says that its replicas are scaled from outside, which is here.
"""

from __future__ import annotations

import json

from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.manifests.parts import Manifest, metadata, predictor_deployment

_ALWAYS_ONE = 1_000_000
"""Requests at the gateway keep one replica up; how many more there are is for the other trigger to say."""


def render(spec: ClusterServeSpec, namespace: str = "") -> list[Manifest]:
    """The ScaledObject; none where the number of replicas is fixed.

    Args:
        spec: of either kind.
        namespace: narrows the query, which else counts the model of that name in all namespaces.
    """
    if not spec.scales:
        return []
    target = deployment(spec)
    wanted: Manifest = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "minReplicaCount": spec.min_replicas,
        "maxReplicaCount": spec.max_replicas,
        "pollingInterval": 15,
        "cooldownPeriod": spec.scaling.idle_seconds,
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": {
                    "scaleDown": {"stabilizationWindowSeconds": min(spec.scaling.idle_seconds, 3_600)}
                }
            }
        },
        "triggers": _triggers(spec, namespace),
    }
    if spec.scaling.metric != "kv-cache":
        # Without Prometheus, stay as many as there are. KEDA has no fallback for a mean over replicas.
        wanted["fallback"] = {
            "failureThreshold": 4,
            "replicas": max(1, spec.min_replicas),
            "behavior": "currentReplicasIfHigher",
        }
    return [
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": metadata(target, namespace),
            "spec": wanted,
        }
    ]


def deployment(spec: ClusterServeSpec) -> str:
    """The Deployment that KServe makes of the service."""
    if spec.kind == "llm-inference-service":
        return f"{spec.name}-kserve"
    return predictor_deployment(spec.name, spec.revision)


def query(spec: ClusterServeSpec, namespace: str = "") -> str:
    """PromQL of the metric, over all replicas. 0 where there is none, for KEDA counts nothing as an error."""
    labels = {"model_name": spec.served_name, **({"namespace": namespace} if namespace else {})}
    of = "{" + ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"
    texts = {
        "waiting": f"sum(vllm:num_requests_waiting{of})",
        "in-flight": f"sum(vllm:num_requests_waiting{of}) + sum(vllm:num_requests_running{of})",
        "kv-cache": f"100 * avg(vllm:kv_cache_usage_perc{of})",
    }
    return f"({texts[spec.scaling.metric]}) or vector(0)"


def _triggers(spec: ClusterServeSpec, namespace: str) -> list[Manifest]:
    scaling = spec.scaling
    made: list[Manifest] = [
        {
            "type": "prometheus",
            "name": scaling.metric,
            # A mean says how full each replica is; a sum is shared out among them.
            "metricType": "Value" if scaling.metric == "kv-cache" else "AverageValue",
            "metadata": {
                "serverAddress": scaling.prometheus,
                "query": query(spec, namespace),
                "threshold": f"{scaling.target:g}",
                "activationThreshold": "0",
            },
        }
    ]
    if spec.min_replicas == 0:
        made.append(
            {
                "type": "prometheus",
                "name": "arriving",
                "metricType": "AverageValue",
                "metadata": {
                    "serverAddress": scaling.prometheus,
                    "query": f"({scaling.wake_query}) or vector(0)",
                    "threshold": str(_ALWAYS_ONE),
                    "activationThreshold": "0",
                },
            }
        )
    return made
