"""The server itself: what a test does with it, and its controllers; see the package's docstring."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.kube.faults import Faults
from tests.kube.handler import Handler
from tests.kube.kinds import KINDS, Kind
from tests.kube.roles import Rule
from tests.kube.store import Refusal, Store, Thing

NAMESPACE = "team-a"


class Server:
    """A cluster on loopback; see the package's docstring for what a test may do with it."""

    def __init__(self) -> None:
        self.store, self.faults = Store(), Faults()
        self.logs: dict[tuple[str, str], str] = {}
        self.created: list[str] = []
        self.retry_after = "0"
        self.requests: list[tuple[str, str, int]] = []
        self.errors: list[Exception] = []
        self.denied: set[tuple[str, str]] = set()
        self.rules: list[Rule] | None = None
        self.unknown: set[tuple[str, str]] = set()
        self._controllers: dict[str, list[Callable[[Thing], Thing | None]]] = {}
        self.ends = threading.Event()
        self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self._first = set(self.store.things)
        handler = type("Handler", (Handler,), {"server_": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True),
            threading.Thread(target=self._control, daemon=True),
        ]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Server:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.ends.set()
        with self.store.changed:
            self.store.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        self._threads[1].join()
        if self.errors and kind is None:
            raise self.errors[0]

    @property
    def ended(self) -> bool:
        return self.ends.is_set()

    def kubeconfig(self, folder: Path, namespace: str = NAMESPACE) -> Path:
        """Write a kubeconfig for it into a folder."""
        context = {"cluster": "test", "user": "test", **({"namespace": namespace} if namespace else {})}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.address}}],
            "users": [{"name": "test", "user": {"token": "secret"}}],
            "contexts": [{"name": "test", "context": context}],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def on(self, kind: str, function: Callable[[Thing], Thing | None]) -> None:
        """Register a controller."""
        with self.store.changed:
            self._controllers.setdefault(kind, []).append(function)

    def admit(self, kind: str, function: Callable[[Thing, Thing | None], None]) -> None:
        """Register an admission check."""
        self.store.admission.setdefault(kind, []).append(function)

    def deny(self, verb: str, plural: str) -> None:
        """Refuse a verb on a kind; `pods/log` for a subresource."""
        self.denied.add((verb, plural))

    def enforce(self, rules: list[Rule]) -> None:
        """Allow what one of these rules grants, and nothing else; discovery is everybody's."""
        self.rules = rules

    def may(self, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
        """Whether who asks may do that."""
        if (verb, resource) in self.denied:
            return False
        here = namespace == NAMESPACE
        return self.rules is None or any(r.allows(verb, group, resource, name, here) for r in self.rules)

    def lack_field(self, kind: str, field: str) -> None:
        """Know no such field of `spec`, as an older version: refused where the client asks for that, else dropped."""
        self.unknown.add((kind, field))

    def lack(self, kind: str, but: str = "") -> None:
        """Serve no such kind, or in version `but` alone."""
        old = [known for known in self.store.kinds if known.kind == kind]
        self.store.kinds = [known for known in self.store.kinds if known.kind != kind]
        if but:
            self.store.kinds += [replace(known, api_version=f"{known.group}/{but}") for known in old]

    def forget(self) -> None:
        """Compact: versions up to now can no longer be watched from."""
        with self.store.changed:
            self.store.version += 1
            self.store.oldest = self.store.version
            self.store.changed.notify_all()

    def put(self, manifest: Thing) -> Thing:
        """Create an object, status and all."""
        kind = _by_kind(manifest["kind"])
        namespace = manifest["metadata"].get("namespace", NAMESPACE) if kind.namespaced else ""
        return self.store.create(kind, namespace, manifest, admit=False)

    def edit(
        self, kind: str, name: str, function: Callable[[Thing], None], namespace: str = NAMESPACE
    ) -> Thing:
        """Change an object in place, status and finalizers included."""
        known = _by_kind(kind)
        place = namespace if known.namespaced else ""
        with self.store.changed:
            thing = self.store.read(known, place, name)
            function(thing)
            return self.store.replace(known, place, name, thing, admit=False)

    def drop(self, kind: str, name: str, namespace: str = NAMESPACE) -> None:
        """Delete an object."""
        known = _by_kind(kind)
        self.store.delete(known, namespace if known.namespaced else "", name, {})

    def event(self, thing: Thing, reason: str, message: str) -> None:
        """A Warning about an object."""
        metadata = thing["metadata"]
        about = {"kind": thing["kind"], "name": metadata["name"], "uid": metadata["uid"]}
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "generateName": f"{metadata['name']}.",
                    "namespace": metadata.get("namespace", NAMESPACE),
                },
                "involvedObject": about,
                "type": "Warning",
                "reason": reason,
                "message": message,
            }
        )

    def find(self, kind: str, namespace: str = "") -> list[Thing]:
        """All objects of a kind."""
        with self.store.changed:
            found = [thing for thing in self.store.things.values() if thing["kind"] == kind]
            return copy.deepcopy(
                [t for t in found if not namespace or t["metadata"].get("namespace") == namespace]
            )

    def left(self) -> list[str]:
        """`Kind/name` of what was not there from the start, Events aside."""
        with self.store.changed:
            things = [thing for key, thing in self.store.things.items() if key not in self._first]
        return sorted(f"{t['kind']}/{t['metadata']['name']}" for t in things if t["kind"] != "Event")

    def _control(self) -> None:
        """Call the controllers of each change, and store what they return."""
        at = 0
        while not self.ended:
            with self.store.changed:
                self.store.wait_beyond(at, 1, self.ends)
                news, at = [entry for entry in self.store.log if entry[0] > at], self.store.version
            for _, event, _, thing in news:
                for function in self._controllers.get(thing["kind"], []) if event != "DELETED" else []:
                    try:
                        status = function(copy.deepcopy(thing))
                        if status is not None:
                            self._set_status(thing, status)
                    except Exception as error:  # shown when the test ends
                        self.errors.append(error)

    def _set_status(self, thing: Thing, status: Thing) -> None:
        metadata = thing["metadata"]
        with self.store.changed, contextlib.suppress(Refusal):  # it may have gone meanwhile
            kind, place = _by_kind(thing["kind"]), metadata.get("namespace", "")
            if self.store.read(kind, place, metadata["name"])["metadata"]["uid"] == metadata["uid"]:
                self.edit(thing["kind"], metadata["name"], lambda now: now.update(status=status), place)


def _by_kind(kind: str) -> Kind:
    return next(known for known in KINDS if known.kind == kind)
