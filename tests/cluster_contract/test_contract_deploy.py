"""All of `deploy/` as kustomize builds it is taken by the server."""

from __future__ import annotations

import pytest

from goldpath.core.kubernetes import ClusterError
from tests.cluster_contract.bench import Bench
from tests.cluster_contract.objects import moved
from tests.deploy.manifests import built

FOLDERS = (
    "base",
    "overlays/device-plugin",
    "overlays/dra",
    "gpus/device-plugin",
    "gpus/dra",
    "runtimes",
    "serving",
)
OF_THE_CLUSTER = {"Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterTrainingRuntime", "DeviceClass"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_taken(bench: Bench, folder: str) -> None:
    refused, count = [], 0
    for one in moved(list(built(folder)), bench.namespace, bench.suffix, OF_THE_CLUSTER):
        if bench.kind(one) is None:
            continue
        count += 1
        try:
            bench.cluster.dry_run(one)
        except ClusterError as error:
            refused.append(error.message)
    assert not refused
    if not count:
        pytest.skip("the cluster has none of its kinds")
    bench.done["dry run, deploy/ as kustomize builds it"] += count
