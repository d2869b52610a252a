"""`Cluster`: all that a step does with a Kubernetes API server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from goldpath.core import settings
from goldpath.core.errors import GoldpathError, InputError, StepError
from goldpath.core.kubernetes import client, owners, watching
from goldpath.core.kubernetes.api import Api
from goldpath.core.kubernetes.children import GRACE_S, Children, undisturbed
from goldpath.core.kubernetes.diagnosis import Diagnosis
from goldpath.core.kubernetes.errors import ClusterError
from goldpath.core.kubernetes.kinds import Kinds
from goldpath.core.kubernetes.names import label_value, object_name
from goldpath.core.kubernetes.objects import Objects
from goldpath.core.kubernetes.refs import OURS, RUN, STEP, Object, Ref
from goldpath.core.kubernetes.retry import Retry
from goldpath.core.kubernetes.stuck import Stuck
from goldpath.core.process import sigterm_raises

T = TypeVar("T")
GONE_S = 120
"""Seconds to wait for an object that is being deleted."""


class Cluster:
    """A cluster, as one step of one run works with it. Not for several threads at once.

    Every method may raise `ClusterError` (the server refuses it, and why), `MachineError` (it lacks the kind, or
    does not answer) and `StepError`; all are `GoldpathError`s with a remedy.
    """

    def __init__(
        self, connection: client.Connection, *, run: str = "", step: str = "", retry: Retry | None = None
    ) -> None:
        """`run` and `step` go into labels and names; GOLDPATH_RUN and GOLDPATH_STEP by default."""
        self.connection = connection
        self.run, self.step = run or settings.run_id(), step or os.environ.get("GOLDPATH_STEP", "")
        self._retry = retry or Retry()
        self._api = Api(connection, self._retry)
        self._kinds = Kinds(self._api)
        self._watching = watching.Watching(self._api, self._kinds)
        self._marks = {
            key: label_value(value) for key, value in ((RUN, self.run), (STEP, self.step)) if value
        }
        self._objects = Objects(self._api, self._kinds, self._marks, self._watching.gone)
        self._owner: owners.Owner | None = None
        self._children: list[Children] = []

    @classmethod
    def connect(
        cls,
        *,
        kubeconfig: str = "",
        context: str = "",
        namespace: str = "",
        run: str = "",
        step: str = "",
        retry: Retry | None = None,
    ) -> Cluster:
        """The cluster of `kubeconfig`, of KUBECONFIG, of the pod that this runs in, or of ~/.kube/config.

        Raises:
            MachineError: none is configured, or no namespace is.
        """
        return cls(client.connect(kubeconfig, context, namespace), run=run, step=step, retry=retry)

    @property
    def namespace(self) -> str:
        """Where objects go that name no other namespace."""
        return self.connection.namespace

    @property
    def owner(self) -> owners.Owner:
        """The pod of this step, which owns what it makes; outside a cluster none, and its `note` says so."""
        if self._owner is None:
            self._owner = owners.find(self._api)
        return self._owner

    def name(self, part: str = "", most: int = 63) -> str:
        """The name of an object of this run and step; see `names.object_name`."""
        return object_name(self.run, self.step, part, most)

    def create_or_adopt(self, manifest: Mapping[str, Any], *, keep: bool = False) -> Object:
        """Create an object, or adopt it where this step had created it before.

        Our labels, a digest of the manifest and the step's pod as its owner are added.

        Args:
            manifest: what a renderer made.
            keep: it outlives step and run (a model cache, say): no owner, no child, and another run's is adopted
                where its content is the same.

        Returns:
            The object as it is on the cluster.

        Raises:
            InputError: the name is taken by something else, or by an object of other content.
        """
        ref, made = self._objects.prepare(manifest, None if keep else self.owner)
        children = [] if keep else self._children
        for child in children:
            child.expect(ref)
        thing: Object | None = None
        try:
            thing = self._objects.create_or_adopt(ref, made, shared=keep, wait_s=GONE_S)
        except GoldpathError as error:
            if _made_nothing(error):
                for child in children:
                    child.have(ref, None)
            raise
        for child in children:
            child.have(ref, thing)
        return thing

    def apply(self, manifest: Mapping[str, Any]) -> Object:
        """Create what outlives the run, or bring what goldpath made before to this content (an endpoint, say)."""
        ref, made = self._objects.prepare(manifest, None)
        return self._objects.apply(ref, made, GONE_S)

    def change(self, ref: Ref, edit: Callable[[Object], None], part: str = "") -> Object:
        """Read, `edit` in place and write; anew where another was faster. `part`: a subresource."""
        return self._objects.change(ref, edit, part)

    def dry_run(self, manifest: Mapping[str, Any]) -> Object:
        """Have the server check a manifest, unknown fields included, and keep nothing."""
        return self._objects.try_out(*self._objects.prepare(manifest, None))

    def get(self, ref: Ref) -> Object | None:
        """The object as it is now; None where there is none."""
        return self._objects.get(ref)

    def find(
        self,
        api_version: str,
        kind: str,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        namespace: str = "",
    ) -> list[Object]:
        """All objects of a kind in a namespace with these labels and fields."""
        return self._objects.list(Ref(api_version, kind, "", namespace), labels or {}, fields or {})

    def remove(self, ref: Ref, *, propagation: str = "Foreground", wait_s: float = GONE_S) -> bool:
        """Remove an object that goldpath made, and wait until it and what it owned have gone.

        Returns:
            Whether there was one.

        Raises:
            InputError: goldpath did not make it.
            StepError: it is still there after `wait_s` seconds (0: do not wait).
        """
        there = self._objects.remove(ref, propagation=propagation, wait_s=wait_s, only=OURS)
        for child in self._children:
            child.keep(ref)
        return there

    def wait(
        self,
        ref: Ref,
        judge: Callable[[Object], T | None],
        deadline_s: float,
        on_change: Callable[[Object], None] | None = None,
    ) -> T:
        """Follow an object until `judge` has a verdict.

        Args:
            ref: the object.
            judge: its state to a verdict, None to wait on; it may raise. States can come twice.
            deadline_s: seconds at most.
            on_change: shown each new state (progress).

        Returns:
            The verdict.

        Raises:
            StepError: no verdict in time, the object went away, or its pods cannot start (an image that is not
                there, say). It, and a StepError of `judge`, tells why.
        """
        ref = self._objects.place(ref)
        look = Stuck(ref, Diagnosis(self._api, self._objects))
        try:
            return self._watching.wait(ref, judge, deadline_s, on_change, look)
        except StepError as error:
            raise watching.explained(error, self.why(ref)) from None

    def why(self, ref: Ref) -> str:
        """Why it fails or does not get on, in a few words; empty where nothing tells."""
        try:
            place = self._objects.place(ref)
        except GoldpathError:
            return ""
        return Diagnosis(self._api, self._objects).why(place)

    @contextlib.contextmanager
    def children(self) -> Iterator[Children]:
        """Remove what the block creates where it ends by an error, SIGTERM or Ctrl-C; else leave it."""
        made = Children()
        self._children.append(made)
        try:
            with sigterm_raises():
                yield made
        except BaseException as error:
            with undisturbed():
                left = made.remove(self._remove_child, self._retry.sleep)
            if left and isinstance(error, GoldpathError):
                told = type(error)(f"{error.message}; not removed: {'; '.join(left)}", error.remedy)
                raise told from None
            raise
        finally:
            self._children.remove(made)

    def _remove_child(self, ref: Ref) -> bool:
        only = {**OURS, **self._marks}
        return self._objects.remove(ref, propagation="Background", wait_s=0, only=only, limit_s=GRACE_S)

    def has(self, api_version: str, kind: str) -> bool:
        """Whether the cluster serves a kind in that version."""
        return self._kinds.has(api_version, kind)

    def versions(self, group: str) -> list[str]:
        """The versions of an API group that the cluster serves; empty where it lacks the group."""
        return self._kinds.versions(group)

    def allowed(self, verb: str, api_version: str, kind: str, part: str = "", namespace: str = "") -> bool:
        """Whether we may do that (SelfSubjectAccessReview). `part`: a subresource (`log`, `status`)."""
        ref = self._objects.place(Ref(api_version, kind, "", namespace))
        wanted = {
            "verb": verb,
            "group": ref.group,
            "version": api_version.rpartition("/")[2],
            "resource": self._kinds.of(ref).plural,
            "subresource": part,
            "namespace": ref.namespace,
        }
        review = Ref("authorization.k8s.io/v1", "SelfSubjectAccessReview", "")
        body = {
            "apiVersion": review.api_version,
            "kind": review.kind,
            "metadata": {},
            "spec": {"resourceAttributes": {key: value for key, value in wanted.items() if value}},
        }
        path = self._kinds.of(review).path()
        answer = self._api.call("POST", path, f"ask whether it may {verb} {ref.kind}", body=body)
        return bool((answer.get("status") or {}).get("allowed"))


def _made_nothing(error: GoldpathError) -> bool:
    """Whether it proves that nothing of ours was created: the server refused, or the name is another's."""
    if isinstance(error, ClusterError):
        return 400 <= error.status < 500 and error.status not in (408, 409, 429)
    return isinstance(error, InputError)
