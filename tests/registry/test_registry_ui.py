"""MLflow's page over the embedded store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from goldpath.core.errors import MachineError, StepError
from goldpath.registry import models, ui
from goldpath.registry.results import Lineage

Make = Callable[..., tuple[Path, Lineage]]


def listening(port: int) -> set[str]:
    return {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }


@pytest.mark.e2e
def test_the_page_shows_what_is_registered_on_loopback_and_ends_with_ctrl_c(
    registry: Path, model: Make
) -> None:
    folder, lineage = model(1)
    models.register("kube-assistant", folder, lineage, {"loss": 1.0}, {}, accepted=True, compared_with="")
    server = subprocess.Popen(
        [sys.executable, "-c", "from goldpath.registry.ui import serve_ui; serve_ui(0)"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        url = said.split()[3]
        assert said == f"MLflow is at {url} (Ctrl-C ends it)\n"
        family = psutil.Process(server.pid).children(recursive=True)
        assert listening(int(url.rsplit(":", 1)[1])) == {"127.0.0.1"}
        with urllib.request.urlopen(
            f"{url}/api/2.0/mlflow/registered-models/get?name=kube-assistant"
        ) as answer:
            found = json.load(answer)["registered_model"]
        assert found["aliases"] == [{"alias": "champion", "version": "1"}]
        with urllib.request.urlopen(url) as page:
            assert b"<html" in page.read().lower()
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_a_port_that_is_taken_is_named(registry: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {port} on 127.0.0.1 cannot be used") as raised:
            ui.serve_ui(port)
    assert "--port" in raised.value.remedy


def test_a_number_that_is_no_port_is_refused(registry: Path) -> None:
    with pytest.raises(MachineError, match="70000 is not a port"):
        ui.serve_ui(70_000)


def test_a_server_that_fails_shows_its_last_words(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ui, "_command", lambda uri, port: [sys.executable, "-c", "print('out of tune'); raise SystemExit(3)"]
    )
    with pytest.raises(StepError, match="exit code 3: out of tune"):
        ui.serve_ui(0)


def test_it_can_be_stopped_from_code(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ui, "_command", lambda uri, port: [sys.executable, "-c", "import time; time.sleep(600)"]
    )
    assert ui.serve_ui(0, stop=lambda: True).startswith("http://127.0.0.1:")


def test_a_damaged_database_is_named_before_a_server_starts(registry: Path) -> None:
    (registry / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(MachineError, match="is damaged"):
        ui.serve_ui(0)
