"""A namespace of our own on the cluster, what was put on it, and how all of it goes again."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from goldpath.core.errors import GoldpathError, MachineError
from goldpath.core.kubernetes import Cluster, ClusterError, Ref
from goldpath.core.kubernetes.api import Api
from goldpath.core.kubernetes.kinds import Kinds, Resource
from goldpath.core.kubernetes.refs import OURS
from goldpath.core.kubernetes.retry import Retry

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
Manifest = dict[str, Any]
T = TypeVar("T")
GONE_S = 20
"""Seconds that controllers have to let an object go; a bare API server has none, and then we do it."""
QUOTA_S = 10
"""Seconds that a controller has to count for a new quota."""
SETTLE_S = 2
"""Seconds that a controller has to make the service account of a new namespace."""


def namespace_labels() -> dict[str, str]:
    """Those of `deploy/base`: which pods the namespace takes."""
    (made,) = deployed("base/namespace.yaml")
    return dict(made["metadata"]["labels"])


def limits() -> tuple[Manifest, Manifest]:
    """The quota of `deploy/base` with what its overlays add, and the LimitRange."""
    quota, sizes = deployed("base/quota.yaml")
    for file in ("overlays/device-plugin/quota", "overlays/dra/quota", "gpus/quota/slices"):
        (more,) = deployed(f"{file}.yaml")
        quota["spec"]["hard"] |= more["spec"]["hard"]
    return quota, sizes


def deployed(file: str) -> list[Manifest]:
    """The objects of a file in `deploy/`."""
    return [one for one in yaml.safe_load_all((DEPLOY / file).read_text()) if one]


class Bench:
    """The cluster of KUBECONFIG, with a namespace of this run of the tests."""

    def __init__(self, gone_s: float = GONE_S) -> None:
        self.suffix = uuid.uuid4().hex[:6]
        self.namespace = f"goldpath-contract-{self.suffix}"
        self.cluster = Cluster.connect(
            namespace=self.namespace, run=f"contract-{self.suffix}", step="contract"
        )
        self.api = Api(self.cluster.connection, Retry())
        self.kinds = Kinds(self.api)
        self.gone_s = gone_s
        self.made: list[Ref] = []
        self.done: Counter[str] = Counter()
        """What was checked: words to a number of objects."""
        self.skipped: Counter[str] = Counter()
        """Why not: reason to a number of objects."""
        self.notes: list[str] = []
        self._controllers: bool | None = None

    def open(self) -> None:
        """Make the namespace, and a service account in it where nobody else does: pods are refused without one.

        Raises:
            GoldpathError: the cluster does not let us.
        """
        metadata = {"name": self.namespace, "labels": {**namespace_labels(), **OURS}}
        self.call(
            "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        )
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        if not self.until(lambda: self.read(f"{accounts}/default"), SETTLE_S):
            made = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            with contextlib.suppress(ClusterError):  # it came meanwhile
                self.call("POST", accounts, made)
                self.made.append(Ref("v1", "ServiceAccount", "default"))
                self.notes.append("no controller made the namespace's service account: we did")

        self._limit()

    def _limit(self) -> None:
        """The quota and the sizes of `deploy/`, in force as in a namespace of the pipelines."""
        if not self.controllers:
            self.notes.append("no controller counts for quotas: the namespace has none")
            return
        quota, sizes = limits()
        self.create(sizes)
        self.create(quota)
        path = self.path(Ref.of(quota))

        hard = quota["spec"]["hard"]

        def uncounted() -> set[str]:
            used: Manifest = ((self.read(path) or {}).get("status") or {}).get("used") or {}
            return hard.keys() - used.keys()

        if self.until(lambda: None if uncounted() else True, QUOTA_S):
            return
        # What is limited and not counted is refused: kinds that are lacking, and those that came after the controller.
        left = uncounted()
        self.notes.append(
            f"the quota's controller does not count {', '.join(sorted(left))}: not limited here"
        )
        kept = {name: amount for name, amount in hard.items() if name not in left}
        self.cluster.change(Ref.of(quota), lambda now: now["spec"].update(hard=kept))

    def close(self) -> None:
        """Remove everything that is left of us, the namespace at last.

        Raises:
            AssertionError: something of us stays.
        """
        left = [str(ref) for ref in self.made[::-1] if not self.remove(ref)]
        if not self._close_namespace():
            left.append(f"Namespace {self.namespace}")
        assert not left, f"still on the cluster: {', '.join(left)}"

    def kind(self, manifest: Manifest) -> Resource | None:
        """The kind as the cluster serves it; None, noted as skipped, where it lacks it."""
        try:
            return self.kinds.find(manifest["apiVersion"], manifest["kind"])
        except MachineError as error:
            self.skipped[error.message] += 1
            return None

    def create(self, manifest: Manifest) -> Manifest:
        """Create an object, to be removed at the latest when all ends."""
        ref = Ref.of(manifest)
        self.made.append(ref)
        return self.cluster.create_or_adopt(manifest, keep=True)

    def remove(self, ref: Ref) -> bool:
        """Remove an object of ours and whatever finalizers nobody serves; whether it has gone."""
        path = self.path(ref)
        body = {"propagationPolicy": "Background", **({"gracePeriodSeconds": 0} if ref.kind == "Pod" else {})}
        with contextlib.suppress(ClusterError):  # gone already
            self.call("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **body})
        gone = bool(self.until(lambda: self.read(path) is None or None, self.patience))
        if not gone and (thing := self.read(path)) and thing["metadata"].get("finalizers"):
            self.notes.append(f"no controller served the finalizers of {ref.kind}: we removed them")
            with contextlib.suppress(GoldpathError):
                self.cluster.change(ref, lambda now: now["metadata"].pop("finalizers", None) and None)
            gone = bool(self.until(lambda: self.read(path) is None or None, 2))
        if gone and ref in self.made:
            self.made.remove(ref)
        return gone

    @property
    def patience(self) -> float:
        """Seconds to wait for controllers: few where there are none."""
        return self.gone_s if self.controllers else min(self.gone_s, 1)

    @property
    def controllers(self) -> bool:
        """Whether the cluster has Kubernetes' own: they put their certificate into every namespace."""
        if self._controllers is None:
            path = f"/api/v1/namespaces/{self.namespace}/configmaps/kube-root-ca.crt"
            self._controllers = self.until(lambda: self.read(path), SETTLE_S) is not None
        return self._controllers

    def path(self, ref: Ref) -> str:
        resource = self.kinds.of(ref)
        return resource.path((ref.namespace or self.namespace) if resource.namespaced else "", ref.name)

    def call(self, method: str, path: str, body: Any = None) -> Manifest:
        return self.api.call(method, path, f"{method} {path}", body=body)

    def read(self, path: str) -> Manifest | None:
        try:
            return self.call("GET", path)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def until(self, look: Callable[[], T | None], seconds: float) -> T | None:
        """What `look` finds, asked again and again for some seconds."""
        ends = time.monotonic() + seconds
        while (found := look()) is None and time.monotonic() < ends:
            time.sleep(0.1)
        return found

    def _close_namespace(self) -> bool:
        path = f"/api/v1/namespaces/{self.namespace}"
        with contextlib.suppress(ClusterError):
            self.call("DELETE", path)
        if self.until(lambda: self.read(path) is None or None, 6 * self.patience):
            return True
        if self.controllers:
            return False  # theirs to end: to force it would leave behind what they have not removed yet
        self.notes.append("no controller ends namespaces: we did")
        with contextlib.suppress(ClusterError):  # the scheduler's, which nobody else removes now
            self.call("DELETE", f"{path}/events")
        with contextlib.suppress(GoldpathError):
            ref = Ref("v1", "Namespace", self.namespace)
            self.cluster.change(
                ref, lambda now: now.setdefault("spec", {}).update(finalizers=[]), part="finalize"
            )
        return self.until(lambda: self.read(path) is None or None, 2) is not None
