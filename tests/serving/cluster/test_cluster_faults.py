"""With faults all ends as without, and a deployment that is killed or cancelled leaves no loose ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from goldpath.serving import endpoints, model_cache
from goldpath.serving.backends import kubernetes
from goldpath.serving.specs import CacheSpec, ServeSpec
from tests.kube import Faults, Server
from tests.serving.cluster.conftest import Keep
from tests.serving.cluster.played import KServe
from tests.serving.live import until

ROOT = Path(__file__).resolve().parents[3]
RUNS, RATE = 40, 0.2


def golden_path(model: tuple[str, str]) -> list[Any]:
    """Warm, deploy, deploy again, stop: what came of it."""
    uri, digest = model
    warmed = model_cache.warm(CacheSpec.from_form(uri=uri, model_digest=digest, overrides={}))
    asked = ServeSpec.from_form(
        name="bot",
        engine="transformers",
        model_uri=warmed.uri,
        model_digest=warmed.digest,
        overrides={"deploy": {"cluster": {"max_replicas": 2}}},
    )
    live, again = endpoints.deploy(asked), endpoints.deploy(asked)
    listed = [one.name for one in endpoints.list_endpoints()]
    endpoints.stop("bot")
    timeless = {"ready_seconds": 0.0, "seconds": 0.0}
    return [one.model_copy(update=timeless) for one in (warmed, live)] + [again.adopted, listed]


@pytest.mark.e2e
def test_runs_with_faults_end_as_without(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep()
    monkeypatch.setenv("GOLDPATH_RUN", "without")
    without = golden_path(model)
    (cache,) = server.left()
    assert cache.startswith("LocalModelNamespaceCache/")
    server.drop(*cache.split("/"))
    made, happened = sorted(server.created), set()
    for seed in range(RUNS):
        monkeypatch.setenv("GOLDPATH_RUN", f"run-{seed}")
        server.created.clear()
        server.faults = Faults(rate=RATE, seed=seed)
        assert golden_path(model) == without, seed
        happened |= set(server.faults.done)
        server.faults = Faults()
        assert server.left() == [cache], seed
        assert sorted(server.created) == made, f"{seed}: nothing is made twice"
        server.drop(*cache.split("/"))
    assert happened >= {"429", "500", "drop-before", "drop-after", "conflict"}


def start(server: Server, model: tuple[str, str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.serving.cluster.step_process", *model, str(folder)],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": str(server.kubeconfig(folder))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_step_that_is_killed_leaves_what_its_retry_adopts(
    server: Server, kserve: KServe, keep: Keep, tmp_path: Path
) -> None:
    model = keep()
    kserve.starts = "never"
    first = start(server, model, tmp_path)
    until(lambda: server.find("Pod"), 60)
    (begun,) = server.find("InferenceService")
    first.kill()
    first.communicate(timeout=60)
    kserve.starts = "ready"
    server.edit("InferenceService", "bot", lambda now: now["status"].update(seen=1))
    second = start(server, model, tmp_path)
    out, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert out.strip() == f"{kserve.url}/v1"
    assert json.loads((tmp_path / "endpoint.json").read_text())["result"]["adopted"]
    (live,) = server.find("InferenceService")
    assert live["metadata"]["uid"] == begun["metadata"]["uid"]
    assert server.created == ["InferenceService/bot"]


@pytest.mark.counted
def test_a_step_that_is_cancelled_takes_its_service_along(
    server: Server, kserve: KServe, keep: Keep, tmp_path: Path
) -> None:
    kserve.starts = "never"
    step = start(server, keep(), tmp_path)
    until(lambda: server.find("Pod"), 60)
    step.send_signal(signal.SIGTERM)
    _, said = step.communicate(timeout=60)
    assert step.returncode == 2, said
    assert server.left() == []


def test_a_cancelled_retry_takes_along_what_the_killed_try_began(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep()
    asked = ServeSpec(name="bot", model_uri=model[0], model_digest=model[1])
    kserve.starts = "never"
    monkeypatch.setattr(kubernetes, "_await", interrupted)
    with monkeypatch.context() as patch:
        patch.setattr(kubernetes.objects, "restore", lambda *_: None)  # a kill cleans nothing
        with pytest.raises(KeyboardInterrupt):
            endpoints.deploy(asked)
    assert server.find("InferenceService")
    with pytest.raises(KeyboardInterrupt):
        endpoints.deploy(asked)
    assert server.left() == []


def test_a_retry_that_fails_leaves_what_the_first_try_has_brought_up(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep()
    asked = ServeSpec(name="bot", model_uri=model[0], model_digest=model[1])
    endpoints.deploy(asked)
    monkeypatch.setattr(kubernetes, "_await", interrupted)
    with pytest.raises(KeyboardInterrupt):
        endpoints.deploy(asked)
    assert endpoints.healthy(endpoints.get("bot"))


def test_a_cancelled_wait_for_another_runs_deployment_leaves_it(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep()
    asked = ServeSpec(name="bot", model_uri=model[0], model_digest=model[1])
    endpoints.deploy(asked)
    monkeypatch.setenv("GOLDPATH_RUN", "run-2")
    monkeypatch.setattr(kubernetes, "_await", interrupted)
    with pytest.raises(KeyboardInterrupt):
        endpoints.deploy(asked)
    assert server.find("InferenceService")


def interrupted(*_: object) -> str:
    raise KeyboardInterrupt
