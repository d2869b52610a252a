"""From apiVersion and kind to the path, as the cluster itself tells it."""

from __future__ import annotations

from dataclasses import dataclass

from goldpath.core.checks.needs import part_of
from goldpath.core.errors import MachineError
from goldpath.core.kubernetes.api import Api
from goldpath.core.kubernetes.errors import ClusterError
from goldpath.core.kubernetes.refs import Object, Ref


@dataclass(frozen=True)
class Resource:
    """A kind as the cluster serves it."""

    api_version: str
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "", part: str = "") -> str:
        """The path of all of the kind, of one object, or of a part of it (`status`, `log`)."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        place = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        rest = "".join(f"/{piece}" for piece in (name, part) if piece)
        return f"{root}{self.api_version}{place}/{self.plural}{rest}"


class Kinds:
    """The kinds of a cluster, each asked for once; what is lacking is asked for anew, for it may be installed."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[tuple[str, str], Resource] = {}

    def find(self, api_version: str, kind: str) -> Resource:
        """The kind as the cluster serves it.

        Raises:
            MachineError: the cluster lacks it, or has it in other versions only.
        """
        if (found := self._known.get((api_version, kind))) is None:
            for listed in self._listed(api_version):
                if "/" not in listed["name"]:  # a subresource else
                    self._known[api_version, listed["kind"]] = Resource(
                        api_version, listed["name"], bool(listed["namespaced"])
                    )
            found = self._known.get((api_version, kind))
        if found is None:
            raise self._lacking(api_version, kind)
        return found

    def of(self, ref: Ref) -> Resource:
        """The kind of an object. Errors as in `find`."""
        return self.find(ref.api_version, ref.kind)

    def has(self, api_version: str, kind: str) -> bool:
        """Whether the cluster serves it.

        Raises:
            ClusterError: the cluster does not tell.
            MachineError: it does not answer.
        """
        if (api_version, kind) in self._known:
            return True
        return any(listed["kind"] == kind for listed in self._listed(api_version))

    def versions(self, group: str) -> list[str]:
        """The versions of a group that the cluster serves, the preferred one first; empty where it lacks the group."""
        try:
            found = self._api.call("GET", f"/apis/{group}", f"ask for the versions of {group}")
        except ClusterError as error:
            if error.status == 404:
                return []
            raise
        preferred = (found.get("preferredVersion") or {}).get("version")
        names = [entry["version"] for entry in found.get("versions") or []]
        return sorted(names, key=lambda name: name != preferred)

    def _listed(self, api_version: str) -> list[Object]:
        root = "/apis/" if "/" in api_version else "/api/"
        try:
            found = self._api.call("GET", root + api_version, f"ask for the kinds of {api_version}")
        except ClusterError as error:
            if error.status == 404:
                return []
            raise
        return list(found.get("resources") or [])

    def _lacking(self, api_version: str, kind: str) -> MachineError:
        group, _, version = api_version.rpartition("/")
        part = part_of(api_version, kind)
        install = part.name if part else f"what brings {api_version}"
        others = [name for name in self.versions(group) if self.has(f"{group}/{name}", kind)] if group else []
        if others:
            return MachineError(
                f"the cluster has {kind} as {group}/{', '.join(others)} only, {version} is needed",
                f"Have it upgraded to {install}. `goldpath doctor` says how.",
            )
        return MachineError(
            f"the cluster has no {kind} ({api_version})",
            f"Have it installed: {install}. `goldpath doctor` says how.",
        )
