"""Whose our objects are: the pod of the step, so that Kubernetes removes them with it, and so with the run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from goldpath.core.errors import GoldpathError
from goldpath.core.kubernetes.api import Api
from goldpath.core.kubernetes.refs import Object


@dataclass(frozen=True)
class Owner:
    """The pod of the step; `reference` is None where there is none, and `note` says why."""

    reference: Object | None = None
    namespace: str = ""
    note: str = ""


def find(api: Api) -> Owner:
    """The pod that this process runs in: KFP's KFP_POD_NAME and KFP_POD_UID, else HOSTNAME, looked up in a cluster."""
    namespace = api.connection.namespace
    name, uid = os.environ.get("KFP_POD_NAME", ""), os.environ.get("KFP_POD_UID", "")
    if (name and not uid) or (not name and api.connection.in_cluster):
        name = name or os.environ.get("HOSTNAME", "")
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        try:
            uid = api.call("GET", path, f"read pod {name}", limit_s=api.retry.first_limit_s)["metadata"][
                "uid"
            ]
        except (GoldpathError, KeyError) as error:
            return Owner(note=f"objects have no owner: pod {name!r} could not be read ({error})")
    if not name:
        return Owner(note="objects have no owner: this is no pod of the cluster; remove them by their labels")
    reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    return Owner(reference, namespace)
