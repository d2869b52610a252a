"""The service account of the pipelines, and one that may only look, with the roles of `deploy/base` alone."""

from __future__ import annotations

import copy

from goldpath.core.kubernetes import Cluster, ClusterError, Ref
from goldpath.core.kubernetes.client import Connection
from tests.cluster_contract.bench import Bench, Manifest, deployed
from tests.cluster_contract.objects import moved, restricted

PIPELINE, DOCTOR = "goldpath-pipeline", "goldpath-doctor"
_FILES = ("service-account", "role", "cluster-role", "kfp-role", "doctor-role")
_WIDE = {"ClusterRole", "ClusterRoleBinding"}


class NoAccounts(Exception):
    """The cluster gives out no tokens, or asks nobody for leave; it says which."""


def deploy(bench: Bench) -> None:
    """Put accounts, roles and bindings into the bench's namespace."""
    found = [one for name in _FILES for one in deployed(f"base/{name}.yaml")]
    found += _of_the_doctor(bench)
    for one in moved(found, bench.namespace, bench.suffix, _WIDE):
        if bench.kind(one) is None:
            raise NoAccounts(f"the cluster has no {one['kind']}")
        bench.create(one)


def connection(bench: Bench, account: str) -> Connection:
    """The bench's cluster, as a service account of its namespace.

    Raises:
        NoAccounts: see there.
    """
    from kubernetes import client

    path = f"/api/v1/namespaces/{bench.namespace}/serviceaccounts/{account}/token"
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    }
    try:
        token = bench.call("POST", path, asked)["status"]["token"]
    except (ClusterError, KeyError) as error:
        raise NoAccounts(f"the cluster gives out no tokens ({error})") from None
    admin = bench.cluster.connection
    made = copy.copy(admin.api.configuration)
    made.cert_file = made.key_file = made.username = made.password = made.refresh_api_key_hook = None
    made.api_key, made.api_key_prefix = {"authorization": f"Bearer {token}"}, {}
    return Connection(client.ApiClient(made), admin.host, bench.namespace)


def check_enforced(cluster: Cluster) -> None:
    """Raises NoAccounts where everybody may do everything: then it would show nothing."""
    if cluster.allowed("create", "v1", "Secret"):
        raise NoAccounts("the cluster lets every account do everything")


def _of_the_doctor(bench: Bench) -> list[Manifest]:
    """Whoever is bound to goldpath-doctor, as its file says."""
    subject = {"kind": "ServiceAccount", "name": DOCTOR}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DOCTOR}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": DOCTOR},
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DOCTOR}}
    return [account, {**binding, "roleRef": role, "subjects": [subject]}]


def pod(bench: Bench, name: str) -> Ref:
    """A pod that takes no node: a step's, for what it owns."""
    spec = {
        "schedulingGates": [{"name": "goldpath.io/never"}],
        "containers": [{"name": "main", "image": "registry.invalid/goldpath/any:1"}],
    }
    made = restricted({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    bench.create(made)
    return Ref.of(made)
