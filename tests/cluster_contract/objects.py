"""What is tried: every object that our code renders, in golden files and from examples, and what is deployed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from goldpath.pipelines import manifests

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "deploy/examples").rglob("*.yaml"))
GOLDEN = sorted(file for file in ROOT.glob("tests/*/**/golden/**/*.yaml") if "render" not in file.parts)
"""But for the examples' own: those are rendered."""
DEPLOYED = sorted(
    file
    for pattern in ("runtimes/*.yaml", "serving/*.yaml", "gpus/dra/*.yaml")
    for file in (ROOT / "deploy").glob(pattern)
    if file.name != "kustomization.yaml"
)
FILES = [*EXAMPLES, *GOLDEN, *DEPLOYED]
OTHERS = ROOT / "tests/accelerators/golden"
"""What a GPU request becomes on people's own workloads: how their pods run is theirs to say."""
GPU_EXAMPLES = [file for file in EXAMPLES if file.parent.name in ("gpus", "claims") or file.stem == "claims"]
Manifest = dict[str, Any]


def named(file: Path) -> str:
    return str(file.relative_to(ROOT).with_suffix(""))


def objects(file: Path) -> list[Manifest]:
    """The objects of a file: as they stand there, or as its spec is rendered."""
    text = file.read_text()
    if file in EXAMPLES:
        return manifests.render(text, named(file))
    found = yaml.safe_load_all(text)
    return [one for one in found if isinstance(one, dict) and "apiVersion" in one and "kind" in one]


def restricted(one: Manifest) -> Manifest:
    """A Pod with what Pod Security asks for; any other object as it is."""
    if one["kind"] != "Pod":
        return one
    made = copy.deepcopy(one)
    made["spec"]["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in made["spec"]["containers"]:
        container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return made


def moved(found: list[Manifest], namespace: str, suffix: str, of_the_cluster: set[str]) -> list[Manifest]:
    """The same objects in another namespace; those of the cluster, and what refers to them, under names of our own.

    Args:
        found: of one file.
        namespace: where they go.
        suffix: of the names of objects that belong to the cluster.
        of_the_cluster: the kinds that do.
    """
    names = {
        one["metadata"]["name"]: f"{one['metadata']['name']}-{suffix}"
        for one in found
        if one["kind"] in of_the_cluster
    }
    return [_moved(one, namespace, names, of_the_cluster) for one in found]


def _moved(one: Manifest, namespace: str, names: dict[str, str], of_the_cluster: set[str]) -> Manifest:
    made = copy.deepcopy(one)
    if one["kind"] in of_the_cluster:
        made["metadata"].pop("namespace", None)
        made["metadata"]["name"] = names[one["metadata"]["name"]]
    else:
        made["metadata"]["namespace"] = namespace
    if (role := made.get("roleRef")) and role["kind"] in of_the_cluster:
        role["name"] = names.get(role["name"], role["name"])
    for subject in made.get("subjects") or ():
        subject["namespace"] = namespace
    for spec in _specs(made):
        if "nodeGroups" in spec:
            spec["nodeGroups"] = [names.get(name, name) for name in spec["nodeGroups"]]
        reference = spec.get("runtimeRef") or {}
        if reference.get("kind") == "ClusterTrainingRuntime":
            reference["name"] = names.get(reference["name"], reference["name"])
    return made


def _specs(made: Manifest) -> Iterator[Manifest]:
    """The object's, and that of the trials that it makes."""
    if isinstance(spec := made.get("spec"), dict):
        yield spec
        if trial := spec.get("trialTemplate", {}).get("trialSpec"):
            yield from _specs(trial)
