"""What names an object, and the labels by which ours are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Object = dict[str, Any]
"""An object as JSON gives it."""
RUN, STEP, DIGEST = "goldpath.io/run", "goldpath.io/step", "goldpath.io/spec-digest"
OURS = {"app.kubernetes.io/managed-by": "goldpath", "app.kubernetes.io/part-of": "goldpath"}


@dataclass(frozen=True)
class Ref:
    """An object by version, kind, namespace (empty: the cluster's own, or where the step runs) and name."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Ref:
        """The object that a manifest, or a live object, describes."""
        metadata = manifest.get("metadata") or {}
        return cls(
            manifest["apiVersion"], manifest["kind"], metadata.get("name", ""), metadata.get("namespace", "")
        )

    def within(self, namespace: str) -> Ref:
        """The same in another namespace."""
        return replace(self, namespace=namespace)

    @property
    def group(self) -> str:
        """The API group; empty for the core one."""
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def labels_of(thing: Mapping[str, Any]) -> dict[str, str]:
    """The labels of an object; empty where it has none."""
    return (thing.get("metadata") or {}).get("labels") or {}


def is_ours(thing: Mapping[str, Any]) -> bool:
    """Whether goldpath made it."""
    return OURS.items() <= labels_of(thing).items()


def in_deletion(thing: Mapping[str, Any]) -> bool:
    """Whether it was deleted and only its finalizers keep it."""
    return "deletionTimestamp" in (thing.get("metadata") or {})
