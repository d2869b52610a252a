"""Kubeflow's Model Registry as its OpenAPI says, in memory: the Go server comes in no package of pip, apt or npm.

Requests and answers go through the models that the official client was generated with (unknown fields refused), so
what the client can say is what is understood here. Names are unique as there: of models, and of versions and artifacts
below their parent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import mr_openapi

ROOT = "/api/model_registry/v1/"
KINDS = {
    "registered_models": "RegisteredModel",
    "model_versions": "ModelVersion",
    "model_artifacts": "ModelArtifact",
}


class Answer(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.body = status, {"code": str(status), "message": message}


@dataclass
class Fault:
    """How a request goes wrong."""

    status: int
    times: int = 1
    on: str = ""
    """Start of method and path; empty for any."""
    after: bool = False
    """The write happens all the same."""


@dataclass
class Registry:
    """What the server holds."""

    url: str = ""
    token: str = ""
    objects: dict[str, dict[str, dict[str, Any]]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    requests: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None
    """Called before each request is answered."""
    page: int = 2
    page_instead: tuple[bytes, str] | None = None
    """Content and its type, whatever is asked."""

    def one(self, kind: str, name: str) -> dict[str, Any]:
        """The object of a name."""
        return next(found for found in self.objects[kind].values() if found["name"] == name)

    def props(self, kind: str, name: str) -> dict[str, Any]:
        """Its custom properties as plain values."""
        made = self.one(kind, name)["customProperties"]
        return {key: next(v for k, v in value.items() if k != "metadataType") for key, value in made.items()}

    def create(self, kind: str, model: str, body: dict[str, Any], parent: str = "") -> dict[str, Any]:
        """Make an object."""
        made = _checked(f"{model}Create" if kind != "model_artifacts" else "Artifact", body)
        for other in self.objects[kind].values():
            if (other["name"], other.get("registeredModelId", "")) == (made["name"], parent) and not (
                kind == "model_artifacts" and other["parent"] != parent
            ):
                raise Answer(409, f"{kind} {made['name']} already exists")
        number = str(1 + sum(map(len, self.objects.values())))
        stamp = str(1_790_000_000_000 + int(number))
        made |= {
            "id": number,
            "createTimeSinceEpoch": stamp,
            "lastUpdateTimeSinceEpoch": stamp,
            "parent": parent,
        }
        self.objects[kind][number] = made
        return made

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> dict[str, Any]:
        """What the server says to a request."""
        match [method, *path.split("/")]:
            case ["GET", "registered_models"]:
                return self.listed(
                    "RegisteredModelList", list(self.objects["registered_models"].values()), query
                )
            case ["GET", "registered_model"]:
                return self.found("registered_models", name=query["name"])
            case ["GET", "model_version"]:
                wanted = {"name": query["name"], "registeredModelId": query["parentResourceId"]}
                return self.found("model_versions", **wanted)
            case ["GET", "registered_models", key, "versions"]:
                below = [v for v in self.objects["model_versions"].values() if v["registeredModelId"] == key]
                return self.listed("ModelVersionList", below, query)
            case ["GET", "model_versions", key, "artifacts"]:
                below = [a for a in self.objects["model_artifacts"].values() if a["parent"] == key]
                return self.listed("ArtifactList", below, query)
            case ["POST", "registered_models"]:
                return self.create("registered_models", "RegisteredModel", body)
            case ["POST", "model_versions"]:
                self.found("registered_models", id=body["registeredModelId"])
                return self.create("model_versions", "ModelVersion", body, body["registeredModelId"])
            case ["POST", "model_versions", key, "artifacts"]:
                self.found("model_versions", id=key)
                return self.create("model_artifacts", "ModelArtifact", body, key)
            case ["PATCH", kind, key] if kind in KINDS:
                changed = _checked(f"{KINDS[kind]}Update", body)
                self.found(kind, id=key).update({k: v for k, v in changed.items() if v is not None})
                return self.found(kind, id=key)
        raise Answer(404, f"no such path: {method} {path}")

    def told(self, said: str, bearer: str, query: dict[str, str], body: Any) -> tuple[int, dict[str, Any]]:
        """Status and body, faults and the token minded."""
        fault = next((f for f in self.faults if f.times and said.startswith(f.on)), None)
        if fault:
            fault.times -= 1
        if self.token and bearer != self.token:
            return 401, {"code": "401", "message": "Unauthorized"}
        if fault and not fault.after:
            return fault.status, {"code": str(fault.status), "message": "a fault"}
        method, path = said.split(" ", 1)
        try:
            content = _plain(self.answer(method, path, query, body))
        except Answer as answer:
            return answer.status, answer.body
        if fault:
            return fault.status, {"code": str(fault.status), "message": "a fault after the write"}
        return 201 if method == "POST" else 200, content

    def found(self, kind: str, **wanted: str) -> dict[str, Any]:
        """The object that has these fields."""
        for one in self.objects[kind].values():
            if all(one.get(key) == value for key, value in wanted.items()):
                return one
        raise Answer(404, f"no {kind} with {wanted}")

    def listed(self, model: str, found: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        """One page."""
        start = int(query.get("nextPageToken") or 0)
        some = [_plain(one) for one in found[start : start + self.page]]
        more = str(start + self.page) if start + self.page < len(found) else ""
        page = {"items": some, "size": len(some), "pageSize": self.page, "nextPageToken": more}
        assert getattr(mr_openapi, model).from_dict(page) is not None
        return page


def _plain(made: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in made.items() if key != "parent"}


def _checked(model: str, body: dict[str, Any]) -> dict[str, Any]:
    kind = getattr(mr_openapi, model)
    try:
        understood: dict[str, Any] = kind.from_dict(body).to_dict()
    except ValueError as error:
        raise Answer(400, str(error)) from None
    if unknown := set(body) - set(understood):
        raise Answer(400, f"unknown fields: {sorted(unknown)}")
    return understood


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            said = f"{self.command} {parts.path.removeprefix(ROOT)}"
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            registry.before(said)
            with lock:
                registry.requests.append(said)
                bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
                query = dict(parse_qsl(parts.query))
                status, content = registry.told(said, bearer, query, body)
            data, kind = registry.page_instead or (json.dumps(content).encode(), "application/json")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PATCH = do_GET  # noqa: N815  (the library's names)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Registry]:
    """A registry that listens on loopback."""
    registry = Registry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(registry))
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
