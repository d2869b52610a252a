"""Waiting: the verdict comes through closed, broken, refused and outdated watches, and never later than the deadline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from goldpath.core.errors import MachineError, StepError
from goldpath.core.kubernetes import Cluster, Ref, Retry
from tests.kube import QUICK, Faults, Server
from tests.kube.conftest import Connect
from tests.kube.things import Thing, complete, condition, pod, train_job, trains

JOB = Ref.of(train_job())


def test_a_wait_ends_with_the_verdict_and_shows_each_state_once(server: Server, cluster: Cluster) -> None:
    trains(server)
    cluster.create_or_adopt(train_job())
    seen: list[Thing] = []
    assert cluster.wait(JOB, complete, 20, seen.append) == "done"
    assert seen[-1]["status"]["trainerStatus"] == {"progressPercentage": 100}
    versions = [int(thing["metadata"]["resourceVersion"]) for thing in seen]
    assert versions == sorted(set(versions))
    assert cluster.wait(JOB, complete, 20) == "done"  # at once where it is so already


@pytest.mark.parametrize(
    "faults",
    [
        ["watch-closed"] * 3,
        ["drop-before"] * 2,
        ["429", "500"],
        ["gone"],
        ["drop-before"] * 12,
        ["gone", "watch-closed"],
    ],
    ids="-".join,
)
def test_a_wait_goes_on_after_watches_break(server: Server, cluster: Cluster, faults: list[str]) -> None:
    """The first state makes the controller's next: what happens while no watch stands must not be lost."""
    trains(server)
    cluster.create_or_adopt(train_job())
    server.faults = Faults(script=faults, only="GET")
    assert cluster.wait(JOB, complete, 20) == "done"


def test_a_watch_resumes_from_where_it_broke_without_listing_anew(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(train_job())

    def change(job: Thing) -> None:  # each state seen leads to the next, over watches that break at it
        n = len(job.get("status", {}).get("conditions", []))
        if n < 3:
            server.faults = Faults(script=["watch-closed"] if n == 1 else [], only="GET")
            server.edit(
                "TrainJob", "job", lambda now: now.update(status={"conditions": [condition("C")] * (n + 1)})
            )

    cluster.wait(JOB, lambda job: len(job.get("status", {}).get("conditions", [])) == 3 or None, 20, change)
    lists = [path for method, path, code in server.requests if path.endswith("trainjobs") and method == "GET"]
    assert len(lists) <= 4  # a list and its watch, then watches


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
    trains(server)
    cluster.create_or_adopt(train_job())
    assert cluster.wait(JOB, complete, 20) == "done"


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


def test_pauses_grow_with_jitter_up_to_their_cap_and_honour_retry_after() -> None:
    full = replace(QUICK, base_s=1, cap_s=10, chance=lambda: 1.0)
    assert [full.pause(n) for n in range(6)] == [1, 2, 4, 8, 10, 10]
    assert replace(full, chance=lambda: 0.25).pause(2) == 1
    assert full.pause(0, at_least=30) == 30
    assert len({Retry().pause(5) for _ in range(20)}) > 15
