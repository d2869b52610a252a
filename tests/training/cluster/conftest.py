"""A played cluster, and a step of a run that works on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from goldpath.core.kubernetes import Cluster
from goldpath.training.manifests import runtime
from tests.kube import QUICK, Server
from tests.kube.roles import of_the_pipelines


@pytest.fixture
def cluster(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """A cluster with our runtimes, where steps may do what `deploy/base` grants; for the step that the module names.
    Pods hand each other work through a folder."""
    with Server() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        monkeypatch.setenv("GOLDPATH_BACKEND", "kubernetes")
        monkeypatch.setenv("GOLDPATH_RUN", "run-1")
        monkeypatch.setenv("GOLDPATH_STEP", request.module.STEP)
        monkeypatch.setenv("GOLDPATH_STORAGE", f"file://{tmp_path}/shared")
        connect = Cluster.connect
        monkeypatch.setattr(Cluster, "connect", lambda **given: connect(retry=QUICK, **given))
        for one in runtime.deployed().values():
            server.put(one)
        server.enforce(of_the_pipelines())
        yield server


def left(server: Server) -> list[str]:
    """What a step left, the runtimes aside."""
    return [thing for thing in server.left() if not thing.startswith("ClusterTrainingRuntime/")]
