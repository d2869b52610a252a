"""A server that answers reads as a cluster's API does, and the command that asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import yaml

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "KUBERNETES_SERVICE_HOST", "KUBECONFIG")
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Api(BaseHTTPRequestHandler):
    """Lists in pages of two, single objects, reviews of access; answers with a status where there is none."""

    lists: ClassVar[dict[str, list[dict[str, Any]]]] = {}
    objects: ClassVar[dict[str, dict[str, Any]]] = {}
    statuses: ClassVar[dict[str, int]] = {}
    tokens: ClassVar[set[str | None]] = set()
    paths: ClassVar[set[str]] = set()
    """What was read."""
    accepted: ClassVar[dict[str, str]] = {}
    """The form in which each path was asked for last."""
    denied: ClassVar[set[tuple[str, str]]] = set()
    """Verb and resource that nobody may."""
    asked: ClassVar[list[dict[str, Any]]] = []
    """The resource attributes of each review."""
    impersonated: ClassVar[set[str | None]] = set()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        self.tokens.add(self.headers.get("Authorization"))
        self.paths.add(address.path)
        self.accepted[address.path] = self.headers.get("Accept", "")
        known = address.path in self.lists or address.path in self.objects
        status = self.statuses.get(address.path, 200 if known else 404)
        if status != 200:
            self._send(status, {"kind": "Status", "code": status})
            return
        if address.path in self.objects:
            self._send(200, self.objects[address.path])
            return
        items, begin = self.lists[address.path], int(parse_qs(address.query).get("continue", ["0"])[0])
        more = {"continue": str(begin + 2)} if begin + 2 < len(items) else {}
        self._send(200, {"metadata": more, "items": items[begin : begin + 2]})

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.statuses.get(self.path, 201 if self.path == REVIEWS else 404)
        if status != 201:
            self._send(status, {"kind": "Status", "code": status})
            return
        wanted = review["spec"]["resourceAttributes"]
        self.asked.append(wanted)
        self.impersonated.add(self.headers.get("Impersonate-User"))
        plural = "/".join(filter(None, [wanted["resource"], wanted.get("subresource")]))
        allowed = (wanted["verb"], plural) not in self.denied
        self._send(201, {**review, "status": {"allowed": allowed}})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # beyond it a connection is tried again after a second


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """An empty cluster; the kubeconfig that leads there."""
    server = Server(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Api.lists, Api.objects, Api.statuses, Api.denied = {}, {}, {}, set()
    Api.accepted = {}
    Api.tokens, Api.asked, Api.impersonated, Api.paths = set(), [], set(), set()
    yield written(folder / "config", f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def written(file: Path, server: str, namespace: str = "") -> Path:
    inside = {"namespace": namespace} if namespace else {}
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"} | inside}],
                "clusters": [{"name": "here", "cluster": {"server": server}}],
                "users": [{"name": "me", "user": {"token": "abc"}}],
            }
        )
    )
    return file


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    gone = {*PROXIES, "GOLDPATH_NAMESPACE"}
    env = {key: value for key, value in os.environ.items() if key not in gone} | environment
    command = [sys.executable, "-m", "goldpath.cli.main", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)
