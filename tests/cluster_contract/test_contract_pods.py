"""Pod Security, quota and sizes of `deploy/base` let in every pod that our objects become."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldpath.core.kubernetes import ClusterError
from tests.cluster_contract.bench import Bench, Manifest
from tests.cluster_contract.objects import FILES, OTHERS, ROOT, named, objects
from tests.cluster_contract.pods import pods_of

OURS = [file for file in FILES if file.parent != OTHERS and pods_of(objects(file))]


@pytest.mark.parametrize("file", OURS, ids=named)
def test_the_namespace_takes_every_pod(bench: Bench, file: Path) -> None:
    found = pods_of(objects(file))
    refused = [told for told in (refusal(bench, pod) for pod in found) if told]
    assert not refused
    bench.done["dry run, pods that controllers make"] += len(found)


def test_the_namespace_takes_no_pod_that_runs_as_root(bench: Bench) -> None:
    """Else the test above would say nothing."""
    metadata = {"name": "as-root"}
    spec = {"containers": [{"name": "main", "image": "registry.invalid/any:1"}]}
    told = refusal(bench, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    if not told:
        pytest.skip("the cluster does not enforce Pod Security")
    assert "Pod Security" in told


def test_a_pod_beyond_the_quota_is_refused_in_words(bench: Bench) -> None:
    if not bench.controllers:
        pytest.skip("no controller counts for quotas")
    (pod,) = pods_of(objects(ROOT / "deploy/examples/claims/half-a-gpu.yaml"))
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "65"}}
    with pytest.raises(ClusterError) as refused:
        bench.cluster.dry_run(pod)
    assert "the quota goldpath is exceeded (requested: requests.cpu=65" in refused.value.message


def refusal(bench: Bench, pod: Manifest) -> str:
    """Why the server would not take a pod; empty where it would."""
    try:
        bench.cluster.dry_run(pod)
    except ClusterError as error:
        return error.message
    return ""
