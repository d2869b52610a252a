"""The golden path's compiled YAML, unchanged, with the backend of a cluster.

`kfp.local` runs the steps; the API server is the tests' own, its controllers play Katib and KServe, jobs of the Trainer
are real processes with a disk of their own, and what steps and jobs hand each other goes through a bucket.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from packaging.utils import canonicalize_name

from goldpath.core import images
from goldpath.core.digest import digest_bytes, digest_manifest
from goldpath.pipelines import compile_pipeline
from goldpath.training.manifests import runtime
from tests import buckets
from tests.conftest import TRACED
from tests.e2e.test_golden_path import COMPONENTS, OVERRIDES, place
from tests.kube import Server
from tests.kube.conftest import server
from tests.kube.jobs import Kubelet, searches
from tests.registry.model_registry_server import serving
from tests.serving.cluster.conftest import engine
from tests.serving.cluster.played import KServe, group, node

ROOT = Path(__file__).parents[2]
__all__ = ["engine", "place", "server"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What steps and jobs hand each other goes through it."""
    with buckets.bucket(monkeypatch, "path") as uri:
        monkeypatch.setenv("GOLDPATH_STORAGE", f"{uri}/goldpath")
        yield f"{uri}/goldpath"


POD = """
import atexit, os, pathlib, shutil, sys, tempfile

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in LACKS:
            raise ImportError(f"the image launcher has no {name}")

if "kfp.dsl.executor_main" in getattr(sys, "orig_argv", []):
    disk = os.environ["GOLDPATH_HOME"] = tempfile.mkdtemp(dir=os.environ["TEST_DISKS"])
    atexit.register(lambda: [shutil.rmtree(one, ignore_errors=True) for one in pathlib.Path(disk).iterdir()])
    LACKS = frozenset(os.environ["TEST_LACKS"].split())
    if sys.orig_argv[sys.orig_argv.index("--function_to_execute") + 1] in os.environ["TEST_LAUNCHED"].split():
        sys.meta_path.insert(0, Lacking())
"""
"""Python runs it first. Each step gets a disk of its own, as each pod has one, which is gone after it; and on the image
`launcher` only what that holds."""
RUN = """
import json, sys
from kfp import components, local
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
components.load_component_from_file(sys.argv[1])(**json.loads(sys.argv[3]))
"""


def launched(compiled: Path) -> set[str]:
    """The steps that run on the image `launcher`."""
    pipeline = next(yaml.safe_load_all(compiled.read_text()))
    steps = pipeline["deploymentSpec"]["executors"].items()
    return {
        name.removeprefix("exec-").replace("-", "_")
        for name, step in steps
        if step["container"]["image"] == images.launcher()
    }


def lacking() -> set[str]:
    """Import names of what the image `trainer` has and `launcher` has not."""
    listed = (ROOT / "requirements" / "launcher.txt").read_text().splitlines()
    has = {canonicalize_name(line.partition("==")[0]) for line in listed if "==" in line} | {
        "goldpath",
        "pip",
    }
    tools = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    all_of_it = {canonicalize_name(line.partition("==")[0]) for line in tools if "==" in line}
    return {
        name
        for name, owners in packages_distributions().items()
        if not any(canonicalize_name(owner) in has for owner in owners)
        and any(canonicalize_name(owner) in all_of_it for owner in owners)
    }


def play(server: Server, engine: str, disk: Path) -> Kubelet:
    """Trainer, Katib and KServe on the server; returns what runs the pods of trainings."""
    for thing in (group(), node(), runtime.render()):
        server.put(thing)
    KServe(server, engine)
    kubelet = Kubelet(server, disk)
    server.on("TrainJob", kubelet)
    server.on("Experiment", searches(server, [2.5, 2.1]))
    return kubelet


def run_steps(folder: Path, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the compiled pipeline as its steps' pods would, with Kubeflow's Model Registry."""
    for name in ("disks", "first"):
        (folder / name).mkdir()
    (folder / "first" / "sitecustomize.py").write_text(POD)
    compile_pipeline("finetune", folder / "finetune.yaml")
    with serving() as registry:
        return subprocess.run(
            [
                sys.executable,
                "-c",
                RUN,
                str(folder / "finetune.yaml"),
                str(folder / "kfp"),
                json.dumps(values),
            ],
            env={
                **os.environ,
                "GOLDPATH_BACKEND": "kubernetes",
                "GOLDPATH_RUN": "0a1b2c3d-on-cluster",
                "GOLDPATH_MODEL_REGISTRY": registry.url,
                "TEST_DISKS": str(folder / "disks"),
                "TEST_LAUNCHED": " ".join(launched(folder / "finetune.yaml")),
                "TEST_LACKS": " ".join(lacking()),
                "PYTHONPATH": os.pathsep.join([str(folder / "first"), os.environ.get("PYTHONPATH", "")]),
            },
            capture_output=True,
            text=True,
            check=False,
        )


def test_the_same_yaml_runs_on_a_cluster(
    place: Path, server: Server, engine: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubelet = play(server, engine, tmp_path / "pod")
    monkeypatch.delenv(TRACED, raising=False)
    values = {
        "dataset": str(place / "chats.jsonl"),
        "model": str(place / "base"),
        "name": "bot",
        "gpu": "none",
        "max_steps": 4,
        "max_trials": 2,
        "min_loss_drop": -5.0,
        "max_pii_leak_rate": 1.0,
        "overrides": OVERRIDES,
    }
    done = run_steps(tmp_path, values)
    said = done.stdout + done.stderr + "".join(kubelet.outputs)
    assert done.returncode == 0, said
    outcome = {read["step"]: read for read in map(envelope, (tmp_path / "kfp").rglob("*")) if read}
    assert outcome.keys() | {"report"} == COMPONENTS, said
    assert len(list((tmp_path / "disks").iterdir())) == len(COMPONENTS), "no step saw another's disk"
    kinds = [name.split("/")[0] for name in server.created]
    assert [kinds.count(kind) for kind in ("Experiment", "TrainJob", "InferenceService")] == [1, 1, 1]
    assert outcome["fine_tune"]["result"]["steps"] == 4
    assert outcome["deploy"]["result"]["url"].startswith(engine)
    (service,) = server.find("InferenceService")
    model = service["spec"]["predictor"]["model"]["storageUri"]
    assert model.startswith(f"{bucket}/store/fine-tune/")
    assert digest_manifest(stored(model)) == outcome["fine_tune"]["result"]["model_digest"]


def envelope(file: Path) -> dict[str, Any]:
    """A step's result among the artifacts of Kubeflow Pipelines."""
    try:
        read = json.loads(file.read_bytes()) if file.is_file() else {}
    except ValueError:
        return {}
    return read if isinstance(read, dict) and {"step", "result"} <= read.keys() else {}


def stored(uri: str) -> dict[str, str]:
    """Digests of the files below a URI."""
    fs, root = fsspec.url_to_fs(uri)
    return {name.removeprefix(f"{root}/"): digest_bytes(fs.cat_file(name)) for name in fs.find(root)}
