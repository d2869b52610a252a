"""Manifests and controllers that several tests use."""

from __future__ import annotations

from typing import Any

from tests.kube.server import NAMESPACE, Server

Thing = dict[str, Any]


def train_job(name: str = "job", **spec: Any) -> Thing:
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {"runtimeRef": {"name": "torch"}, **spec},
    }


def config_map(name: str = "settings", **data: str) -> Thing:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def model_cache(name: str = "cache", uri: str = "hf://m") -> Thing:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LocalModelCache",
        "metadata": {"name": name},
        "spec": {"sourceModelUri": uri, "modelSize": "1Gi", "nodeGroups": ["gpus"]},
    }


def pod(name: str, owner: Thing | None = None, labels: dict[str, str] | None = None, **status: Any) -> Thing:
    metadata: Thing = {"name": name, "namespace": NAMESPACE, "labels": labels or {}}
    if owner:
        metadata["ownerReferences"] = [reference(owner)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "main"}]},
        "status": status,
    }


def reference(thing: Thing) -> Thing:
    metadata = thing["metadata"]
    return {
        "apiVersion": thing["apiVersion"],
        "kind": thing["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def condition(kind: str, status: str = "True", **more: str) -> Thing:
    return {"type": kind, "status": status, **more}


def trains(server: Server) -> None:
    """A controller that takes a TrainJob through three steps to its end, with a pod of its own."""

    def step(job: Thing) -> Thing | None:
        done = job.get("status", {}).get("trainerStatus", {}).get("progressPercentage", -50)
        if "deletionTimestamp" in job["metadata"] or done >= 100:
            return None
        if done < 0:
            server.put(
                pod(f"{job['metadata']['name']}-node-0", job, {"jobset.sigs.k8s.io/jobset-name": "job"})
            )
        status: Thing = {"trainerStatus": {"progressPercentage": done + 50}}
        if done + 50 >= 100:
            status["conditions"] = [condition("Complete")]
        return status

    server.on("TrainJob", step)


def advance(server: Server, job: Thing) -> None:
    """The next of those steps, once the one before was seen: each takes a watch."""
    done = job.get("status", {}).get("trainerStatus", {}).get("progressPercentage", -50) + 50
    if done <= 100:
        status: Thing = {"trainerStatus": {"progressPercentage": done}}
        status["conditions"] = [condition("Complete")] if done == 100 else []
        server.edit("TrainJob", job["metadata"]["name"], lambda now: now.update(status=status))


def complete(job: Thing) -> str | None:
    """The judge that belongs to it."""
    told = {c["type"]: c["status"] for c in job.get("status", {}).get("conditions", [])}
    return "done" if told.get("Complete") == "True" else None
