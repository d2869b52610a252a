"""`goldpath doctor --gpus` against a server that answers as a cluster does, through the real client."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from goldpath.accelerators import reading
from goldpath.core.errors import MachineError
from tests.accelerators.clusters import CLASSES, SLICES, node

pytestmark = pytest.mark.counted

NODES, DRA = "/api/v1/nodes", "/apis/resource.k8s.io/v1/"


class Api(BaseHTTPRequestHandler):
    """Lists in pages of two; answers with a status where there is no list."""

    lists: ClassVar[dict[str, list[dict[str, Any]]]] = {}
    statuses: ClassVar[dict[str, int]] = {}
    tokens: ClassVar[set[str | None]] = set()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        self.tokens.add(self.headers.get("Authorization"))
        status = self.statuses.get(address.path, 200 if address.path in self.lists else 404)
        if status != 200:
            self._send(status, {"kind": "Status", "code": status})
            return
        items, begin = self.lists[address.path], int(parse_qs(address.query).get("continue", ["0"])[0])
        more = {"continue": str(begin + 2)} if begin + 2 < len(items) else {}
        self._send(200, {"metadata": more, "items": items[begin : begin + 2]})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Api.lists = {
        NODES: [node(f"n{at}", {"nvidia.com/gpu": "4"}) for at in range(5)],
        f"{DRA}resourceslices": SLICES,
        f"{DRA}deviceclasses": CLASSES,
    }
    Api.statuses, Api.tokens = {}, set()
    yield written(tmp_path / "config", f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def written(file: Path, server: str) -> Path:
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                "clusters": [{"name": "here", "cluster": {"server": server}}],
                "users": [{"name": "me", "user": {"token": "abc"}}],
            }
        )
    )
    return file


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    gone = {"KUBERNETES_SERVICE_HOST", "KUBECONFIG"}
    env = {key: value for key, value in os.environ.items() if key not in gone} | environment
    command = [sys.executable, "-m", "goldpath.cli.main", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_all_pages_of_all_lists_are_read_with_the_users_token(kubeconfig: Path) -> None:
    nodes, slices, classes = reading.read(str(kubeconfig))
    assert [one["metadata"]["name"] for one in nodes] == ["n0", "n1", "n2", "n3", "n4"]
    assert (slices, classes) == (SLICES, CLASSES)
    assert Api.tokens == {"Bearer abc"}


def test_a_cluster_without_dra_has_no_devices_of_it(kubeconfig: Path) -> None:
    Api.lists = {NODES: []}
    assert reading.read(str(kubeconfig), "here") == ([], [], [])


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (NODES, 403, "refuses to show its nodes and devices"),
        (f"{DRA}resourceslices", 401, "refuses to show its nodes and devices"),
        (NODES, 500, "answers 500"),
        (NODES, 404, "answers 404"),
    ],
)
def test_an_answer_that_is_no_list_is_told_apart(
    kubeconfig: Path, path: str, status: int, message: str
) -> None:
    Api.statuses = {path: status}
    with pytest.raises(MachineError, match=message):
        reading.read(str(kubeconfig))


def test_a_kubeconfig_that_leads_nowhere_is_told_apart(tmp_path: Path, kubeconfig: Path) -> None:
    with pytest.raises(MachineError, match="cannot be used"):
        reading.read(str(tmp_path / "missing"))
    with pytest.raises(MachineError, match="cannot be used"):
        reading.read(str(kubeconfig), "elsewhere")
    (tmp_path / "torn").write_text("{")
    with pytest.raises(MachineError, match="cannot be used"):
        reading.read(str(tmp_path / "torn"))
    with pytest.raises(MachineError, match=r"no Kubernetes cluster answers at http://127\.0\.0\.1:9"):
        reading.read(str(written(tmp_path / "dead", "http://127.0.0.1:9")))


def test_the_command_tells_people_and_programs(kubeconfig: Path) -> None:
    shown = doctor("--gpus", "--kubeconfig", str(kubeconfig))
    assert shown.returncode == 0, shown.stderr
    assert "6 nodes with GPUs. Paths, the best first: dra-extended, plugin, dra." in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["mig:1g.10gb", "dra", "2"] in rows
    asked = doctor(
        "--gpus", "--json", "--kubeconfig", str(kubeconfig), "--request", "whole:L4", "--request", "none"
    )
    told = json.loads(asked.stdout)
    assert told["available"] is True
    assert [(one["request"], one["path"], one["devices"]) for one in told["services"]] == [
        ("whole:L4", "dra", 1),
        ("none", None, None),
    ]


def test_without_a_cluster_the_command_says_so(tmp_path: Path) -> None:
    plain = doctor("--gpus", HOME=str(tmp_path))
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("error: no Kubernetes cluster is configured")
    assert "--kubeconfig" in plain.stderr
    assert plain.stderr.count("\n") == 1
    told = doctor("--gpus", "--json", HOME=str(tmp_path))
    assert told.returncode == 2
    assert json.loads(told.stdout)["available"] is False
    assert json.loads(told.stdout)["remedy"]


def test_mistakes_on_the_command_line_come_before_the_cluster(tmp_path: Path) -> None:
    assert "doctor --gpus" in doctor(HOME=str(tmp_path)).stderr
    wrong = doctor("--gpus", "--request", "whole*0", HOME=str(tmp_path))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "a count of 0" in wrong.stderr
