"""A played cluster with KServe, a real HTTP engine behind its services, and models in a bucket."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from goldpath.core import storage
from goldpath.core.digest import digest_manifest, manifest
from goldpath.core.kubernetes import Cluster
from goldpath.core.ports import free_port
from goldpath.core.process import kill_tree, start_detached
from goldpath.serving.backends import kubernetes
from tests.kube import QUICK, Server
from tests.kube.conftest import server
from tests.kube.roles import of_the_pipelines
from tests.models import make_tiny_model
from tests.serving.cluster.played import Bucket, KServe, group, node
from tests.serving.conftest import SCRIPT
from tests.serving.live import until

__all__ = ["server"]
REGISTRY = vars(sys.modules["fsspec.registry"])["_registry"]
Keep = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that answers as the model `bot`."""
    folder = tmp_path_factory.mktemp("engine")
    port = free_port()
    pid = start_detached(
        [sys.executable, "-S", "-u", str(SCRIPT), str(port), "bot", str(folder)], log=folder / "log", env={}
    )
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return True
        except OSError:
            return False

    until(up)
    yield url
    kill_tree(pid, 1)


@pytest.fixture
def kserve(
    server: Server, engine: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> KServe:
    """A cluster with KServe, one node group and one node with GPUs; the process works on it for the run `run-1`, and
    may do what `deploy/base` grants."""
    (tmp_path / "buckets").mkdir()
    monkeypatch.setenv("TEST_BUCKETS", str(tmp_path / "buckets"))
    monkeypatch.setitem(REGISTRY, "s3", Bucket)
    monkeypatch.setenv("GOLDPATH_STORAGE", "s3://team/goldpath")
    monkeypatch.setenv("GOLDPATH_BACKEND", "kubernetes")
    monkeypatch.setenv("GOLDPATH_RUN", "run-1")
    monkeypatch.setenv("GOLDPATH_STEP", "deploy")
    monkeypatch.setattr(kubernetes, "connect", lambda: Cluster.connect(retry=QUICK))
    monkeypatch.setattr(kubernetes, "POLL_S", 0.01)
    monkeypatch.setattr(kubernetes, "ANSWER_S", 0.3)
    for thing in (group(), node()):
        server.put(thing)
    server._first = set(server.store.things)  # what `left` leaves out
    server.enforce(of_the_pipelines())
    return KServe(server, engine)


@pytest.fixture
def keep(kserve: KServe, tmp_path: Path) -> Keep:
    """Puts a model into the storage, as a step does; gives its URI and digest."""

    def put(name: str = "model") -> tuple[str, str]:
        folder = make_tiny_model(tmp_path / name)
        (folder / "generation_config.json").write_text(f'{{"name": "{name}"}}')
        return storage.keep("model", name, folder), digest_manifest(manifest(folder))

    return put
