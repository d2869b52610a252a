"""Endpoints: adopted, replaced without a gap, restarted, never orphaned; each fault with a clear error."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from goldpath.core.errors import (
    GoldpathError,
    InputError,
    Interrupted,
    MachineError,
    ModelError,
    SpecError,
    StepError,
)
from goldpath.core.ports import bind, free_port
from goldpath.core.process import kill_tree, sigterm_raises, started_at
from goldpath.serving import endpoints, engines
from goldpath.serving.backends import local
from goldpath.serving.forward import Forwarder
from goldpath.serving.results import Endpoint
from goldpath.serving.specs import ServeSpec
from goldpath.serving.supervisor import last_words
from tests.models import make_tiny_model
from tests.serving.conftest import SCRIPT, FakeEngine


def spec(model: Path, **more: Any) -> ServeSpec:
    return ServeSpec.parse({"name": "bot", "model_uri": str(model), "ready_seconds": 20, **more})


def ask(endpoint: Endpoint, path: str = "/health") -> dict[str, Any]:
    with urllib.request.urlopen(endpoint.url.removesuffix("/v1") + path, timeout=5) as answer:
        return dict(json.load(answer))


def until(what: Callable[[], Any], seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return got


def engines_running(tmp_path: Path) -> list[psutil.Process]:
    """Engines and supervisors of this test: theirs are the processes that name its folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        ours = str(tmp_path) in line and ("goldpath.serving.supervisor" in line or SCRIPT.name in line)
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def generations(home: Path) -> list[str]:
    return [path.name for path in (home / "endpoints").glob("bot/g-*")]


def test_deploy_adopt_and_stop(fake: FakeEngine, tiny: Path, tmp_path: Path, home: Path) -> None:
    first = endpoints.deploy(spec(tiny))
    assert first.url.startswith("http://127.0.0.1:")
    assert (first.adopted, first.ready_seconds > 0, endpoints.healthy(first)) == (False, True, True)
    again = endpoints.deploy(spec(tiny, ready_seconds=10))
    assert (again.adopted, again.ready_seconds, again.pid, again.url) == (True, 0, first.pid, first.url)
    assert endpoints.list_endpoints() == [first] == [endpoints.get("bot")]
    endpoints.stop("bot")
    assert engines_running(tmp_path) == []
    assert (endpoints.list_endpoints(), endpoints.healthy(first), generations(home)) == ([], False, [])
    third = endpoints.deploy(spec(tiny))
    assert (third.url, third.adopted) == (first.url, False)  # its last port, as it is free


def test_another_model_takes_over_the_address_without_a_gap(
    fake: FakeEngine, tiny: Path, tmp_path: Path, home: Path
) -> None:
    old = endpoints.deploy(spec(tiny))
    failures: list[Exception] = []
    seen: list[int] = []
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            try:
                seen.append(ask(old)["pid"])
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=client)
    thread.start()
    new = endpoints.deploy(spec(make_tiny_model(tmp_path / "new", seed=1)))
    after = {ask(new)["pid"] for _ in range(10)}
    until(lambda: after <= set(seen))  # the client went from the one
    done.set()
    thread.join()
    assert (new.url, new.adopted) == (old.url, False)
    assert new.model_digest != old.model_digest
    assert failures == []
    assert len(after) == 1
    assert len(set(seen)) == 2  # to the other
    until(lambda: not psutil.pid_exists(old.pid) or len(engines_running(tmp_path)) == 2)
    assert [one.pid for one in endpoints.list_endpoints()] == [new.pid]


