"""The pods that controllers make of our objects, as far as we write them: templates with their overrides put in."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from goldpath.training.manifests import runtime

Manifest = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
IMAGE = "registry.invalid/goldpath/any:1"
"""Where the cluster's own configuration names the image."""
_TRAINERS = ("TrainingRuntime", "ClusterTrainingRuntime")
_OF_A_POD = {
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "hostIPC",
    "hostNetwork",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "resourceClaims",
    "restartPolicy",
    "securityContext",
    "tolerations",
    "volumes",
}
"""Fields of a predictor that are its pods'; the service account is the team's, and not there in a test."""
_PROBE = {"httpGet": {"path": "/health", "port": 8000}}
_BY_KSERVE: Manifest = {
    "containers": [
        {
            "name": "main",
            "startupProbe": _PROBE,
            "readinessProbe": _PROBE,
            "livenessProbe": _PROBE,
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
    ]
}
"""What KServe 0.20 has below an LLMInferenceService's template: its `kserve-config-llm-template`."""


def pods_of(found: list[Manifest]) -> list[Manifest]:
    """A Pod for each template in a file's objects, in the order of the objects.

    Args:
        found: all objects of a file; runtimes and serving runtimes that are in none are those of `deploy/`.
    """
    made = []
    for one in found:
        for number, spec in enumerate(_specs(one, found)):
            metadata = {"name": f"{one['metadata']['name'][:50]}-{one['kind'].lower()[:5]}-{number}"}
            made.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _whole(spec)})
    return made


def _specs(one: Manifest, found: list[Manifest]) -> Iterator[Manifest]:
    kind, spec = one["kind"], one.get("spec") or {}
    if kind == "Pod":
        yield spec
    elif kind == "TrainJob":
        yield from _trained(spec, found)
    elif kind == "Experiment":
        trial = spec["trialTemplate"]["trialSpec"]
        yield from _specs({"metadata": one["metadata"], **trial}, found)
    elif kind == "PyTorchJob":
        for replicas in spec["pytorchReplicaSpecs"].values():
            yield replicas["template"]["spec"]
    elif kind == "InferenceService":
        for served in (spec, *spec.get("canary", ())):
            yield _predictor(served["predictor"])
    elif kind == "LLMInferenceService":
        for part in (spec, spec.get("prefill") or {}):
            if template := part.get("template"):
                yield _merged(_BY_KSERVE, template)


def _trained(spec: Manifest, found: list[Manifest]) -> Iterator[Manifest]:
    """What the Trainer makes of a job: the runtime's templates, the job's trainer in them, its patches over them."""
    known = {
        **runtime.deployed(),
        **{one["metadata"]["name"]: one for one in found if one["kind"] in _TRAINERS},
    }
    carried = known.get(spec["runtimeRef"]["name"])
    jobs = carried["spec"]["template"]["spec"]["replicatedJobs"] if carried else []
    trainer = spec.get("trainer") or {}
    own = {key: trainer[key] for key in ("image", "command", "args", "env") if key in trainer}
    if asked := trainer.get("resourcesPerNode"):
        own["resources"] = asked
    for job in jobs:
        template = job["template"]["spec"]["template"]["spec"]
        if "trainjob-ancestor-step" in str(job["template"].get("metadata")) or job["name"] == "node":
            template = _merged(template, {"containers": [{"name": template["containers"][0]["name"], **own}]})
        for patch in spec.get("runtimePatches", ()):
            for patched in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
                if patched["name"] == job["name"]:
                    template = _merged(template, patched["template"]["spec"]["template"]["spec"])
        yield template


def _predictor(predictor: Manifest) -> Manifest:
    """What KServe makes of a predictor: the container of our serving runtime, the model's fields over it."""
    model = predictor.get("model") or {}
    serving = yaml.safe_load((ROOT / "deploy/serving/serving-runtime.yaml").read_text())["spec"]
    base = (
        serving if model.get("runtime") == serving_name() else {"containers": [{"name": "kserve-container"}]}
    )
    named = {"name": base["containers"][0]["name"]}
    own = {
        key: value
        for key, value in model.items()
        if key in ("args", "env", "resources", "securityContext", "volumeMounts")
    }
    pod = {key: value for key, value in predictor.items() if key in _OF_A_POD}
    from_runtime = {key: value for key, value in base.items() if key in _OF_A_POD}
    return _merged(_merged(from_runtime, pod), {"containers": [{**named, **own}]})


def serving_name() -> str:
    """Of the serving runtime of `deploy/`."""
    made = yaml.safe_load((ROOT / "deploy/serving/serving-runtime.yaml").read_text())
    return str(made["metadata"]["name"])


def _whole(spec: Manifest) -> Manifest:
    """With what the cluster's own configuration adds: images, and no service account of the team's."""
    made = {key: value for key, value in copy.deepcopy(spec).items() if key in _OF_A_POD}
    for container in (*made["containers"], *made.get("initContainers", ())):
        container.setdefault("image", IMAGE)
    if made.get("restartPolicy") is None:
        made["restartPolicy"] = "Never"
    return made


def _merged(one: Any, other: Any) -> Any:
    """A strategic merge: lists whose items have names by these, other lists as a whole."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            key: _merged(one[key], other[key]) if key in one and key in other else {**one, **other}[key]
            for key in {**one, **other}
        }
    if (
        isinstance(one, list)
        and isinstance(other, list)
        and all("name" in item for item in (*one, *other) if isinstance(item, dict))
    ):
        if any(not isinstance(item, dict) for item in (*one, *other)):
            return other
        by_name = {item["name"]: item for item in one}
        for item in other:
            by_name[item["name"]] = _merged(by_name.get(item["name"], {}), item)
        return list(by_name.values())
    return other
