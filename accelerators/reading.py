"""Reads what `cluster.report` needs from a cluster."""

from __future__ import annotations

from goldpath.accelerators import cluster as gpus
from goldpath.accelerators.placement import ClusterPaths
from goldpath.core.checks.api import Answer, Api, Object, connect
from goldpath.core.errors import MachineError
from goldpath.core.kubernetes import Cluster

_LISTS = (
    "/api/v1/nodes",
    "/apis/resource.k8s.io/v1/resourceslices",
    "/apis/resource.k8s.io/v1/deviceclasses",
)


def read(kubeconfig: str = "", context: str = "") -> tuple[list[Object], list[Object], list[Object]]:
    """Nodes, ResourceSlices and DeviceClasses; a cluster without resource.k8s.io/v1 has none of the last two.

    Raises:
        MachineError: no cluster is configured, or it cannot be reached, or it refuses to be read.
    """
    return read_from(connect(kubeconfig, context))


def read_from(api: Api) -> tuple[list[Object], list[Object], list[Object]]:
    """The same of a cluster that is connected.

    Raises:
        MachineError: it cannot be reached, or it refuses to be read.
    """
    nodes, slices, classes = (_list(api, path) for path in _LISTS)
    return nodes, slices, classes


def paths_of(cluster: Cluster) -> ClusterPaths:
    """How a cluster hands out GPUs, read over a step's own connection, which tries again.

    Raises:
        GoldpathError: it cannot be reached, or refuses to be read.
    """
    dra = "resource.k8s.io/v1"
    nodes, slices, classes = (
        cluster.find(version, kind) if version == "v1" or cluster.has(version, kind) else []
        for version, kind in (("v1", "Node"), (dra, "ResourceSlice"), (dra, "DeviceClass"))
    )
    return gpus.paths(nodes, slices, classes)


def _list(api: Api, path: str) -> list[Object]:
    answer, found = api.items(path)
    if not answer.ok and not (answer.status == 404 and path.startswith("/apis/")):
        raise _refused(api.where, answer)
    return found


def _refused(where: str, answer: Answer) -> MachineError:
    if answer.status in (401, 403):
        return MachineError(
            f"the cluster at {where} refuses to show its nodes and devices ({answer.status} {answer.reason})",
            "Log in again, or ask for list on nodes, resourceslices and deviceclasses (deploy/gpus/README.md).",
        )
    return MachineError(
        f"the cluster at {where} answers {answer.status} {answer.reason}", "Try again, or ask who runs it."
    )
