"""Why something failed: what a person would have looked up, in one line."""

from __future__ import annotations

from typing import Any

import pytest

from goldpath.core.kubernetes import Cluster, Ref
from tests.kube import Server
from tests.kube.things import Thing, condition, model_cache, pod, reference, train_job

LABEL = {"jobset.sigs.k8s.io/jobset-name": "job"}
JOB = Ref.of(train_job())


def container(name: str = "node", last: Thing | None = None, **state: Thing) -> Thing:
    return {"name": name, "state": state, **({"lastState": {"terminated": last}} if last else {})}


UNSCHEDULABLE = condition(
    "PodScheduled", "False", reason="Unschedulable", message="0/3 nodes: Insufficient gpu."
)
DISRUPTED = condition("DisruptionTarget", reason="PreemptionByScheduler", message="preempted")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"conditions": [UNSCHEDULABLE]}, "Unschedulable: 0/3 nodes: Insufficient gpu."),
        (
            {
                "containerStatuses": [
                    container(
                        waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x:1"'}
                    )
                ]
            },
            'node waits: ImagePullBackOff: Back-off pulling image "x:1"',
        ),
        (
            {
                "initContainerStatuses": [
                    container("model", waiting={"reason": "ErrImagePull", "message": "not found"})
                ]
            },
            "model waits: ErrImagePull: not found",
        ),
        (
            {"containerStatuses": [container(terminated={"reason": "OOMKilled", "exitCode": 137})]},
            "node ended: OOMKilled, exit code 137, more memory is needed",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "low on ephemeral-storage"},
            "Evicted: low on ephemeral-storage",
        ),
        ({"conditions": [DISRUPTED]}, "evicted (PreemptionByScheduler): preempted"),
        (
            {
                "containerStatuses": [
                    container(last={"reason": "Error", "exitCode": 1}, waiting={"reason": "CrashLoopBackOff"})
                ]
            },
            "node waits: CrashLoopBackOff (ended: Error, exit code 1)",
        ),
        (
            {"containerStatuses": [container(terminated={"reason": "Error", "exitCode": 3})]},
            "node ended: Error, exit code 3",
        ),
    ],
)
def test_what_befell_a_pod(server: Server, cluster: Cluster, status: dict[str, Any], said: str) -> None:
    cluster.create_or_adopt(train_job())
    server.put(pod("job-node-0", None, LABEL, **status))
    server.put(pod("job-node-1", None, LABEL, phase="Running", containerStatuses=[container(running={})]))
    server.put(pod("another", None, {"jobset.sigs.k8s.io/jobset-name": "other"}, **status))
    assert cluster.why(JOB) == f"pod job-node-0: {said}"


def test_the_last_lines_of_the_log_are_shown(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())
    server.put(
        pod("n", None, LABEL, containerStatuses=[container(terminated={"reason": "Error", "exitCode": 1})])
    )
    server.logs["team-a", "n"] = "\n".join(["noise"] * 50 + ["a", "b", "Traceback", "CUDA out of memory", ""])
    assert cluster.why(JOB).endswith(
        "exit code 1; its log ends: noise | a | b | Traceback | CUDA out of memory"
    )


def test_conditions_and_warnings_of_all_that_was_made_for_it(server: Server, cluster: Cluster) -> None:
    """A quota that refuses the pods is told two objects further down."""
    job = cluster.create_or_adopt(train_job())
    failed = condition("Failed", reason="JobsFailed", message="jobset failed")
    server.edit(
        "TrainJob",
        "job",
        lambda now: now.update(status={"conditions": [failed, condition("Complete", "False")]}),
    )
    jobset = server.put(_owned("jobset.x-k8s.io/v1alpha2", "JobSet", job))
    child = server.put(_owned("batch/v1", "Job", jobset))
    server.event(child, "FailedCreate", "exceeded quota: gpus, requested: 8, used: 1, limited: 4")
    assert cluster.why(JOB) == (
        "Failed is True: jobset failed; FailedCreate: exceeded quota: gpus, requested: 8, used: 1, limited: 4"
    )


def _owned(api_version: str, kind: str, owner: Thing) -> Thing:
    metadata = {"name": "job", "namespace": "team-a", "ownerReferences": [reference(owner)]}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def test_causes_come_before_consequences_and_many_pods_are_counted(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())
    for number in range(4):
        ended = (
            {"reason": "OOMKilled", "exitCode": 137} if number == 3 else {"reason": "Error", "exitCode": 1}
        )
        server.put(pod(f"n{number}", None, LABEL, containerStatuses=[container(terminated=ended)]))
    told = cluster.why(JOB)
    assert told.startswith("pod n3: node ended: OOMKilled")
    assert told.endswith("and 2 more pods")


def test_an_experiments_failed_trials_are_looked_into(server: Server, cluster: Cluster) -> None:
    experiment = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "search"},
        "spec": {},
    }
    cluster.create_or_adopt(experiment)
    server.edit("Experiment", "search", lambda now: now.update(status={"failedTrialList": ["search-abc"]}))
    bad = [container(terminated={"reason": "Error", "exitCode": 1})]
    server.put(pod("p", None, {"jobset.sigs.k8s.io/jobset-name": "search-abc"}, containerStatuses=bad))
    assert cluster.why(Ref.of(experiment)) == "pod p: node ended: Error, exit code 1"


def test_pods_of_an_unknown_kind_are_found_by_their_owner(server: Server, cluster: Cluster) -> None:
    made = cluster.create_or_adopt(
        {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "s"}, "spec": {}}
    )
    server.put(pod("p", made, conditions=[UNSCHEDULABLE]))
    assert cluster.why(Ref.of(made)).startswith("pod p: Unschedulable")


def test_what_may_not_be_read_is_left_out(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())
    server.edit(
        "TrainJob", "job", lambda now: now.update(status={"conditions": [condition("Failed", message="no")]})
    )
    for verb, plural in (("list", "pods"), ("list", "events"), ("list", "jobsets")):
        server.deny(verb, plural)
    assert cluster.why(JOB) == "Failed is True: no"
    server.deny("get", "trainjobs")
    assert cluster.why(JOB) == ""


def test_what_is_well_or_gone_gives_no_reason(server: Server, cluster: Cluster) -> None:
    assert cluster.why(JOB) == ""
    cache = cluster.create_or_adopt(model_cache())
    assert cluster.why(Ref.of(cache)) == ""
    server.lack("Experiment")
    assert cluster.why(Ref("kubeflow.org/v1beta1", "Experiment", "x")) == ""


def test_a_search_whose_algorithm_may_not_start_says_so(server: Server, cluster: Cluster) -> None:
    experiment = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": "search"}}
    cluster.create_or_adopt({**experiment, "spec": {}})
    refused = 'pods "search-tpe-5f-x" is forbidden: violates PodSecurity "restricted:latest"'
    for name, message in (("search-tpe-5f", refused), ("another-random-7c", "exceeded quota")):
        replicas = {"kind": "ReplicaSet", "metadata": {"name": name, "uid": name}}
        server.event(replicas, "FailedCreate", message)
    assert cluster.why(Ref.of(experiment)) == f"FailedCreate: {refused}"
