"""Creating, adopting, changing and removing objects, so that doing it twice is doing it once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from goldpath.core.digest import digest_json
from goldpath.core.errors import InputError, StepError
from goldpath.core.kubernetes.api import Api
from goldpath.core.kubernetes.errors import ClusterError
from goldpath.core.kubernetes.kinds import Kinds
from goldpath.core.kubernetes.names import check_name
from goldpath.core.kubernetes.owners import Owner
from goldpath.core.kubernetes.refs import (
    DIGEST,
    OURS,
    RUN,
    STEP,
    Object,
    Ref,
    in_deletion,
    is_ours,
    labels_of,
)
from goldpath.core.kubernetes.retry import Transient

_COUNTED_S = 30
"""Seconds in which a quota's controller counts anew what is gone."""
STRICT = ("fieldValidation", "Strict")
"""A field that the cluster's version lacks is refused, not dropped without a word."""


class Objects:
    """Writes to the API server; reads that go with them."""

    def __init__(
        self, api: Api, kinds: Kinds, marks: Mapping[str, str], gone: Callable[[Ref, str, float], None]
    ) -> None:
        """`marks` are the labels of this run and step; `gone(ref, uid, seconds)` waits until an object has gone."""
        self._api, self._kinds, self._marks, self._gone = api, kinds, dict(marks), gone
        self._removed = float("-inf")
        """When something of ours went, by the clock of retries."""

    def place(self, ref: Ref) -> Ref:
        """The reference with its namespace: ours where it names none, none where the kind belongs to the cluster."""
        namespaced = self._kinds.of(ref).namespaced
        return ref.within((ref.namespace or self._api.connection.namespace) if namespaced else "")

    def get(self, ref: Ref) -> Object | None:
        """The object as it is now; None where there is none."""
        ref = self.place(ref)
        try:
            return self._api.call("GET", self._path(ref), f"read {ref}")
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self, ref: Ref, labels: Mapping[str, str], fields: Mapping[str, str], limit_s: float | None = None
    ) -> list[Object]:
        """All objects of the kind in the namespace that have those labels and fields, page by page."""
        found: list[Object] = []
        ref, token = self.place(ref), ""
        path, doing = self._kinds.of(ref).path(ref.namespace), f"list {ref.kind}"
        chosen = [
            ("labelSelector", _selector(labels)),
            ("fieldSelector", _selector(fields)),
            ("limit", "500"),
        ]
        while True:
            query = [(key, value) for key, value in [*chosen, ("continue", token)] if value]
            page = self._api.call("GET", path, doing, query=query, limit_s=limit_s)
            items = page.get("items") or []
            found += [{"apiVersion": ref.api_version, "kind": ref.kind, **item} for item in items]
            token = (page.get("metadata") or {}).get("continue", "")
            if not token:
                return found

    def prepare(self, manifest: Mapping[str, Any], owner: Owner | None) -> tuple[Ref, Object]:
        """The manifest with labels, digest, namespace and owner, and what names it.

        Raises:
            SpecError: its name cannot be one.
        """
        made = copy.deepcopy(dict(manifest))
        ref = self.place(Ref.of(made))
        check_name(ref.kind, ref.name)
        metadata = made.setdefault("metadata", {})
        digest = digest_json(
            {**made, "metadata": {k: metadata.get(k) or {} for k in ("labels", "annotations")}}
        )
        metadata["labels"] = {**(metadata.get("labels") or {}), **OURS, **self._marks}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), DIGEST: digest}
        if ref.namespace:
            metadata["namespace"] = ref.namespace
        if (
            owner and owner.reference and ref.namespace == owner.namespace
        ):  # another namespace's pod can own nothing
            metadata["ownerReferences"] = [*(metadata.get("ownerReferences") or []), owner.reference]
        return ref, made

    def create_or_adopt(self, ref: Ref, made: Object, *, shared: bool, wait_s: float) -> Object:
        """Create what `prepare` made, or adopt what an earlier try of this step, or its lost answer, had created.

        Args:
            ref: what names it.
            made: the prepared manifest.
            shared: whether another run's is adopted too, where its content is the same.
            wait_s: seconds to wait for one of that name that is being deleted.

        Raises:
            InputError: another object has that name, or ours has other content.
            ClusterError: the server refuses it.
        """
        for _ in range(3):
            present, created = self._api.retry.run(lambda: self._create(ref, made))
            if created:
                return present
            if not in_deletion(present):
                return self._adopt(ref, made, present, shared)
            self._gone(ref, present["metadata"]["uid"], wait_s)
            self._removed = self._api.retry.clock()
        raise StepError(
            f"cannot create {ref}: whatever has that name is deleted again and again",
            "Check its owner references.",
        )

    def _create(self, ref: Ref, made: Object) -> tuple[Object, bool]:
        """What has that name now, and whether we created it."""
        path, doing = self._kinds.of(ref).path(ref.namespace), f"create {ref}"
        try:
            return self._api.call("POST", path, doing, query=[STRICT], body=made), True
        except ClusterError as error:
            # A full quota refuses before the name is looked at, and counts what is gone for some seconds more.
            full = error.status == 403 and "the quota" in error.message
            if error.reason != "AlreadyExists" and not full:
                raise (Transient(error) if error.status == 409 else error) from None
            present = self.get(ref)
            if present is None and full and self._api.retry.clock() - self._removed > _COUNTED_S:
                raise
            if present is None:  # gone between both
                raise Transient(error) from None
            return present, False

    def _adopt(self, ref: Ref, made: Object, present: Object, shared: bool) -> Object:
        theirs, ours = labels_of(present), labels_of(made)
        if not is_ours(present):
            raise _theirs(ref)
        if not shared and any(theirs.get(key) != ours.get(key) for key in (RUN, STEP)):
            raise InputError(
                f"{ref} exists already, made by step {theirs.get(STEP, '?')!r} of run {theirs.get(RUN, '?')!r}",
                f"Choose another name, or remove it: {_kubectl(ref)}.",
            )
        if _digest(present) != _digest(made):
            raise InputError(
                f"{ref} exists already with another content, from an earlier try of this step",
                f"Remove it ({_kubectl(ref)}) or start a new run.",
            )
        owner = made["metadata"].get("ownerReferences")
        if not owner or present["metadata"].get("ownerReferences") == owner:
            return present

        def own(
            thing: Object,
        ) -> None:  # the pod of the earlier try may go at any time, and what it owns with it
            thing["metadata"]["ownerReferences"] = owner

        try:
            return self.change(ref, own)
        except ClusterError as error:
            if error.status == 403:  # who may create but not update keeps the first pod as the owner
                return present
            raise

    def change(self, ref: Ref, edit: Callable[[Object], None], part: str = "") -> Object:
        """Read, edit and write an object; where another was faster, read and edit anew.

        Args:
            ref: the object.
            edit: changes it in place; it may be called several times.
            part: a subresource (`status`, `scale`).

        Raises:
            StepError: there is no such object.
            ClusterError: the server refuses the change.
        """
        ref = self.place(ref)
        doing = f"change {ref}"

        def attempt() -> Object:
            present = self.get(ref)
            if present is None:
                raise StepError(f"cannot {doing}: it does not exist", "Run the step again.")
            wanted = copy.deepcopy(present)
            edit(wanted)
            if wanted == present:
                return present
            try:
                return self._api.call("PUT", self._path(ref, part), doing, query=[STRICT], body=wanted)
            except ClusterError as error:
                raise (Transient(error) if error.status == 409 else error) from None

        return self._api.retry.run(attempt)

    def apply(self, ref: Ref, made: Object, wait_s: float) -> Object:
        """Create what `prepare` made, or bring the one that goldpath made to its content. Errors as both have."""
        present = self.get(ref)
        if present is None or in_deletion(present):
            try:
                return self.create_or_adopt(ref, made, shared=True, wait_s=wait_s)
            except InputError:
                present = self.get(ref)  # it came meanwhile
        if present is not None and not is_ours(present):
            raise _theirs(ref)

        def edit(thing: Object) -> None:
            for key in ("labels", "annotations"):
                thing["metadata"][key] = {**(thing["metadata"].get(key) or {}), **made["metadata"][key]}
            for key in made.keys() - {"apiVersion", "kind", "metadata", "status"}:
                thing[key] = copy.deepcopy(made[key])

        return self.change(ref, edit)

    def try_out(self, ref: Ref, made: Object) -> Object:
        """Have the server check it without keeping it (dry run), whether it exists or not.

        Raises:
            ClusterError: the server would refuse it.
        """
        query, doing = [STRICT, ("dryRun", "All")], f"try {ref}"
        present = self.get(ref)
        if present is None:
            path = self._kinds.of(ref).path(ref.namespace)
            return self._api.call("POST", path, doing, query=query, body=made)
        version = present["metadata"]["resourceVersion"]
        body = {**made, "metadata": {**made["metadata"], "resourceVersion": version}}
        return self._api.call("PUT", self._path(ref), doing, query=query, body=body)

    def remove(
        self,
        ref: Ref,
        *,
        propagation: str,
        wait_s: float,
        only: Mapping[str, str],
        limit_s: float | None = None,
    ) -> bool:
        """Delete an object and, with `wait_s`, wait until it has gone; it may be gone already.

        Args:
            ref: the object.
            propagation: `Foreground` (what it owns goes first), `Background` or `Orphan`.
            wait_s: seconds to wait; 0 does not wait.
            only: labels that it must have; others' are left alone.
            limit_s: seconds for the requests.

        Returns:
            Whether there was one.

        Raises:
            InputError: it lacks those labels.
            StepError: it has not gone in that time.
        """
        ref = self.place(ref)
        doing = f"remove {ref}"

        def attempt() -> str:
            present = self.get(ref)
            if present is None:
                return ""
            if not only.items() <= labels_of(present).items():
                raise InputError(f"{ref} is not ours to remove", f"Remove it yourself: {_kubectl(ref)}.")
            uid: str = present["metadata"]["uid"]
            options = {"propagationPolicy": propagation, "preconditions": {"uid": uid}}
            body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
            try:
                self._api.call("DELETE", self._path(ref), doing, body=body, limit_s=limit_s)
            except ClusterError as error:
                if error.status == 409:
                    raise Transient(error) from None
                if error.status != 404:
                    raise
            return uid

        uid = self._api.retry.run(attempt, limit_s)
        if uid and wait_s > 0:
            self._gone(ref, uid, wait_s)
        if uid:
            self._removed = self._api.retry.clock()
        return bool(uid)

    def _path(self, ref: Ref, part: str = "") -> str:
        return self._kinds.of(ref).path(ref.namespace, ref.name, part)


def _theirs(ref: Ref) -> InputError:
    return InputError(
        f"{ref} exists already, and goldpath did not make it", f"Rename or remove it: {_kubectl(ref)}."
    )


def _digest(thing: Object) -> str:
    return str((thing["metadata"].get("annotations") or {}).get(DIGEST, ""))


def _kubectl(ref: Ref) -> str:
    kind = f"{ref.kind}.{ref.group}".lower() if ref.group else ref.kind.lower()
    return f"`kubectl delete {kind} {ref.name}{f' -n {ref.namespace}' if ref.namespace else ''}`"


def _selector(wanted: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in wanted.items())
