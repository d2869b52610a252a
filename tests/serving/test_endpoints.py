"""Endpoints: adopted, replaced without a gap, restarted, never orphaned; each fault with a clear error."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import threading
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
    MachineError,
    ModelError,
    SpecError,
    StepError,
)
from goldpath.core.ports import bind, free_port
from goldpath.serving import endpoints, engines
from goldpath.serving.backends import local
from goldpath.serving.forward import Forwarder
from goldpath.serving.specs import ServeSpec
from goldpath.serving.supervisor import last_words
from tests.models import make_tiny_model
from tests.serving.conftest import FakeEngine
from tests.serving.live import ask, engines_running, generations, spec, until

pytestmark = pytest.mark.counted


def test_deploy_adopt_and_stop(fake: FakeEngine, tiny: Path, tmp_path: Path, home: Path) -> None:
    first = endpoints.deploy(spec(tiny))
    assert first.url.startswith("http://127.0.0.1:")
    assert (first.adopted, first.ready_seconds > 0, endpoints.healthy(first)) == (False, True, True)
    again = endpoints.deploy(spec(tiny, ready_seconds=10))
    assert (again.adopted, again.ready_seconds, again.pid, again.url) == (True, 0, first.pid, first.url)
    assert endpoints.list_endpoints() == [first] == [endpoints.get("bot")]
    versioned = endpoints.deploy(spec(tiny, model_version="2"))  # the same model, registered since
    assert (versioned.adopted, versioned.pid, endpoints.get("bot").model_version) == (True, first.pid, "2")
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
        monkeypatch.setattr(local, "is_free", lambda _: True)
        with pytest.raises(StepError, match="cannot take the port: Address already in use"):
            endpoints.deploy(spec(tiny, port=other.getsockname()[1]))


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


def test_without_a_cluster_its_backend_says_how_to_name_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLDPATH_BACKEND", "kubernetes")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(MachineError, match=r"none cannot be used.*Set KUBECONFIG"):
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
