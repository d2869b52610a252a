"""Searches on clusters that lack something: the Trainer, leave to start Katib's pods, a way to this machine's disk."""

from __future__ import annotations

import pytest

from goldpath.core.errors import GoldpathError, MachineError
from goldpath.training import finetune, search
from goldpath.training.specs import SearchSpec, TrainSpec
from tests.kube import Server
from tests.kube.jobs import searches

STEP = "tune"
SPEC = TrainSpec.parse({"gpu": "none", "max_steps": 2, "sequence_length": 64, "evaluate_steps": 2})
INPUTS = ("s3://team/frame", "frame-digest", "s3://team/base", "base-digest")


def test_a_search_on_a_cluster_with_the_old_operator_has_its_jobs_as_trials(cluster: Server) -> None:
    cluster.lack("TrainJob")
    cluster.lack("ClusterTrainingRuntime")
    cluster.on("Experiment", searches(cluster, [2.5, 2.1]))
    found = search.tune(*INPUTS, SearchSpec.parse({"max_trials": 2}), SPEC).result
    assert found.best is not None
    assert found.best.objective == 2.1
    (made,) = cluster.find("Experiment")
    assert made["spec"]["trialTemplate"]["trialSpec"]["kind"] == "PyTorchJob"
    assert [name.split("/")[0] for name in cluster.created] == ["Experiment"]


def test_a_search_on_a_cluster_with_neither_says_what_to_install(cluster: Server) -> None:
    for kind in ("TrainJob", "ClusterTrainingRuntime", "PyTorchJob"):
        cluster.lack(kind)
    with pytest.raises(GoldpathError, match=r"installed: Kubeflow Trainer"):
        search.tune(*INPUTS, SearchSpec.parse({"max_trials": 2}), SPEC)
    assert cluster.created == []


STOPPED = {"max_trials": 2, "early_stopping": {"algorithm": "medianstop"}}


def test_median_stopping_is_refused_at_once_where_its_pod_would_not_start(cluster: Server) -> None:
    def enforce(level: str) -> None:
        labels = {"pod-security.kubernetes.io/enforce": level}
        cluster.edit("Namespace", "team-a", lambda thing: thing["metadata"].update(labels=labels))

    enforce("restricted")
    with pytest.raises(MachineError, match=r"namespace team-a enforces .* restricted.*medianstop.*hyperband"):
        search.tune(*INPUTS, SearchSpec.parse(STOPPED), SPEC)
    assert cluster.created == []
    enforce("baseline")
    cluster.on("Experiment", searches(cluster, [2.5, 2.1]))
    assert search.tune(*INPUTS, SearchSpec.parse(STOPPED), SPEC).result.best is not None


def test_who_may_not_see_the_namespace_searches_all_the_same(cluster: Server) -> None:
    cluster.deny("get", "namespaces")
    cluster.on("Experiment", searches(cluster, [2.5, 2.1]))
    assert search.tune(*INPUTS, SearchSpec.parse(STOPPED), SPEC).result.best is not None


def test_a_frame_on_this_machines_disk_is_refused_before_anything_is_made(cluster: Server) -> None:
    inputs = ("file:///home/me/frame", "d", "s3://team/base", "d")
    for work in (
        lambda: finetune.fine_tune(*inputs, SPEC),
        lambda: search.tune(*inputs, SearchSpec.parse({"max_trials": 2}), SPEC),
    ):
        with pytest.raises(GoldpathError, match=r"frame.*a pod cannot read this machine's disk"):
            work()
    assert cluster.created == []