def test_a_new_model_that_does_not_start_leaves_the_old_one_in_service(
    fake: FakeEngine, tiny: Path, tmp_path: Path, home: Path
) -> None:
    old = endpoints.deploy(spec(tiny))
    (fake.faults / "crash-at-start").touch()
    with pytest.raises(
        StepError,
        match=r"bot did not start: the engine ended with exit code 1: ValueError: the weights are not",
    ) as caught:
        endpoints.deploy(spec(make_tiny_model(tmp_path / "new", seed=1)))
    log = Path(caught.value.remedy.split(": ")[1].rstrip("."))
    assert "the weights are not to my taste" in log.read_text()
    assert endpoints.get("bot") == old
    assert endpoints.healthy(old)
    assert len(generations(home)) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [("never", "not ready after 2 s"), ("refuse", "the first completion failed with status 400")],
)
def test_never_ready(
    fake: FakeEngine, tiny: Path, tmp_path: Path, home: Path, fault: str, words: str
) -> None:
    (fake.faults / fault).touch()
    with pytest.raises(StepError, match=words):
        endpoints.deploy(spec(tiny, ready_seconds=2))
    assert (engines_running(tmp_path), generations(home), endpoints.list_endpoints()) == ([], [], [])


def test_an_engine_that_cannot_be_started(
    fake: FakeEngine, tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "command", lambda *_: ["/no/such/program", "{port}"])
    with pytest.raises(StepError, match=r"did not start: .*/no/such/program"):
        endpoints.deploy(spec(tiny))


def test_a_crash_is_mended(fake: FakeEngine, tiny: Path) -> None:
    live = endpoints.deploy(spec(tiny))
    crashed = ask(live)["pid"]
    os.kill(crashed, signal.SIGKILL)

    def other() -> bool:
        try:
            return bool(ask(live)["pid"] != crashed)
        except OSError:
            return False

    until(other)
    mended = endpoints.get("bot")
    assert (mended.status, mended.pid, mended.url) == ("ready", live.pid, live.url)


@pytest.mark.parametrize("gone", [False, True])
def test_without_an_engine_the_address_says_to_try_again(gone: bool) -> None:
    async def refused() -> tuple[int, bytes]:
        forwarder = Forwarder(bind(0))
        forwarder.engine_port = free_port() if gone else None
        await forwarder.listen()
        try:
            return await asyncio.to_thread(fetch, forwarder.port)
        finally:
            forwarder.close()

    def fetch(port: int) -> tuple[int, bytes]:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=10)
        return caught.value.code, caught.value.read()

    status, body = asyncio.run(refused())
    assert (status, json.loads(body)["error"]["type"]) == (503, "unavailable")


def test_an_engine_that_says_it_is_not_healthy_is_restarted(fake: FakeEngine, tiny: Path) -> None:
    live = endpoints.deploy(spec(tiny))
    before = ask(live)["pid"]
    (fake.faults / "sick").touch()
    until(lambda: not psutil.pid_exists(before))
    (fake.faults / "sick").unlink()

    def well() -> bool:
        return endpoints.healthy(live) and bool(ask(live)["pid"] != before)

    until(well)


def test_a_crash_loop_ends_with_the_last_words(fake: FakeEngine, tiny: Path, tmp_path: Path) -> None:
    live = endpoints.deploy(spec(tiny))
    engine = ask(live)["pid"]
    (fake.faults / "crash-at-start").touch()
    os.kill(engine, signal.SIGKILL)
    until(lambda: not engines_running(tmp_path))
    report = json.loads(next(tmp_path.glob("home/endpoints/bot/g-*/state.json")).read_text())
    assert "3 times in a row: ValueError: the weights are not to my taste" in report["error"]
    assert [one.status for one in endpoints.list_endpoints()] == ["failed"]
    assert endpoints.list_endpoints() == []  # listed once, then cleared away
    (fake.faults / "crash-at-start").unlink()
    assert endpoints.deploy(spec(tiny)).url == live.url


def test_kill_9_of_the_supervisor_takes_the_engine_along(
    fake: FakeEngine, tiny: Path, tmp_path: Path
) -> None:
    live = endpoints.deploy(spec(tiny))
    os.kill(live.pid, signal.SIGKILL)
    until(lambda: not engines_running(tmp_path))
    assert [one.status for one in endpoints.list_endpoints()] == ["dead"]
    with pytest.raises(InputError, match="there is no endpoint 'bot'"):
        endpoints.get("bot")
    fresh = endpoints.deploy(spec(tiny))
    assert (fresh.adopted, fresh.url) == (False, live.url)


