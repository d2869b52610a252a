"""Holds manifests against what the projects publish: nothing may be wrong, nothing unknown.

- Kubernetes' own kinds against its JSON schemas, as `kubernetes-validate` carries them: the client in use (30.1) has
  neither resource.k8s.io/v1 nor the pod's `resourceClaimName`.
- The kinds of the Trainer and KServe against their CustomResourceDefinitions in ``../shared/crds`` (or
  ``$GOLDPATH_SHARED/crds``), where these are at hand, with unknown fields refused as the API server's strict
  validation does.
- Everything that has a typed model (kubeflow_trainer_api, kserve) against that: nothing may get lost on the way
  through it. Without the CRDs this is what remains for the Trainer and KServe.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("GOLDPATH_SHARED") or ROOT.parent / "shared")
CRDS = SHARED / "crds"
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where it is: the definition of LLMInferenceService has 2 MB, which take Python 10 s."""
KUBERNETES = ("1.34", "1.36")
"""The first with resource.k8s.io/v1, and the one that the project's facts were checked on."""
Manifest = dict[str, Any]


def problems(manifest: Manifest) -> list[str]:
    """What is wrong with a manifest; an empty list where nothing is."""
    group = manifest["apiVersion"].rpartition("/")[0]
    if (
        manifest["kind"] == "Experiment"
    ):  # its definition keeps unknown fields: the typed models are all there is
        return _typed(manifest)
    if group in ("trainer.kubeflow.org", "serving.kserve.io", "kubeflow.org"):
        return [*upstream_problems(manifest), *_typed(manifest)]
    found = [problem for version in KUBERNETES for problem in _native(manifest, version)]
    return [*found, *_typed(manifest)]


def pod_problems(spec: Manifest) -> list[str]:
    """What is wrong with a pod's specification that stands inside something else."""
    return problems({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "inside"}, "spec": spec})


def _native(manifest: Manifest, version: str) -> list[str]:
    group, _, api = manifest["apiVersion"].rpartition("/")
    name = "-".join(filter(None, [manifest["kind"].lower(), group.partition(".")[0], api]))
    try:
        validator = _native_validator(name, version)
    except FileNotFoundError:
        return [f"Kubernetes {version} has no {manifest['apiVersion']} {manifest['kind']}"]
    return [f"{version} {error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


@cache
def _native_validator(name: str, version: str) -> jsonschema.Draft202012Validator:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    schema = json.loads((folder / f"{name}.json").read_text())
    definitions = json.loads((folder / "_definitions.json").read_text())
    registry: Registry[Any] = Resource.from_contents(definitions) @ Registry()
    return jsonschema.Draft202012Validator(schema, registry=registry)


def upstream_problems(manifest: Manifest) -> list[str]:
    """What a CustomResourceDefinition has against a manifest; nothing where the definitions are not at hand."""
    if not CRDS.is_dir():
        return []
    api = manifest["apiVersion"].rpartition("/")[2]
    validator = _upstream_validator(manifest["kind"], api)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


@cache
def _upstream_validator(kind: str, version: str) -> jsonschema.Draft202012Validator:
    for file in sorted(CRDS.rglob("*.yaml")):
        if file.stem.rpartition("_")[2] not in (kind.lower(), f"{kind.lower()}s"):
            continue
        definition = yaml.load(file.read_text(), Loader=FAST)
        if definition["spec"]["names"]["kind"] != kind:
            continue
        for found in definition["spec"]["versions"]:
            if found["name"] == version:
                schema = strict(found["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
                return jsonschema.Draft202012Validator(schema)
    raise AssertionError(f"{CRDS} has no {kind} {version}")


def strict(schema: Any) -> Any:
    """A structural schema that refuses unknown fields, except where it keeps them."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if named and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def _typed(manifest: Manifest) -> list[str]:
    kind = manifest["kind"]
    if kind == "Experiment":
        import kubeflow_katib_api.models as katib

        try:
            return _lost(manifest, katib.V1beta1Experiment.from_dict(manifest).to_dict(), kind)
        except ValueError as error:
            return [f"V1beta1Experiment: {error}"]
    if kind in ("TrainJob", "TrainingRuntime", "ClusterTrainingRuntime", "Pod"):
        import kubeflow_trainer_api.models as models

        model = getattr(models, "IoK8sApiCoreV1Pod" if kind == "Pod" else f"TrainerV1alpha1{kind}")
        try:
            return _lost(manifest, model.from_dict(manifest).to_dict(), kind)
        except ValueError as error:
            return [f"{model.__name__}: {error}"]
    if kind == "InferenceService":
        from kserve.models import V1beta1PredictorSpec

        known = set(V1beta1PredictorSpec.attribute_map.values())
        unknown = sorted(set(manifest["spec"]["predictor"]) - known)
        return [f"V1beta1PredictorSpec has no {name}" for name in unknown]
    if kind == "LLMInferenceService" and "template" in manifest["spec"]:
        return pod_problems(manifest["spec"]["template"])
    return []


def _lost(before: Any, after: Any, where: str) -> list[str]:
    """What a typed model dropped or changed."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            problem
            for key, value in before.items()
            for problem in (
                _lost(value, after[key], f"{where}.{key}") if key in after else [f"{where}.{key} got lost"]
            )
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [problem for at, (a, b) in pairs for problem in _lost(a, b, f"{where}[{at}]")]
    return [] if before == after else [f"{where} is {before!r}, the typed model has {after!r}"]
