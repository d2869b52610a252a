"""The golden path's cluster work, from search to service, where a fifth of all requests goes wrong.

`benchmarks/bench_cluster_faults.py` makes 200 runs, each with faults of its own, and keeps how many there were.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.files import write_json
from goldpath.core.kubernetes import Cluster
from goldpath.core.storage import storage
from goldpath.serving import endpoints, model_cache
from goldpath.serving.specs import CacheSpec, ServeSpec
from goldpath.training.backends import kubernetes
from goldpath.training.manifests import runtime
from goldpath.training.specs import SearchSpec, TrainSpec
from tests.kube import QUICK, Faults, Server
from tests.kube.conftest import server
from tests.kube.jobs import searches, trains
from tests.kube.things import pod
from tests.models import make_tiny_model
from tests.serving.cluster.conftest import Keep, engine, keep, kserve
from tests.serving.cluster.played import KServe

pytestmark = pytest.mark.e2e

__all__ = ["engine", "keep", "kserve", "server"]
RUNS, RATE = int(os.environ.get("GOLDPATH_FAULT_RUNS", "20")), 0.2
FIGURES = {
    "steps": 2,
    "tokens": 100,
    "trainable_parameters": 10,
    "resumed_from": 0,
    "peak_memory_bytes": 10**9,
}
LOSSES = [2.5, None, 2.1]


def golden_path(
    server: Server, run: str, model: tuple[str, str], folder: Path, patch: pytest.MonkeyPatch
) -> list[Any]:
    """Search, train, warm, deploy, stop, each in the pod of a step: what came of each."""
    inputs = (f"{storage()}/frame", f"{storage()}/base")
    spec = TrainSpec.parse({"gpu": "none", "max_steps": 2})
    patch.setenv("GOLDPATH_RUN", run)

    def begin(step: str) -> None:
        patch.setenv("GOLDPATH_STEP", step)
        name = f"{run}-{step.replace('_', '-')}"
        patch.setenv("KFP_POD_NAME", name)
        patch.setenv("KFP_POD_UID", server.put(pod(name))["metadata"]["uid"])

    begin("tune")
    found = kubernetes.search(*inputs, SearchSpec.parse({"max_trials": len(LOSSES)}), spec, run)
    begin("fine_tune")
    slot = folder / "store" / "fine-tune" / run
    slot.mkdir(parents=True)
    figures = kubernetes.train(*inputs, spec, slot)
    weights = (slot / "model" / "model.safetensors").stat().st_size
    begin("deploy")
    uri, digest = model
    warmed = model_cache.warm(CacheSpec.from_form(uri=uri, model_digest=digest, overrides={}))
    asked = ServeSpec.from_form(
        name="bot",
        engine="transformers",
        model_uri=warmed.uri,
        model_digest=warmed.digest,
        overrides={"deploy": {"cluster": {"max_replicas": 2}}},
    )
    live = endpoints.deploy(asked)
    endpoints.stop("bot")
    shutil.rmtree(slot)
    losses = [trial.objective for trial in found.trials]
    return [losses, figures, weights, warmed.uri, live.model_copy(update={"ready_seconds": 0.0})]


@pytest.fixture
def cluster(server: Server, kserve: KServe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Trainer, Katib and KServe."""
    connect = Cluster.connect
    monkeypatch.setattr(Cluster, "connect", lambda **given: connect(**{"retry": QUICK, **given}))
    server.put(runtime.render())
    server.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    server.on("Experiment", searches(server, LOSSES))
    return server


def counted(server: Server) -> list[str]:
    """Kinds of what was created, in order; names differ from run to run."""
    return sorted(name.split("/")[0] for name in server.created)


def end_run(server: Server) -> list[str]:
    """Remove the pods of the run's steps, and what they own goes with them; returns the kinds of what stays."""
    for step in server.find("Pod"):
        server.drop("Pod", step["metadata"]["name"])
    stays = [thing for thing in server.left() if not thing.startswith("ClusterTrainingRuntime/")]
    for thing in stays:  # copies of a model outlive runs, and the next run is to make its own
        server.drop(*thing.split("/"))
    return sorted(thing.split("/")[0] for thing in stays)


def test_runs_with_faults_end_as_without(
    cluster: Server, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep()
    without = golden_path(cluster, "without", model, tmp_path, monkeypatch)
    made, left = counted(cluster), sorted(name.split("/")[0] for name in cluster.left())
    assert made.count("TrainJob") == made.count("Experiment") == made.count("InferenceService") == 1
    stays = end_run(cluster)
    assert "LocalModelNamespaceCache" in stays
    assert not {"TrainJob", "Experiment", "InferenceService", "ConfigMap"} & set(stays)
    happened: Counter[str] = Counter()
    asked = 0
    for seed in range(RUNS):
        cluster.created.clear()
        cluster.faults = Faults(rate=RATE, seed=seed)
        assert golden_path(cluster, f"run-{seed}", model, tmp_path, monkeypatch) == without, seed
        happened.update(cluster.faults.done)
        asked += len(cluster.requests)
        cluster.requests.clear()
        cluster.faults = Faults()
        assert counted(cluster) == made, f"{seed}: nothing is made twice"
        assert sorted(name.split("/")[0] for name in cluster.left()) == left, f"{seed}: nothing else is left"
        assert end_run(cluster) == stays, f"{seed}: the run's pods take the rest along"
    every = {"429", "500", "drop-before", "drop-after", "conflict", "watch-closed", "gone"}
    assert happened.keys() >= every or RUNS < 20, happened
    if file := os.environ.get("GOLDPATH_FAULT_RESULTS"):
        write_json(
            file, {"runs": RUNS, "rate": RATE, "requests": asked, "faults": dict(sorted(happened.items()))}
        )
