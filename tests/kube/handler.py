"""How the server answers one request: paths, verbs, discovery, watches, faults."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.kube.kinds import Kind
from tests.kube.store import Refusal, Thing, matches

if TYPE_CHECKING:
    from tests.kube.server import Server

BOOKMARK_S = 0.2
"""Seconds of quiet after which a watch is sent a bookmark."""
_LIVES = {"watch-closed": 0, "watch-cut": 2}
"""Events of a watch until it breaks."""
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_: Server

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        address = urlsplit(self.path)
        self.query = dict(parse_qsl(address.query))
        length = int(self.headers.get("Content-Length") or 0)
        self.body: Any = json.loads(self.rfile.read(length) or b"null")
        watch = self.query.get("watch", "").lower() == "true"
        fault = self.server_.faults.choose(self.command, watch)
        try:
            if fault in ("drop-before", "drop-after"):
                with contextlib.suppress(Refusal):
                    if fault == "drop-after" and not watch:
                        self._answer(address.path)
                self._drop(address.path)
                return
            _fail(fault)
            if watch:
                self._watch(*self._place(address.path)[:2], lives=_LIVES.get(fault, -1))
            else:
                self._send(200, self._answer(address.path))
        except Refusal as refusal:
            self._send(refusal.code, refusal.body)
        except OSError:  # the client went away
            self.close_connection = True

    def _drop(self, path: str) -> None:
        self._note(path, 0)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _note(self, path: str, code: int) -> None:
        self.server_.requests.append((self.command, path, code))

    def _send(self, code: int, body: Any) -> None:
        self._note(urlsplit(self.path).path, code)
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code == 429:
            self.send_header("Retry-After", self.server_.retry_after)
        self.end_headers()
        self.wfile.write(data)

    def _place(self, path: str) -> tuple[Kind, str, str, str]:
        """Kind, namespace, name and subresource of a path."""
        pieces = path.strip("/").split("/")
        skip = 2 if pieces[0] == "api" else 3
        version, rest = "/".join(pieces[1:skip]), pieces[skip:]
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        if not rest:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        kind = self.server_.store.kind(version, rest[0])
        name, part = [*rest[1:], "", ""][:2]
        verb = _VERBS.get(self.command) or ("watch" if "watch" in self.query else "get" if name else "list")
        self._permit(verb, kind, f"{kind.plural}/{part}" if part else kind.plural, namespace, name)
        return kind, namespace, name, part

    def _permit(self, verb: str, kind: Kind, resource: str, namespace: str, name: str) -> None:
        if kind.kind == "SelfSubjectAccessReview":  # everybody's
            return
        place = name if kind.kind == "Namespace" else namespace  # a namespace lies in itself
        if not self.server_.may(verb, kind.group, resource, place, name):
            account, full = (
                "system:serviceaccount:team-a:pipeline",
                f"{resource}.{kind.group}".rstrip("."),
            )
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            raise Refusal(
                403,
                "Forbidden",
                f'{full} is forbidden: User "{account}" cannot {verb} resource "{resource}" '
                f'in API group "{kind.group}"{where}',
            )

    def _answer(self, path: str) -> Any:
        found = self._discovery(path.strip("/").split("/"))
        if found is not None:
            return found
        kind, namespace, name, part = self._place(path)
        store, dry = self.server_.store, self.query.get("dryRun") == "All"
        if kind.kind == "SelfSubjectAccessReview":
            return self._review()
        if part == "log":
            return self._log(store.read(kind, namespace, name))
        self._prune(kind)
        if self.command == "POST":
            if part:  # a subresource that nothing here serves (`token`, `eviction`)
                raise Refusal(404, "NotFound", "the server could not find the requested resource")
            made = store.create(kind, namespace, self.body, dry=dry)
            if not dry:
                self.server_.created.append(f"{kind.kind}/{made['metadata']['name']}")
            return made
        if self.command == "PUT":
            return store.replace(kind, namespace, name, self.body, part=part, dry=dry)
        if self.command == "PATCH":
            return store.merge(kind, namespace, name, self.body, part=part, dry=dry)
        if self.command == "DELETE":
            return store.delete(kind, namespace, name, {**self.query, **(self.body or {})})
        return store.read(kind, namespace, name) if name else self._list(kind, namespace)

    def _prune(self, kind: Kind) -> None:
        """Refuse, or drop, fields that this version of the kind lacks."""
        spec = (self.body or {}).get("spec")
        for field in sorted(spec) if isinstance(spec, dict) else []:
            if (kind.kind, field) in self.server_.unknown:
                if self.query.get("fieldValidation") == "Strict":
                    raise Refusal(400, "BadRequest", f'strict decoding error: unknown field "spec.{field}"')
                del spec[field]

    def _discovery(self, pieces: list[str]) -> Thing | None:
        kinds = self.server_.store.kinds
        served = list(dict.fromkeys(kind.api_version for kind in kinds))
        if pieces == ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
        if pieces == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        if pieces == ["apis"]:
            groups = dict.fromkeys(kind.group for kind in kinds if kind.group)
            return {"kind": "APIGroupList", "groups": [_group(name, served) for name in groups]}
        if len(pieces) == 2 and pieces[0] == "apis" and any(k.group == pieces[1] for k in kinds):
            return _group(pieces[1], served)
        version = "/".join(pieces[1:])
        if version in served and len(pieces) == (2 if pieces[0] == "api" else 3):
            rows = [
                {
                    "name": name,
                    "kind": k.kind,
                    "namespaced": k.namespaced,
                    "verbs": ["create", "get", "list", "watch"],
                }
                for k in kinds
                if k.api_version == version
                for name in (k.plural, *((f"{k.plural}/status",) if k.status else ()))
            ]
            return {"kind": "APIResourceList", "groupVersion": version, "resources": rows}
        return None

    def _review(self) -> Thing:
        asked = self.body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource", ""))))
        named = (asked.get(key, "") for key in ("group", "namespace", "name"))
        group, namespace, name = named
        allowed = self.server_.may(asked["verb"], group, resource, namespace, name)
        return {**self.body, "status": {"allowed": allowed}}

    def _log(self, pod: Thing) -> str:
        text = self.server_.logs.get((pod["metadata"]["namespace"], pod["metadata"]["name"]), "")
        last = text.splitlines()[-int(self.query.get("tailLines", "1000000")) :]
        return "\n".join(last)

    def _chosen(self, kind: Kind, namespace: str, thing: Thing) -> bool:
        labels, fields = self.query.get("labelSelector", ""), self.query.get("fieldSelector", "")
        return namespace in ("", thing["metadata"].get("namespace", "")) and matches(thing, labels, fields)

    def _list(self, kind: Kind, namespace: str) -> Thing:
        store = self.server_.store
        with store.changed:
            ours = [t for key, t in sorted(store.things.items()) if key[:2] == (kind.group, kind.plural)]
            items = copy.deepcopy([thing for thing in ours if self._chosen(kind, namespace, thing)])
            version, most = str(store.version), int(self.query.get("limit", "0"))
        skip = int(self.query.get("continue") or 0)
        metadata = {"resourceVersion": version}
        if most and len(items) > skip + most:
            metadata["continue"] = str(skip + most)
        items = items[skip : skip + most if most else None]
        for item in items:  # as the real server, which names kind and version once
            item.pop("apiVersion"), item.pop("kind")
        return {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": metadata,
            "items": items,
        }

    def _watch(self, kind: Kind, namespace: str, *, lives: int) -> None:
        store, at = self.server_.store, int(self.query.get("resourceVersion") or 0)
        with store.changed:
            if at < store.oldest:
                raise Refusal(410, "Expired", f"too old resource version: {at} ({store.oldest})")
        self._note(urlsplit(self.path).path, 200)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        until = time.monotonic() + float(self.query.get("timeoutSeconds", "60"))
        while time.monotonic() < until and not self.server_.ended:
            with store.changed:
                store.wait_beyond(at, BOOKMARK_S, self.server_.ends)
                news = [entry for entry in store.log if entry[0] > at]
                gone, at = at < store.oldest, store.version
            if gone:
                self._chunk(
                    {"type": "ERROR", "object": Refusal(410, "Expired", "too old resource version").body}
                )
                break
            for _, event, key, thing in news:
                if key[:2] == (kind.group, kind.plural) and self._chosen(kind, namespace, thing):
                    if lives == 0:
                        self._drop(urlsplit(self.path).path)
                        return
                    lives -= 1
                    self._chunk({"type": event, "object": thing})
            if not news and self.query.get("allowWatchBookmarks", "").lower() == "true":
                bookmark = {
                    "kind": kind.kind,
                    "apiVersion": kind.api_version,
                    "metadata": {"resourceVersion": str(at)},
                }
                self._chunk({"type": "BOOKMARK", "object": bookmark})
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, value: Any) -> None:
        data = json.dumps(value).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def _fail(fault: str) -> None:
    if fault == "429":
        raise Refusal(429, "TooManyRequests", "the server has received too many requests")
    if fault == "500":
        raise Refusal(500, "InternalError", "Internal error occurred: etcdserver: leader changed")
    if fault == "conflict":
        raise Refusal(409, "Conflict", "Operation cannot be fulfilled: the object has been modified")
    if fault == "gone":
        raise Refusal(410, "Expired", "too old resource version")


def _group(name: str, served: list[str]) -> Thing:
    rows = [{"groupVersion": v, "version": v.rpartition("/")[2]} for v in served if v.startswith(f"{name}/")]
    return {"kind": "APIGroup", "name": name, "versions": rows, "preferredVersion": rows[0]}
