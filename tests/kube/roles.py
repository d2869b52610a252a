"""What the service account of the pipelines may do: the roles of `deploy/base`, for the server to enforce."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

BASE = Path(__file__).resolve().parents[2] / "deploy" / "base"
NAME = "goldpath-pipeline"


@dataclass(frozen=True)
class Rule:
    """One rule of a role."""

    groups: frozenset[str]
    resources: frozenset[str]
    verbs: frozenset[str]
    names: frozenset[str] = frozenset()
    namespaced: bool = True
    """Of a Role: in the namespace of the tests alone."""

    def allows(self, verb: str, group: str, resource: str, name: str, here: bool) -> bool:
        """Whether it grants that; `here`: in that namespace."""
        return (
            (here or not self.namespaced)
            and group in self.groups
            and resource in self.resources
            and verb in self.verbs
            and (not self.names or name in self.names)
        )


def of_the_pipelines() -> list[Rule]:
    """Those that `deploy/base` grants."""
    found = []
    for file in ("role.yaml", "cluster-role.yaml"):
        for one in yaml.safe_load_all((BASE / file).read_text()):
            if one["kind"] in ("Role", "ClusterRole") and one["metadata"]["name"] == NAME:
                for rule in one["rules"]:
                    parts = (
                        rule.get(key, ()) for key in ("apiGroups", "resources", "verbs", "resourceNames")
                    )
                    found.append(Rule(*map(frozenset, parts), namespaced=one["kind"] == "Role"))
    assert len({rule.namespaced for rule in found}) == 2, "both files grant something"
    return found
