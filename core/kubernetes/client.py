"""Finds the cluster and its credentials: KUBECONFIG, the pod's service account, or ~/.kube/config."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from goldpath.core.errors import MachineError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REMEDY = "Set KUBECONFIG to the file of a cluster, or run it in a pod of one."


class Found(NamedTuple):
    """Where a cluster is: the client's configuration, the namespace of the context or the pod, and if we are in it."""

    configuration: Any
    namespace: str
    in_cluster: bool


@dataclass(frozen=True)
class Connection:
    """A client of the official library, where its server is, and the namespace that objects go to."""

    api: Any
    host: str
    namespace: str
    in_cluster: bool = False


def find(kubeconfig: str = "", context: str = "", remedy: str = _REMEDY) -> Found:
    """The cluster that is configured. As in kubectl, KUBECONFIG wins over the pod's account: who sets it means it.

    Raises:
        MachineError: no cluster is configured, or its configuration cannot be read.
    """
    import yaml
    from kubernetes import client, config

    made = client.Configuration()
    made.retries = False  # ours know which answers may pass
    inside = not (kubeconfig or context or os.environ.get("KUBECONFIG")) and (ACCOUNT / "token").is_file()
    try:
        if inside:
            config.load_incluster_config(client_configuration=made)
            own = (ACCOUNT / "namespace").read_text().strip()
        else:
            file = kubeconfig or os.environ.get("KUBECONFIG") or None
            config.load_kube_config(file, context or None, client_configuration=made)
            contexts, active = config.list_kube_config_contexts(file)
            chosen = next((c for c in contexts if c["name"] == context), active)
            own = (chosen.get("context") or {}).get("namespace", "")
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError) as error:
        named = kubeconfig or os.environ.get("KUBECONFIG", "")
        what = f"{named} cannot be used" if named else "no Kubernetes cluster is configured"
        raise MachineError(f"{what} ({str(error)[:160].rstrip('.')})", remedy) from None
    return Found(made, own, inside)


def connect(kubeconfig: str = "", context: str = "", namespace: str = "") -> Connection:
    """A connection; nothing is sent yet.

    The namespace is the argument, else GOLDPATH_NAMESPACE, else the service account's or the context's own.

    Raises:
        MachineError: as `find`, or no namespace is named.
    """
    from kubernetes import client

    made, own, inside = find(kubeconfig, context)
    place = namespace or os.environ.get("GOLDPATH_NAMESPACE") or own
    if not place:
        raise MachineError(
            f"no namespace is chosen for the cluster at {made.host}",
            "Set GOLDPATH_NAMESPACE, or the context's: "
            "`kubectl config set-context --current --namespace NAMESPACE`.",
        )
    return Connection(client.ApiClient(made), made.host, place, inside)
