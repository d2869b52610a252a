"""Deployments interrupted, killed or looked at in the middle: no orphan before the hand-over, no loss after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.errors import InputError, Interrupted
from goldpath.core.process import kill_tree, sigterm_raises, started_at
from goldpath.serving import endpoints
from goldpath.serving.backends import local
from goldpath.serving.results import Endpoint
from tests.models import make_tiny_model
from tests.serving.conftest import SCRIPT, FakeEngine
from tests.serving.live import ask, engines_running, generations, spec, until


@pytest.mark.parametrize(
    ("raised", "kind"), [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_while_waiting_leaves_no_process(
    fake: FakeEngine, tiny: Path, tmp_path: Path, home: Path, raised: int, kind: type[BaseException]
) -> None:
    (fake.faults / "never").touch()

    def interrupt() -> None:
        until(lambda: len(engines_running(tmp_path)) == 2)
        os.kill(os.getpid(), raised)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with sigterm_raises(), pytest.raises(kind):
        endpoints.deploy(spec(tiny))
    thread.join()
    assert (engines_running(tmp_path), generations(home)) == ([], [])


_DEPLOY = """
import sys
from pathlib import Path
from goldpath.serving import endpoints, engines
sys.path.insert(0, sys.argv[3])
from tests.serving.conftest import FakeEngine
from goldpath.serving.specs import ServeSpec
Path.mkdir = lambda self, *a, make=Path.mkdir, **k: None if self.name == "faults" else make(self, *a, **k)
engines.ENGINES["transformers"] = FakeEngine(Path(sys.argv[1]))
endpoints.deploy(ServeSpec(name="bot", model_uri=sys.argv[2], ready_seconds=60))
"""


def test_kill_9_of_the_deployment_leaves_no_process(fake: FakeEngine, tiny: Path, tmp_path: Path) -> None:
    (fake.faults / "never").touch()
    root = str(SCRIPT.parents[2])
    child = subprocess.Popen([sys.executable, "-c", _DEPLOY, str(fake.faults), str(tiny), root])
    until(lambda: len(engines_running(tmp_path)) == 2)
    child.kill()
    child.wait()
    orphan = json.loads(next(tmp_path.glob("home/endpoints/bot/g-*/state.json")).read_text())["pid"]
    until(lambda: started_at(orphan) is None)
    assert engines_running(tmp_path) == []
    (fake.faults / "never").unlink()
    endpoints.deploy(spec(tiny))
    assert len(list(tmp_path.glob("home/endpoints/bot/g-*"))) == 1  # the remains are cleared away


_THEN_WAIT = (
    _DEPLOY
    + """
print("up", flush=True)
import time
time.sleep(600)
"""
)


def test_who_deployed_it_can_be_ended_with_all_descendants(
    fake: FakeEngine, tiny: Path, tmp_path: Path
) -> None:
    root = str(SCRIPT.parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", _THEN_WAIT, str(fake.faults), str(tiny), root],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    live = endpoints.get("bot")
    engine = ask(live)["pid"]
    kill_tree(child.pid)
    child.communicate()
    assert endpoints.get("bot") == live
    assert ask(live)["pid"] == engine


def test_a_signal_just_after_the_hand_over_leaves_the_new_model_in_service(
    fake: FakeEngine, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = endpoints.deploy(spec(tiny))
    plain = local.write_json

    def write_json(path: Path, value: Any) -> Path:
        written = plain(path, value)
        if path.name == "endpoint.json":
            raise Interrupted("stopped by SIGTERM")
        return written

    monkeypatch.setattr(local, "write_json", write_json)
    with pytest.raises(Interrupted):
        endpoints.deploy(spec(make_tiny_model(tmp_path / "new", seed=1)))
    new = endpoints.get("bot")
    assert (new.status, new.url, new.pid != old.pid) == ("ready", old.url, True)
    until(lambda: started_at(old.pid) is None)
    assert endpoints.healthy(new)


def test_a_stop_leaves_a_deployment_of_the_same_endpoint_alone(
    fake: FakeEngine, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_STOP_S", 0.1)
    endpoints.deploy(spec(tiny))
    endpoints.deploy(spec(tiny, name="other"))
    go_on, waits = threading.Event(), local._await_ready

    def wait(*given: Any) -> dict[str, Any]:
        assert go_on.wait(60)
        return waits(*given)

    monkeypatch.setattr(local, "_await_ready", wait)
    deployed: list[Endpoint] = []
    new = make_tiny_model(tmp_path / "new", seed=1)
    thread = threading.Thread(target=lambda: deployed.append(endpoints.deploy(spec(new))))
    thread.start()
    until(lambda: len(list(tmp_path.glob("home/endpoints/bot/g-*/plan.json"))) == 2)
    with pytest.raises(InputError, match=r"'bot' is being deployed.*goldpath runs cancel"):
        endpoints.stop("bot")
    endpoints.stop("other")  # which nobody deploys
    go_on.set()
    thread.join()
    assert endpoints.list_endpoints() == deployed
    endpoints.stop("bot")
    assert (endpoints.list_endpoints(), engines_running(tmp_path)) == ([], [])


def test_a_listing_leaves_a_deployment_alone_that_replaces_a_dead_endpoint(
    fake: FakeEngine, tiny: Path, tmp_path: Path, home: Path
) -> None:
    old = endpoints.deploy(spec(tiny))
    new = make_tiny_model(tmp_path / "new", seed=1)
    (fake.faults / "never").touch()
    deployed: list[Endpoint] = []
    thread = threading.Thread(target=lambda: deployed.append(endpoints.deploy(spec(new))))
    thread.start()
    until(lambda: len(list(home.glob("endpoints/bot/g-*/state.json"))) == 2)
    os.kill(old.pid, signal.SIGKILL)
    until(lambda: started_at(old.pid) is None)
    assert [one.status for one in endpoints.list_endpoints()] == ["dead"]
    (fake.faults / "never").unlink()
    thread.join()
    assert endpoints.list_endpoints() == deployed
    assert endpoints.healthy(deployed[0])
