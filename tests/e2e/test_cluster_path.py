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
from pathlib import Path

import fsspec
import pytest

from goldpath.training.manifests import runtime
from tests.conftest import TRACED
from tests.e2e.test_golden_path import COMPONENTS, OVERRIDES, place
from tests.kube import Server
from tests.kube.conftest import server
from tests.kube.jobs import Kubelet, searches
from tests.serving.cluster.conftest import engine
from tests.serving.cluster.played import KServe, group, node

__all__ = ["engine", "place", "server"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks S3, its address and keys in the environment as a step has them."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    values = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "GOLDPATH_STORAGE": "s3://path/goldpath",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    fsspec.filesystem("s3").mkdir("path")
    yield "s3://path/goldpath"
    running.stop()


def test_the_same_yaml_runs_on_a_cluster(
    place: Path, server: Server, engine: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for thing in (group(), node(), runtime.render()):
        server.put(thing)
    server._first = set(server.store.things)
    kserve = KServe(server, engine)
    kubelet = Kubelet(server, tmp_path / "pod")
    server.on("TrainJob", kubelet)
    server.on("Experiment", searches(server, [2.5, 2.1]))
    monkeypatch.delenv(TRACED, raising=False)
    values = {
        "dataset": place / "chats.jsonl",
        "model": place / "base",
        "name": "bot",
        "gpu": "none",
        "max_steps": 4,
        "max_trials": 2,
        "min_loss_drop": -5,
        "max_pii_leak_rate": 1,
        "overrides": json.dumps(OVERRIDES),
    }
    words = [word for key, value in values.items() for word in ("-p", f"{key}={value}")]
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, "-m", "goldpath.cli.main", "run", "finetune", "-n", "on-cluster", "--json", *words],
        env={**os.environ, "GOLDPATH_HOME": str(home), "GOLDPATH_BACKEND": "kubernetes"},
        capture_output=True,
        text=True,
        check=False,
    )
    logs = "\n".join(file.read_text()[-2000:] for file in home.glob("runs/*/logs/*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs + "".join(kubelet.outputs)
    told = json.loads(done.stdout)
    assert told["status"] == "succeeded"
    assert told["model"]["champion"] == told["model"]["version"] == "1"
    assert told["endpoint"]["url"].startswith(engine)
    results = {file.stem for file in (home / "runs" / "on-cluster" / "results").glob("*.json")}
    assert results == COMPONENTS
    kinds = sorted(name.split("/")[0] for name in server.created)
    assert [kinds.count(kind) for kind in ("Experiment", "TrainJob", "InferenceService")] == [1, 1, 1]
    (service,) = server.find("InferenceService")
    assert service["spec"]["predictor"]["model"]["storageUri"].startswith(bucket)
    assert kserve.rolled
    trained = json.loads((home / "runs" / "on-cluster" / "results" / "fine_tune.json").read_text())["result"]
    assert trained["steps"] == 4
