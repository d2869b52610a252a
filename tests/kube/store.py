"""The objects of the test's cluster, and what the API server guarantees about them."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.kube.kinds import KINDS, Kind

Thing = dict[str, Any]
Key = tuple[str, str, str, str]
"""Group, plural, namespace, name."""
FOREGROUND = "foregroundDeletion"
_FIXED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "generation",
    "resourceVersion",
    "name",
    "namespace",
)


class Refusal(Exception):
    """What the API server answers in place of the object."""

    def __init__(
        self, code: int, reason: str, message: str, causes: list[dict[str, str]] | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": {**details, **({"causes": causes} if causes else {})},
            "code": code,
        }


class Store:
    """Objects with versions; `changed` wakes who waits for one. All of it under one lock."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = list(KINDS)
        self.things: dict[Key, Thing] = {}
        self.log: list[tuple[int, str, Key, Thing]] = []
        self.version, self.oldest = 100, 0
        self.changed = threading.Condition(threading.RLock())
        self.admission: dict[str, list[Callable[[Thing, Thing | None], None]]] = {}

    def kind(self, api_version: str, plural: str) -> Kind:
        """The kind at a path; 404 where it is not served."""
        for kind in self.kinds:
            if (kind.api_version, kind.plural) == (api_version, plural):
                return kind
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def wait_beyond(self, version: int, seconds: float, ends: threading.Event) -> None:
        """Wait for a newer version (or the end), that long at most; with `changed` held."""
        self.changed.wait_for(lambda: ends.is_set() or self.version > version, seconds)

    def read(self, kind: Kind, namespace: str, name: str) -> Thing:
        with self.changed:
            thing = self.things.get((kind.group, kind.plural, namespace, name))
            if thing is None:
                raise Refusal(
                    404, "NotFound", f'{_full(kind)} "{name}" not found', name=name, kind=kind.plural
                )
            return copy.deepcopy(thing)

    def create(
        self, kind: Kind, namespace: str, body: Thing, *, dry: bool = False, admit: bool = True
    ) -> Thing:
        with self.changed:
            thing = copy.deepcopy(body)
            metadata = thing.setdefault("metadata", {})
            if "name" not in metadata and "generateName" in metadata:
                metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
            name = metadata.get("name", "")
            if kind.namespaced:
                if ("", "namespaces", "", namespace) not in self.things:
                    said = f'namespaces "{namespace}" not found'
                    raise Refusal(404, "NotFound", said, name=namespace, kind="namespaces")
                metadata["namespace"] = namespace
            key = (kind.group, kind.plural, namespace, name)
            if admit:  # before the name, as on a real server: a full quota refuses what is there already
                self._admit(kind, thing, None)
            if present := self.things.get(key):
                prefix = "object is being deleted: " if "deletionTimestamp" in present["metadata"] else ""
                raise Refusal(
                    409, "AlreadyExists", f'{prefix}{_full(kind)} "{name}" already exists', name=name
                )
            if admit and kind.status:
                thing.pop("status", None)
            thing.update(apiVersion=kind.api_version, kind=kind.kind)
            metadata.update(uid=str(uuid.uuid4()), generation=1, creationTimestamp=_now())
            return self._keep("ADDED", key, thing, dry)

    def replace(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Thing,
        *,
        part: str = "",
        dry: bool = False,
        admit: bool = True,
    ) -> Thing:
        with self.changed:
            old = self.read(kind, namespace, name)
            new = copy.deepcopy(body)
            asked = new.get("metadata", {}).get("resourceVersion")
            if asked and asked != old["metadata"]["resourceVersion"]:
                raise Refusal(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {_full(kind)} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
            if part == "status":
                new = {**copy.deepcopy(old), "status": new.get("status", {})}
            elif kind.status and admit:
                new.pop("status", None)
                new.update({"status": old["status"]} if "status" in old else {})
            given = new.get("metadata") or {}
            for fixed in _FIXED:
                given.pop(fixed, None)
                if fixed in old["metadata"]:
                    given[fixed] = old["metadata"][fixed]
            new.update(metadata=given, apiVersion=kind.api_version, kind=kind.kind)
            if new == old:
                return old
            if admit and part != "status":
                self._admit(kind, new, old)
            if _content(new) != _content(old):
                given["generation"] += 1
            return self._keep("MODIFIED", (kind.group, kind.plural, namespace, name), new, dry)

    def merge(
        self, kind: Kind, namespace: str, name: str, patch: Thing, *, part: str = "", dry: bool = False
    ) -> Thing:
        with self.changed:
            merged = _merge(self.read(kind, namespace, name), patch)
            return self.replace(kind, namespace, name, merged, part=part, dry=dry)

    def delete(self, kind: Kind, namespace: str, name: str, options: Mapping[str, Any]) -> Thing:
        with self.changed:
            thing = self.read(kind, namespace, name)
            metadata = thing["metadata"]
            wanted = (options.get("preconditions") or {}).get("uid")
            if wanted and wanted != metadata["uid"]:
                raise Refusal(409, "Conflict", f"Precondition failed: UID in precondition: {wanted}")
            if options.get("dryRun"):
                return thing
            key = (kind.group, kind.plural, namespace, name)
            policy = options.get("propagationPolicy", "Background")
            if policy == "Orphan":
                self._orphan(metadata["uid"])
            if policy == "Foreground" and self._owned(metadata["uid"]):
                metadata["finalizers"] = sorted({*(metadata.get("finalizers") or []), FOREGROUND})
            if "deletionTimestamp" not in metadata:
                metadata["deletionTimestamp"] = _now()
            return self._keep("MODIFIED", key, thing, dry=False)

    def _keep(self, event: str, key: Key, thing: Thing, dry: bool) -> Thing:
        """Store it under a new version, then do what the garbage collector would do next."""
        if dry:
            return thing
        if "deletionTimestamp" in thing["metadata"] and not thing["metadata"].get("finalizers"):
            event = "DELETED"
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        if event == "DELETED":
            self.things.pop(key, None)
        else:
            self.things[key] = thing
        self.log.append((self.version, event, key, copy.deepcopy(thing)))
        self._collect()
        self.changed.notify_all()
        return copy.deepcopy(thing)

    def _collect(self) -> None:
        """One step of garbage collection; each step stores something, which calls for the next."""
        uids = {thing["metadata"]["uid"] for thing in self.things.values()}
        leaving = {thing["metadata"]["uid"] for thing in self.things.values() if _in_foreground(thing)}
        for key, thing in list(self.things.items()):
            metadata = thing["metadata"]
            owners = [owner["uid"] for owner in metadata.get("ownerReferences") or []]
            going = leaving & set(owners)
            lost = bool(owners) and not uids & set(owners)
            if (lost or going) and "deletionTimestamp" not in metadata:
                changed = copy.deepcopy(thing)
                changed["metadata"]["deletionTimestamp"] = _now()
            elif _in_foreground(thing) and not self._owned(metadata["uid"]):
                changed = copy.deepcopy(thing)
                changed["metadata"]["finalizers"] = [f for f in metadata["finalizers"] if f != FOREGROUND]
            else:
                continue
            self._keep("MODIFIED", key, changed, dry=False)
            return

    def _owned(self, uid: str) -> list[Key]:
        return [
            key
            for key, thing in self.things.items()
            if any(owner["uid"] == uid for owner in thing["metadata"].get("ownerReferences") or [])
        ]

    def _orphan(self, uid: str) -> None:
        for key in self._owned(uid):
            thing = copy.deepcopy(self.things[key])
            owners = [o for o in thing["metadata"]["ownerReferences"] if o["uid"] != uid]
            thing["metadata"]["ownerReferences"] = owners
            self._keep("MODIFIED", key, thing, dry=False)

    def _admit(self, kind: Kind, new: Thing, old: Thing | None) -> None:
        for check in self.admission.get(kind.kind, []):
            check(new, copy.deepcopy(old))


def matches(thing: Thing, labels: str, fields: str) -> bool:
    """Whether label and field selectors (`a=b`, `a!=b`, `a`, `!a`) choose it."""
    own = thing["metadata"].get("labels") or {}
    for term in filter(None, labels.split(",")):
        key, unequal, value = term.partition("!=") if "!=" in term else term.replace("==", "=").partition("=")
        if not unequal:
            good = (key.removeprefix("!") in own) != key.startswith("!")
        else:
            good = (own.get(key) == value) == (unequal == "=")
        if not good:
            return False
    for term in filter(None, fields.split(",")):
        path, _, value = term.partition("=")
        found: Any = thing
        for piece in path.split("."):
            found = (found or {}).get(piece, "")
        if str(found) != value:
            return False
    return True


def _merge(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _in_foreground(thing: Thing) -> bool:
    return "deletionTimestamp" in thing["metadata"] and FOREGROUND in (
        thing["metadata"].get("finalizers") or []
    )


def _content(thing: Thing) -> Thing:
    return {key: value for key, value in thing.items() if key not in ("metadata", "status")}


def _full(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
