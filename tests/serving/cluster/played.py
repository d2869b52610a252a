"""KServe's controllers as they behave, played on the tests' API server; and a bucket that is a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from goldpath.serving.backends import kubernetes_objects as objects
from tests.kube import Server
from tests.kube.things import condition, pod

Thing = dict[str, Any]
NODES = ("node-1", "node-2")


class Bucket(LocalFileSystem):
    """`s3://bucket/x` is a file below the folder that TEST_BUCKETS names."""

    protocol = ("s3", "file")

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        text = str(path)
        if text.startswith("s3://"):
            text = str(Path(os.environ["TEST_BUCKETS"]) / text.removeprefix("s3://"))
        return text.rstrip("/") or "/"


class KServe:
    """Answers InferenceServices and model caches. What it does is set by a test before it deploys."""

    def __init__(self, server: Server, url: str) -> None:
        self.server, self.url = server, url
        self.starts = "ready"
        """ready; never: pods start and are not ready; image: pods cannot pull; load: the model cannot be loaded."""
        self.download = "done"
        """done; error: on node-2; stuck: it does not begin."""
        self.canaries: list[str] = []
        """URIs of models that ran as a canary, in order."""
        self.rolled: list[str] = []
        """URIs of models whose pods became ready, in order."""
        self.blind: set[str] = set()
        """Uids of what is no longer looked at."""
        server.on("InferenceService", self.serve)
        server.on("LLMInferenceService", self.route)
        server.on("LocalModelNamespaceCache", self.copy)
        server.on("LocalModelCache", self.copy)

    def serve(self, service: Thing) -> Thing | None:
        if "deletionTimestamp" in service["metadata"] or service["metadata"]["uid"] in self.blind:
            return None
        status, predictor = service.get("status") or {}, service["spec"]["predictor"]
        if not status:
            return {"conditions": [condition("PredictorReady", "Unknown"), condition("Ready", "Unknown")]}
        wanted = predictor.get("annotations") or {}
        name = service["metadata"]["name"]
        mine = f"{name}-{wanted.get('goldpath.io/serve-digest', 'x')[:10]}"
        pods = {p["metadata"]["name"]: p for p in self.server.find("Pod")}
        made: Thing = {}
        if mine not in pods:
            made = pod(mine, service, {"serving.kserve.io/inferenceservice": name}, **self._pod())
            made["metadata"]["annotations"] = dict(wanted)
            made = self.server.put(made)
            if self.starts == "image":
                self.server.event(made, "Failed", 'Failed to pull image "goldpath/vllm:1": not found')
        beside = [self._beside(service, one["predictor"], pods) for one in service["spec"].get("canary", ())]
        if self.starts == "ready":
            if not objects.is_ready(pods.get(mine, made)):
                self.server.edit("Pod", mine, lambda now: now.update(status=self._pod()))
            if not self.rolled or self.rolled[-1] != predictor["model"]["storageUri"]:
                self.rolled.append(predictor["model"]["storageUri"])
            for old in pods:
                if old not in (mine, *(other["metadata"]["name"] for other in beside)):
                    self.server.drop("Pod", old)
            # Of a Deployment, as KServe has it: it tells nothing about the service.
            return {
                "observedGeneration": 1,
                "url": self.url,
                "conditions": [condition("PredictorReady"), condition("Ready")],
                "canaryStatuses": [
                    {"name": one["predictor"]["name"], "ready": True, "trafficPercent": one["trafficPercent"]}
                    for one in service["spec"].get("canary", ())
                ],
            }
        if len(pods) > (mine in pods):  # another model serves meanwhile
            return None
        failed = condition("PredictorReady", "False", reason="MinimumReplicasUnavailable", message="0 of 1")
        told: Thing = {"conditions": [failed, condition("Ready", "False")]}
        if self.starts == "load":
            info = {"reason": "ModelLoadFailed", "exitCode": 1, "message": "ValueError: no such layer"}
            told["modelStatus"] = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": info}
        return told

    def _beside(self, service: Thing, predictor: Thing, pods: dict[str, Thing]) -> Thing:
        """The pod of a canary; it stays when the predictor takes its name and annotations over."""
        name, told = service["metadata"]["name"], predictor["annotations"]
        mine = f"{name}-{told['goldpath.io/serve-digest'][:10]}"
        if mine in pods:
            return pods[mine]
        self.canaries.append(predictor["model"]["storageUri"])
        made = pod(mine, service, {objects.KSERVE_LABEL: name}, **self._pod())
        made["metadata"]["annotations"] = dict(told)
        return self.server.put(made)

    def _pod(self) -> Thing:
        if self.starts == "image":
            waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image goldpath/vllm:1"}
            return {"containerStatuses": [{"name": "kserve-container", "state": {"waiting": waiting}}]}
        return {"conditions": [condition("Ready", "True" if self.starts == "ready" else "False")]}

    def route(self, service: Thing) -> Thing | None:
        seen = service["metadata"]["generation"]
        return {"observedGeneration": seen, "url": self.url, "conditions": [condition("Ready")]}

    def copy(self, cache: Thing) -> Thing | None:
        nodes = (cache.get("status") or {}).get("nodeStatus") or {}
        if self.download == "stuck" or "deletionTimestamp" in cache["metadata"]:
            return None
        if cache["metadata"]["uid"] in self.blind:
            return None
        if not nodes:
            return {
                "copies": {"total": 2, "available": 0},
                "nodeStatus": dict.fromkeys(NODES, "NodeDownloading"),
            }
        states = dict.fromkeys(NODES, "NodeDownloaded")
        if self.download == "error":
            states["node-2"] = "NodeDownloadError"
        available = sum(state == "NodeDownloaded" for state in states.values())
        return {
            "copies": {"total": 2, "available": available, "failed": 2 - available},
            "nodeStatus": states,
        }


def group(name: str = "gpu") -> Thing:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelNodeGroup",
        "metadata": {"name": name},
    }


def node(name: str = "node-1") -> Thing:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}},
    }
