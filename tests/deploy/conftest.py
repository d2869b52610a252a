"""A cluster that has what the golden path needs, behind a real HTTP server."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from goldpath.core.checks import needs
from tests.accelerators.clusters import CLASSES, SLICES, node
from tests.accelerators.server import PROXIES, Api, serving
from tests.deploy.manifests import DEPLOY

SPACE = "/api/v1/namespaces/goldpath"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
KSERVE = "/apis/serving.kserve.io/v1alpha1"
SETTINGS = f"{SPACE}/configmaps/goldpath-settings"
SECRET = f"{SPACE}/secrets/goldpath-storage"
KATIB = "/api/v1/namespaces/kubeflow/configmaps/katib-config"
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


def katib_config() -> dict[str, Any]:
    """Katib 0.19's ConfigMap, as its own manifests make it."""
    text = (Path(__file__).parent / "katib-config.yaml").read_text()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "katib-config", "namespace": "kubeflow", "resourceVersion": "7"},
        "data": {"katib-config.yaml": text},
    }


def restricted(config: dict[str, Any]) -> dict[str, Any]:
    """What deploy/katib/restrict.py makes of a ConfigMap."""
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "katib" / "restrict.py")],
        input=yaml.safe_dump(config),
        capture_output=True,
        text=True,
        check=True,
    )
    made: dict[str, Any] = yaml.safe_load(done.stdout)
    return made


def lacks(group: str) -> None:
    """Take an API group away, as if nobody had installed it."""
    gone = f"/apis/{group}"
    Api.objects = {path: one for path, one in Api.objects.items() if path != gone and f"{gone}/" not in path}


@pytest.fixture(scope="session")
def ready() -> dict[str, Any]:
    """Katib's ConfigMap for restricted namespaces."""
    return restricted(katib_config())


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready: dict[str, Any]) -> Iterator[Path]:
    """The kubeconfig of a cluster that can run the golden path."""
    for name in (*PROXIES, "GOLDPATH_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as file:
        Api.objects = {
            "/version": {"gitVersion": "v1.36.2"},
            SPACE: named("goldpath", labels={"pod-security.kubernetes.io/enforce": "restricted"}),
            f"{SPACE}/serviceaccounts/goldpath-pipeline": named("goldpath-pipeline"),
            SETTINGS: {"data": {"GOLDPATH_STORAGE": "s3://bucket/goldpath"}},
            SECRET: named("goldpath-storage"),
            KATIB: ready,
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