def test_removing_the_state_ends_the_processes(
    fake: FakeEngine, tiny: Path, tmp_path: Path, home: Path
) -> None:
    endpoints.deploy(spec(tiny))
    shutil.rmtree(home)
    until(lambda: not engines_running(tmp_path))
    assert not home.exists()


def test_a_taken_port_names_port_and_process(fake: FakeEngine, tiny: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            MachineError, match=rf"port {port} is taken by .*pid {os.getpid()}.*Choose another"
        ):
            endpoints.deploy(spec(tiny, port=port))
    assert engines_running(tmp_path) == []
    assert endpoints.deploy(spec(tiny, port=port)).url == f"http://127.0.0.1:{port}/v1"
    with pytest.raises(MachineError, match=f"port {port} is taken"):
        endpoints.deploy(spec(tiny, name="other", port=port))


def test_a_port_lost_to_another_after_the_check(
    fake: FakeEngine, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(local, "_is_free", lambda _: True)
        with pytest.raises(StepError, match="cannot take the port: Address already in use"):
            endpoints.deploy(spec(tiny, port=other.getsockname()[1]))


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


def _no_model(tiny: Path) -> ServeSpec:
    return spec(tiny / "missing")


def _cut_model(tiny: Path) -> ServeSpec:
    os.truncate(tiny / "model.safetensors", 2000)
    return spec(tiny)


def _remote(tiny: Path) -> ServeSpec:
    return spec(tiny, model_uri="s3://bucket/model")


@pytest.mark.parametrize(
    ("asked", "kind"), [(_no_model, ModelError), (_cut_model, ModelError), (_remote, InputError)]
)
def test_bad_models(
    fake: FakeEngine, tiny: Path, home: Path, asked: Callable[[Path], ServeSpec], kind: type[GoldpathError]
) -> None:
    with pytest.raises(kind):
        endpoints.deploy(asked(tiny))
    assert not (home / "endpoints" / "bot").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"name": "No_Label"}, {"model_name": "a/b"}, {"port": 70_000}, {"engine": "none"}, {"device": "x"}],
)
def test_bad_specs_name_the_field(tiny: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        spec(tiny, **wrong)


def test_unknown_engine() -> None:
    with pytest.raises(SpecError, match=r"engine is 'vlm'.*transformers"):
        engines.get("vlm")


@pytest.mark.parametrize("name", ["nobody", "../bot"])
def test_stop_of_an_unknown_endpoint(home: Path, name: str) -> None:
    with pytest.raises(InputError, match="there is no endpoint"):
        endpoints.stop(name)


def test_only_this_machine_serves_so_far(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_BACKEND", "kubernetes")
    with pytest.raises(SpecError, match="served by the backend 'local' only"):
        endpoints.list_endpoints()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("INFO: x\nRuntimeError: no memory\nINFO: bye\n", "RuntimeError: no memory"),
        ("Traceback (most recent call last):\n  File a\n    ^^^^\nOSError: gone\nmore\n", "OSError: gone"),
        ("loading\nKilled\n", "Killed"),
        ("first\nlast\n\n", "last"),
        ("Loading weights:  10%|#\rLoading weights: 100%|##\n", ""),
        ("", ""),
    ],
)
def test_last_words(log: str, words: str) -> None:
    assert last_words(log) == words


def test_the_log_of_an_engine_stays_small(
    fake: FakeEngine, tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chatty = 'import os,sys\nos.write(1, b"x" * 12_000_000)\nos.execv(sys.executable, [sys.executable] + sys.argv[1:])'
    plain = fake.command

    def command(*args: Any) -> list[str]:
        return [sys.executable, "-S", "-c", chatty, *plain(*args)[1:]]

    monkeypatch.setattr(fake, "command", command)
    live = endpoints.deploy(spec(tiny))
    sizes = [path.stat().st_size for path in Path(live.log).parent.glob("engine.log*")]
    assert 0 < sum(sizes) < 11_000_000
