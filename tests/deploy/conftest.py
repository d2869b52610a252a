"""A cluster that has what the golden path needs, behind a real HTTP server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.checks import needs
from tests.accelerators.clusters import CLASSES, SLICES, node
from tests.accelerators.server import PROXIES, Api, serving

SPACE = "/api/v1/namespaces/goldpath"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
KSERVE = "/apis/serving.kserve.io/v1alpha1"
NODE_GROUPS = f"{KSERVE}/localmodelnodegroups"
CLASSES_OF_STORAGE = "/apis/storage.k8s.io/v1/storageclasses"


def named(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}}


def everything_served() -> dict[str, dict[str, Any]]:
    """Discovery of a cluster with all that the table names."""
    plurals: dict[str, list[str]] = defaultdict(list)
    versions: dict[str, list[str]] = defaultdict(list)
    for use in needs.NAMESPACED + needs.CLUSTER_WIDE:
        if use.group:
            plurals[use.api].append(use.plural)
            versions[use.group] += [use.version] if use.version not in versions[use.group] else []
    found = {
        f"/apis/{api}": {"resources": [{"name": one} for one in names]} for api, names in plurals.items()
    }
    for group, names in versions.items():
        found[f"/apis/{group}"] = {"versions": [{"version": one} for one in names]}
    return found


def lacks(group: str) -> None:
    """Take an API group away, as if nobody had installed it."""
    gone = f"/apis/{group}"
    Api.objects = {path: one for path, one in Api.objects.items() if path != gone and f"{gone}/" not in path}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kubeconfig of a cluster that can run the golden path."""
    for name in (*PROXIES, "GOLDPATH_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as file:
        Api.objects = {
            "/version": {"gitVersion": "v1.36.2"},
            SPACE: named("goldpath", labels={"pod-security.kubernetes.io/enforce": "restricted"}),
            f"{SPACE}/serviceaccounts/goldpath-pipeline": named("goldpath-pipeline"),
            **everything_served(),
        }
        default = {"storageclass.kubernetes.io/is-default-class": "true"}
        Api.lists = {
            "/api/v1/nodes": [node("n0", {"nvidia.com/gpu": "4"})],
            "/apis/resource.k8s.io/v1/resourceslices": SLICES,
            "/apis/resource.k8s.io/v1/deviceclasses": CLASSES,
            f"{TRAINER}/clustertrainingruntimes": [named("goldpath-torch"), named("torch-distributed")],
            f"{TRAINER}/namespaces/goldpath/trainingruntimes": [],
            f"{KSERVE}/clusterservingruntimes": [named("kserve-huggingfaceserver")],
            f"{KSERVE}/namespaces/goldpath/servingruntimes": [named("goldpath-vllm")],
            NODE_GROUPS: [named("gpu-nodes")],
            CLASSES_OF_STORAGE: [named("slow"), named("fast", annotations=default)],
        }
        yield file
