"""Waiting: the verdict comes through closed, broken, refused and outdated watches, and within the deadline."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from goldpath.core.errors import MachineError, StepError
from goldpath.core.kubernetes import Cluster, Ref, Retry
from tests.kube import QUICK, Faults, Server
from tests.kube.conftest import Connect
from tests.kube.things import Thing, advance, complete, condition, pod, train_job

JOB = Ref.of(train_job())


def test_a_wait_ends_with_the_verdict_and_shows_each_state_once(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())
    seen: list[Thing] = []

    def show(job: Thing) -> None:
        seen.append(job)
        advance(server, job)

    assert cluster.wait(JOB, complete, 20, show) == "done"
    assert [job.get("status", {}).get("trainerStatus", {}).get("progressPercentage") for job in seen] == [
        None,
        0,
        50,
        100,
    ]
    assert seen[-1]["status"]["trainerStatus"] == {"progressPercentage": 100}
    versions = [int(thing["metadata"]["resourceVersion"]) for thing in seen]
    assert versions == sorted(set(versions))
    assert cluster.wait(JOB, complete, 20) == "done"  # at once where it is so already


@pytest.mark.parametrize(
    "faults",
    [
        ["watch-closed"] * 3,
        ["watch-cut", "watch-closed"],
        ["drop-before"] * 2,
        ["429", "500"],
        ["gone"],
        ["drop-before"] * 12,
        ["gone", "watch-closed"],
    ],
    ids="-".join,
)
def test_a_wait_goes_on_after_watches_break(server: Server, cluster: Cluster, faults: list[str]) -> None:
    """Each state that was seen leads to the next: what happens while no watch stands must not be lost."""
    cluster.create_or_adopt(train_job())
    server.faults = Faults(script=faults, only="WATCH")
    assert cluster.wait(JOB, complete, 20, lambda job: advance(server, job)) == "done"
    assert not server.faults.script


def test_a_watch_resumes_from_where_it_broke_without_listing_anew(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())

    server.faults = Faults(script=["watch-cut"], only="WATCH")
    seen: list[int] = []

    def change(job: Thing) -> None:  # each state seen leads to the next, over watches that break at it
        seen.append(int(job["metadata"]["resourceVersion"]))
        n = len(job.get("status", {}).get("conditions", []))
        if n < 4:
            server.edit(
                "TrainJob", "job", lambda now: now.update(status={"conditions": [condition("C")] * (n + 1)})
            )

    cluster.wait(JOB, lambda job: len(job.get("status", {}).get("conditions", [])) == 4 or None, 20, change)
    lists = [path for method, path, code in server.requests if path.endswith("trainjobs") and method == "GET"]
    assert len(lists) <= 4  # a list and its watch, then watches
    assert seen == sorted(set(seen))  # and none of what was told before


def test_history_that_was_compacted_is_listed_anew(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())
    forgot: list[Thing] = []

    def forget(job: Thing) -> None:
        if not forgot:
            forgot.append(job)
            server.edit(
                "TrainJob", "job", lambda now: now.update(status={"conditions": [condition("Complete")]})
            )
            server.forget()

    assert cluster.wait(JOB, complete, 20, forget) == "done"
    assert ("GET", "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team-a/trainjobs", 410) in server.requests


@pytest.mark.parametrize("denied", [["watch"], ["watch", "list"]], ids="-".join)
def test_who_may_not_watch_looks_now_and_then(server: Server, cluster: Cluster, denied: list[str]) -> None:
    for verb in denied:
        server.deny(verb, "trainjobs")
    cluster.create_or_adopt(train_job())
    assert cluster.wait(JOB, complete, 20, lambda job: advance(server, job)) == "done"
    listed = [
        path
        for method, path, code in server.requests
        if method == "GET" and path.endswith("trainjobs") and code == 200
    ]
    assert bool(listed) == ("list" not in denied)
    server.drop("TrainJob", "job")
    with pytest.raises(StepError, match="removed while the step waited"):
        cluster.wait(JOB, complete, 20)


def test_a_watch_that_is_told_that_it_is_too_old_looks_anew(server: Server, cluster: Cluster) -> None:
    """410 as an event of a watch that stands."""
    cluster.create_or_adopt(train_job())

    def compact() -> None:
        path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team-a/trainjobs"
        while list(server.requests).count(("GET", path, 200)) < 2:  # the list and the watch
            time.sleep(0.01)
        server.forget()
        server.edit("TrainJob", "job", lambda now: now.update(status={"conditions": [condition("Complete")]}))

    other = threading.Thread(target=compact)
    other.start()
    assert cluster.wait(JOB, complete, 20) == "done"
    other.join()


def test_a_deadline_ends_the_wait_and_says_what_it_waited_for(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())
    waits = condition("Suspended", reason="Queued")
    server.edit("TrainJob", "job", lambda now: now.update(status={"conditions": [waits]}))
    with pytest.raises(
        StepError, match=r"TrainJob team-a/job did not get there within 1 s \(last: Suspended True Queued\)"
    ):
        cluster.wait(JOB, complete, 0.6)


def test_an_object_that_goes_away_ends_the_wait(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())
    with pytest.raises(StepError, match="removed while the step waited"):
        cluster.wait(JOB, complete, 20, lambda job: server.drop("TrainJob", "job"))
    with pytest.raises(StepError, match="removed while the step waited"):
        cluster.wait(JOB, complete, 20)


def test_what_the_judge_raises_gets_the_reason(server: Server, cluster: Cluster) -> None:
    def judge(job: Thing) -> None:
        raise StepError("the training failed", "Mend it.")

    made = cluster.create_or_adopt(train_job())
    bad = {"reason": "Evicted", "message": "The node was low on resource: memory."}
    server.put(pod("job-node-0", made, {"jobset.sigs.k8s.io/jobset-name": "job"}, phase="Failed", **bad))
    with pytest.raises(
        StepError, match=r"the training failed: pod job-node-0: Evicted: The node was low.*Mend it"
    ):
        cluster.wait(JOB, judge, 20)


def test_a_server_that_stays_away_ends_the_wait_in_time(server: Server, connect: Connect) -> None:
    """By a clock of the test: the pauses, not the test, take the time."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds + 0.01

    retry = Retry(sleep=sleep, clock=lambda: now[0], chance=lambda: 0.5)
    cluster = Cluster.connect(run="run-1", step="fine_tune", retry=retry)
    cluster.create_or_adopt(train_job())
    server.faults = Faults(rate=1, only="GET")
    with pytest.raises((StepError, MachineError)):
        cluster.wait(JOB, complete, 10_000)
    assert retry.outage_s * 0.9 < now[0] < 1200


