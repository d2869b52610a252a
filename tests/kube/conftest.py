"""A server, a cluster connected to it, and things to put on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from goldpath.core.kubernetes import Cluster
from tests.kube import QUICK, Server

Connect = Callable[..., Cluster]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("GOLDPATH_RUN", "GOLDPATH_STEP", "GOLDPATH_NAMESPACE", "KFP_POD_NAME", "KFP_POD_UID"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path)))
        yield running


@pytest.fixture
def connect(server: Server) -> Connect:
    """A cluster as a step of a run sees it."""

    def make(run: str = "run-1", step: str = "fine_tune", **options: object) -> Cluster:
        return Cluster.connect(run=run, step=step, retry=QUICK, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def cluster(connect: Connect) -> Cluster:
    return connect()
