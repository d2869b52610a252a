"""What trainings and searches become: kept in files, held against the upstream schemas and Pod Security.

``GOLDPATH_GOLDEN=write pytest tests/training/manifests/test_training_golden.py`` writes the files anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from goldpath.training.manifests import runtime
from tests import schemas
from tests.training.manifests.samples import GPUS, KINDS, NODES, Manifest, pods

GOLDEN = Path(__file__).parent / "golden"
RUNTIMES = Path(__file__).resolve().parents[3] / "deploy/runtimes"
CASES = [(gpu, nodes) for gpu in GPUS for nodes in NODES]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_case = pytest.mark.parametrize(("gpu", "nodes"), CASES)


def written(kind: str) -> str:
    parts = []
    for gpu, nodes in CASES:
        documents = [yaml.safe_dump(one, sort_keys=False, width=1000) for one in KINDS[kind](gpu, nodes)]
        parts.append(f"# {gpu}, nodes: {nodes}\n---\n" + "---\n".join(documents))
    return "".join(parts)


def same_as(file: Path, text: str) -> None:
    if os.environ.get("GOLDPATH_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


@each_kind
def test_each_kind_is_what_its_golden_file_says(kind: str) -> None:
    same_as(GOLDEN / f"{kind}.yaml", written(kind))


@pytest.mark.parametrize("name", runtime.deployed())
def test_the_runtimes_to_deploy_are_those_that_we_render(name: str) -> None:
    text = yaml.safe_dump(runtime.deployed()[name], sort_keys=False, width=1000)
    same_as(RUNTIMES / name, "# Written by goldpath.training.manifests.runtime.\n" + text)


def test_no_file_is_left_over() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {f"{kind}.yaml" for kind in KINDS}
    listed = yaml.safe_load((RUNTIMES / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(runtime.deployed())
    assert {file.name for file in RUNTIMES.glob("*.yaml")} == {"kustomization.yaml", *runtime.deployed()}


@pytest.mark.contract
@each_kind
@each_case
def test_all_is_valid_upstream(kind: str, gpu: str, nodes: int) -> None:
    for made in KINDS[kind](gpu, nodes):
        assert not schemas.problems(made)
        if made["kind"] == "Experiment":
            trial = made["spec"]["trialTemplate"]["trialSpec"]
            assert not schemas.problems({"metadata": {}, **trial})


@pytest.mark.contract
@pytest.mark.parametrize("name", runtime.deployed())
def test_the_runtimes_are_valid_upstream(name: str) -> None:
    assert not schemas.problems(runtime.deployed()[name])


@pytest.mark.contract
@each_kind
@each_case
def test_pods_are_whole_and_restricted(kind: str, gpu: str, nodes: int) -> None:
    found = pods(KINDS[kind](gpu, nodes))
    assert found
    for spec in found:
        assert not schemas.pod_problems(spec)
        assert not unrestricted(spec)


@pytest.mark.parametrize("name", runtime.deployed())
def test_the_runtimes_pods_are_restricted(name: str) -> None:
    for job in runtime.deployed()[name]["spec"]["template"]["spec"]["replicatedJobs"]:
        assert not unrestricted(job["template"]["spec"]["template"]["spec"])


def test_the_check_for_restricted_pods_finds_what_is_missing() -> None:
    bare: Manifest = {"containers": [{"name": "node", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]}
    assert len(unrestricted(bare)) == 5


def unrestricted(spec: Manifest) -> list[str]:
    """What Pod Security "restricted" has against a pod, and mounts without a volume."""
    pod = spec.get("securityContext", {})
    found = []
    if pod.get("runAsNonRoot") is not True or pod.get("runAsUser") == 0:
        found.append("runs as root")
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("no seccomp profile")
    kinds = {key for one in spec.get("volumes", []) for key in one if key != "name"}
    if extra := kinds - {"emptyDir", "persistentVolumeClaim", "configMap", "secret", "projected"}:
        found.append(f"volumes {extra}")
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("the host's namespaces")
    known = {one["name"] for one in spec.get("volumes", [])}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            found.append(f"{container['name']} may gain privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            found.append(f"{container['name']} has capabilities")
        found += [
            f"no volume {m['name']}" for m in container.get("volumeMounts", []) if m["name"] not in known
        ]
    return found
