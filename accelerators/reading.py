"""Reads what `cluster.report` needs from a cluster, through the Kubernetes client."""

from __future__ import annotations

from typing import Any

from goldpath.accelerators import cluster as devices
from goldpath.accelerators.placement import ClusterPaths
from goldpath.core.errors import GoldpathError, MachineError
from goldpath.core.kubernetes import Cluster

TIMEOUT = 10
"""Seconds until a server that says nothing counts as unreachable."""
PAGE = 500
_REMEDY = "Set KUBECONFIG or give --kubeconfig FILE. Without a cluster, pipelines run on this machine."
Object = dict[str, Any]


def read(kubeconfig: str = "", context: str = "") -> tuple[list[Object], list[Object], list[Object]]:
    """Nodes, ResourceSlices and DeviceClasses; a cluster without resource.k8s.io/v1 has none of the last two.

    Raises:
        MachineError: no cluster is configured, or it cannot be reached, or it refuses to be read.
    """
    import urllib3
    from kubernetes import client

    api = _connect(kubeconfig, context)
    where = api.configuration.host
    try:
        return (
            _list(api, "/api/v1/nodes"),
            _list(api, "/apis/resource.k8s.io/v1/resourceslices"),
            _list(api, "/apis/resource.k8s.io/v1/deviceclasses"),
        )
    except client.ApiException as error:
        raise _refused(where, error.status, str(error.reason)) from None
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
        raise MachineError(
            f"no Kubernetes cluster answers at {where} ({reason[:120]})",
            f"Check that it runs and that this machine reaches it. {_REMEDY}",
        ) from None


def paths_of(cluster: Cluster) -> ClusterPaths:
    """The paths of a cluster, read by a step's own connection, which tries again.

    Raises:
        GoldpathError: it cannot be reached, or refuses to be read.
    """

    def listed(api_version: str, kind: str) -> list[Object]:
        return cluster.list(api_version, kind) if cluster.has(api_version, kind) else []

    dra = "resource.k8s.io/v1"
    return devices.paths(listed("v1", "Node"), listed(dra, "ResourceSlice"), listed(dra, "DeviceClass"))


def _connect(kubeconfig: str, context: str) -> Any:
    """A client: of the kubeconfig, or of the pod that this runs in."""
    import yaml
    from kubernetes import client, config

    made = client.Configuration()
    made.retries = False
    try:
        try:
            config.load_kube_config(kubeconfig or None, context or None, client_configuration=made)
        except config.ConfigException:
            if kubeconfig or context:
                raise
            config.load_incluster_config(client_configuration=made)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        named = f"{kubeconfig} cannot be used" if kubeconfig else "no Kubernetes cluster is configured"
        raise MachineError(f"{named} ({str(error)[:120]})", _REMEDY) from None
    return client.ApiClient(made)


def _list(api: Any, path: str) -> list[Object]:
    """All objects of one kind, page by page, as JSON gives them."""
    from kubernetes import client

    found: list[Object] = []
    token = ""
    while True:
        query = [("limit", PAGE)] + ([("continue", token)] if token else [])
        try:
            page, _, _ = api.call_api(
                path,
                "GET",
                query_params=query,
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
                response_type="object",
                _request_timeout=TIMEOUT,
            )
        except client.ApiException as error:
            if error.status == 404 and path.startswith("/apis/"):
                return []
            raise
        found += page.get("items") or []
        token = page.get("metadata", {}).get("continue", "")
        if not token:
            return found


def _refused(where: str, status: int, reason: str) -> GoldpathError:
    if status in (401, 403):
        return MachineError(
            f"the cluster at {where} refuses to show its nodes and devices ({status} {reason})",
            "Log in again, or ask for list on nodes, resourceslices and deviceclasses (deploy/gpus/README.md).",
        )
    return MachineError(f"the cluster at {where} answers {status} {reason}", "Try again, or ask who runs it.")