def test_the_server_says_how_long_to_wait(server: Server) -> None:
    pauses: list[float] = []
    cluster = Cluster.connect(
        run="run-1", step="fine_tune", retry=replace(QUICK, sleep=pauses.append, limit_s=60)
    )
    assert cluster.get(JOB) is None
    server.retry_after, server.faults = "7", Faults(script=["429"])
    assert cluster.get(JOB) is None
    assert pauses == [7]


def test_pauses_grow_with_jitter_up_to_their_cap_and_honour_retry_after() -> None:
    full = replace(QUICK, base_s=1, cap_s=10, chance=lambda: 1.0)
    assert [full.pause(n) for n in range(6)] == [1, 2, 4, 8, 10, 10]
    assert replace(full, chance=lambda: 0.25).pause(2) == 1
    assert full.pause(0, at_least=30) == 30
    assert len({Retry().pause(5) for _ in range(20)}) > 15


PULL = {
    "reason": "ImagePullBackOff",
    "message": 'Back-off pulling image "registry.example/none:1": ErrImagePull: rpc error: code = NotFound',
}
LABEL = "jobset.sigs.k8s.io/jobset-name"


def waiting(**state: str) -> Thing:
    return {"phase": "Pending", "containerStatuses": [{"name": "node", "state": {"waiting": state}}]}


def looking() -> Cluster:
    return Cluster.connect(run="run-1", step="fine_tune", retry=replace(QUICK, look_s=0.05))


def test_a_pod_that_cannot_start_ends_the_wait_long_before_its_deadline(server: Server) -> None:
    cluster = looking()
    cluster.create_or_adopt(train_job())
    server.put(pod("job-node-0-0-x", labels={LABEL: "job"}, **waiting(**PULL)))
    began = time.monotonic()
    with pytest.raises(
        StepError, match=r"TrainJob team-a/job cannot start: .*ImagePullBackOff.*Check name and tag"
    ):
        cluster.wait(JOB, complete, 300)
    assert time.monotonic() - began < 60


def test_a_pod_that_pod_security_refuses_ends_it_too(server: Server) -> None:
    cluster = looking()
    job = cluster.create_or_adopt(train_job())
    server.event(
        job, "FailedCreate", 'pods "job-node" is forbidden: violates PodSecurity "restricted:latest"'
    )
    with pytest.raises(StepError, match=r"cannot start.*violates PodSecurity.*another level"):
        cluster.wait(JOB, complete, 300)


def test_what_may_pass_is_told_and_waited_for(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """No node has room, and a registry fails for a moment: neither is the end."""
    cluster = looking()
    cluster.create_or_adopt(train_job())
    full = condition("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes are available")
    server.put(pod("job-node-0-0-x", labels={LABEL: "job"}, phase="Pending", conditions=[full]))

    def end(job: Thing) -> None:
        job["status"] = {"conditions": [condition("Complete")]}

    def later() -> None:
        server.drop("Pod", "job-node-0-0-x")
        server.put(pod("job-node-0-0-x", labels={LABEL: "job"}, **waiting(**PULL)))
        server.drop("Pod", "job-node-0-0-x")
        server.edit("TrainJob", "job", end)

    timer = threading.Timer(2.5, later)
    timer.start()
    try:
        assert cluster.wait(JOB, complete, 300) == "done"
    finally:
        timer.join()
    told = capsys.readouterr().err
    assert told.count("waits: pod job-node-0-0-x: Unschedulable: 0/3 nodes are available") == 1, told
