"""What ends a wait early: what lasts until somebody mends it, and nothing that may pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from goldpath.core.errors import StepError
from goldpath.core.kubernetes import Cluster, Ref
from goldpath.core.kubernetes.diagnosis import Diagnosis
from goldpath.core.kubernetes.stuck import Stuck
from tests.kube import QUICK, Server
from tests.kube.things import Thing, condition, pod, reference, train_job

ACCOUNT = "error looking up service account team-a/none: serviceaccount not found"
SECURITY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot'
QUOTA = "exceeded quota: gpus, requested: 8, used: 1, limited: 4"
REFUSALS = [ACCOUNT, SECURITY, QUOTA]
SERVICES = [
    ("serving.kserve.io/v1beta1", "InferenceService", "serving.kserve.io/inferenceservice", "chat-predictor"),
    ("serving.kserve.io/v1alpha2", "LLMInferenceService", "app.kubernetes.io/name", "chat-kserve"),
]
SERVICE_IDS = [row[1] for row in SERVICES]
PULLS = {"reason": "ImagePullBackOff", "message": "x:1: not found"}
JOB = Ref.of(train_job())


def made(cluster: Cluster, api_version: str, kind: str, name: str) -> Thing:
    return cluster.create_or_adopt(
        {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": {}}
    )


def looks() -> Diagnosis:
    cluster = Cluster.connect(run="run-1", step="deploy", retry=QUICK)
    return Diagnosis(cluster._api, cluster._objects)


def stuck(thing: Thing) -> dict[str, bool | None]:
    return looks().stuck(Ref.of(thing))


def replicas(name: str) -> Thing:
    return {"kind": "ReplicaSet", "metadata": {"name": name, "uid": name}}


def born(server: Server, kind: str, name: str, when: str) -> None:
    """Have it made at another time than now, which no client can."""
    with server.store.changed:
        for thing in server.store.things.values():
            if (thing["kind"], thing["metadata"]["name"]) == (kind, name):
                thing["metadata"]["creationTimestamp"] = when


def waiting(reason: str, message: str = "") -> Thing:
    return {
        "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": reason, "message": message}}}]
    }


def child(server: Server, api_version: str, kind: str, owner: Thing) -> Thing:
    name = owner["metadata"]["name"]
    metadata = {"name": name, "namespace": "team-a", "ownerReferences": [reference(owner)]}
    return server.put({"apiVersion": api_version, "kind": kind, "metadata": metadata})


@pytest.mark.parametrize("message", REFUSALS, ids=["account", "security", "quota"])
@pytest.mark.parametrize(("api_version", "kind", "label", "prefix"), SERVICES, ids=SERVICE_IDS)
def test_a_pod_of_a_service_that_is_refused(
    server: Server, cluster: Cluster, api_version: str, kind: str, label: str, prefix: str, message: str
) -> None:
    service = made(cluster, api_version, kind, "chat")
    unready = condition("Ready", "False", message="Deployment does not have minimum availability.")
    server.edit(kind, "chat", lambda now: now.update(status={"conditions": [unready]}))
    server.event(replicas(f"{prefix}-5f"), "FailedCreate", message)
    assert f"FailedCreate: {message}" in cluster.why(Ref.of(service))
    assert list(stuck(service)) == ([] if message is QUOTA else [f"FailedCreate: {message}"])
    server.put(pod(f"{prefix}-5f-x", labels={label: "chat"}))  # in the end it was made
    assert stuck(service) == {}


def test_the_scheduler_of_a_service_does_not_hide_that_its_pods_are_refused(
    server: Server, cluster: Cluster
) -> None:
    service = made(cluster, *SERVICES[1][:2], "chat")
    ready = {"conditions": [condition("Ready")]}
    server.put(pod("chat-kserve-router-scheduler-7c-x", labels={SERVICES[1][2]: "chat"}, **ready))
    server.event(replicas("chat-kserve-5f"), "FailedCreate", ACCOUNT)
    assert list(stuck(service)) == [f"FailedCreate: {ACCOUNT}"]


def test_what_another_or_an_earlier_service_was_refused_is_not_ours(server: Server, cluster: Cluster) -> None:
    server.event(replicas("chat-predictor-5f"), "FailedCreate", ACCOUNT)
    service = made(cluster, *SERVICES[0][:2], "chat")
    made(cluster, *SERVICES[0][:2], "chat-large")
    born(server, "InferenceService", "chat", "2999-01-01T00:00:00Z")
    assert cluster.why(Ref.of(service)) == ""
    born(server, "InferenceService", "chat", "2020-01-01T00:00:00Z")
    assert ACCOUNT in cluster.why(Ref.of(service))
    for event in server.find("Event"):
        server.drop("Event", event["metadata"]["name"])
    server.event(replicas("chat-large-predictor-5f"), "FailedCreate", ACCOUNT)
    assert stuck(service) == {}
    assert cluster.why(Ref.of(service)) == ""


@pytest.mark.parametrize("message", REFUSALS, ids=["account", "security", "quota"])
def test_the_algorithm_of_a_search_that_is_refused(server: Server, cluster: Cluster, message: str) -> None:
    search = made(cluster, "kubeflow.org/v1beta1", "Experiment", "search")
    server.event(replicas("search-tpe-5f"), "FailedCreate", message)
    assert cluster.why(Ref.of(search)) == f"FailedCreate: {message}"
    assert list(stuck(search)) == ([] if message is QUOTA else [f"FailedCreate: {message}"])


@pytest.mark.parametrize("message", REFUSALS, ids=["account", "security", "quota"])
@pytest.mark.parametrize("kind", ["TrainJob", "PyTorchJob"])
@pytest.mark.parametrize("at_work", ["runningTrialList", "pendingTrialList"])
def test_a_trial_that_is_refused_while_the_algorithm_runs(
    server: Server, cluster: Cluster, kind: str, at_work: str, message: str
) -> None:
    search = made(cluster, "kubeflow.org/v1beta1", "Experiment", "search")
    server.put(pod("search-tpe-5f-x", labels={"katib.kubeflow.org/experiment": "search"}, phase="Running"))
    server.edit("Experiment", "search", lambda now: now.update(status={at_work: ["search-a", "search-b"]}))
    assert (stuck(search), cluster.why(Ref.of(search))) == ({}, "")
    for name in ("search-a", "search-b"):
        if kind == "TrainJob":
            job = server.put(train_job(name))
            told = child(server, "batch/v1", "Job", child(server, "jobset.x-k8s.io/v1alpha2", "JobSet", job))
            label = "jobset.sigs.k8s.io/jobset-name"
        else:
            told = server.put({"apiVersion": "kubeflow.org/v1", "kind": kind, "metadata": {"name": name}})
            label = "training.kubeflow.org/job-name"
        server.event(told, "FailedCreate" if kind == "TrainJob" else "FailedCreatePod", message)
        if name == "search-b":  # refused at first, then made
            server.put(pod("search-b-x", labels={label: name}))
    assert message in cluster.why(Ref.of(search))
    assert "search-b" not in cluster.why(Ref.of(search))
    found = stuck(search)
    assert len(found) == (message is not QUOTA)
    assert all("trial search-a: FailedCreate" in told and message in told for told in found)


def test_a_trial_whose_image_is_not_there_is_told(server: Server, cluster: Cluster) -> None:
    search = made(cluster, "kubeflow.org/v1beta1", "Experiment", "search")
    server.edit("Experiment", "search", lambda now: now.update(status={"runningTrialList": ["search-a"]}))
    label = {"jobset.sigs.k8s.io/jobset-name": "search-a"}
    server.put(pod("search-a-x", labels=label, **waiting("ErrImagePull", "not found")))
    assert stuck(search) == {"search-a-x/main": True}
    assert cluster.why(Ref.of(search)) == "pod search-a-x: main waits: ErrImagePull: not found"


@pytest.mark.parametrize(
    ("reason", "message", "lasts"),
    [
        ("ErrImagePull", 'rpc error: code = NotFound desc = failed to resolve "x:1": x:1: not found', True),
        ("ErrImagePull", "manifest unknown: manifest tagged by 1 is not here", True),
        ("ErrImagePull", "failed to authorize: 401 Unauthorized", True),
        ("ImagePullBackOff", 'Back-off pulling image "x:1": pull access denied', True),
        ("ErrImagePull", "invalid reference format", True),
        ("InvalidImageName", "", True),
        ("ErrImageNeverPull", "", True),
        ("CreateContainerConfigError", 'secret "x" not found', True),
        ("ImagePullBackOff", 'Back-off pulling image "registry.example/denied:1"', None),
        ("ErrImagePull", "", None),
        ("ErrImagePull", "dial tcp 10.0.0.1:443: i/o timeout", False),
        ("ErrImagePull", "unexpected status: 429 Too Many Requests", False),
        ("ErrImagePull", "unexpected status: 503 Service Unavailable", False),
        ("ErrImagePull", "lookup registry.example: no such host", False),
        ("ErrImagePull", "something else", False),
    ],
)
def test_what_of_it_lasts(
    server: Server, cluster: Cluster, reason: str, message: str, lasts: bool | None
) -> None:
    job = cluster.create_or_adopt(train_job())
    server.put(pod("p", job, **waiting(reason, message)))
    assert stuck(job) == {"p/main": lasts}


class Played(Diagnosis):
    """Says what the test has it say."""

    def __init__(self) -> None:
        self.found: dict[str, bool | None] = {}

    def stuck(self, ref: Ref) -> dict[str, bool | None]:
        return dict(self.found)

    def why(self, ref: Ref) -> str:
        return ""


def looks_until_it_ends(says: list[bool | str | None], every_s: float = 20) -> int:
    """How many looks it takes, each of which sees the next (the last goes on; a text: nothing is held)."""
    now, played = [0.0], Played()
    look = Stuck(JOB, played, clock=lambda: now[0])
    for n in range(100):
        said = says[min(n, len(says) - 1)]
        played.found = {} if isinstance(said, str) else {"p/main": said}
        now[0] += every_s
        try:
            look()
        except StepError:
            return n + 1
    return 0


@pytest.mark.parametrize(
    ("says", "took"),
    [
        ([True], 2),
        ([True, None], 2),  # a back-off that does not repeat what the registry said
        ([None, True], 3),
        ([True, False], 16),  # then it was away
        ([True, "", True], 4),
        ([False], 16),
        ([None], 16),
        ([False, None, False, ""], 0),  # away for 40 seconds
        ([*[None] * 15, "", None], 32),
        ([""], 0),
    ],
)
def test_how_long_it_has_to_stand(says: list[bool | str | None], took: int) -> None:
    assert looks_until_it_ends(says) == took


def test_time_in_which_nobody_looked_does_not_count() -> None:
    assert looks_until_it_ends([None], every_s=600) == 6


def test_a_registry_that_is_away_ends_no_job(server: Server) -> None:
    cluster = Cluster.connect(run="run-1", step="fine_tune", retry=replace(QUICK, look_s=0.05))
    job = cluster.create_or_adopt(train_job())
    server.put(pod("p", job, **waiting("ErrImagePull", "i/o timeout")))
    with pytest.raises(StepError, match=r"did not get there within 2 s: .*i/o timeout"):
        cluster.wait(JOB, lambda job: None, 2)


def test_a_pod_in_deletion_holds_nothing(server: Server, cluster: Cluster) -> None:
    job = cluster.create_or_adopt(train_job())
    old = pod("old", job, **waiting(**PULLS))
    old["metadata"]["finalizers"] = ["example.org/log"]
    server.put(old)
    assert stuck(job) == {"old/main": True}
    server.drop("Pod", "old")
    assert server.find("Pod")
    assert stuck(job) == {}


NEWER = {
    "ready": ({}, {"conditions": [condition("Ready")]}, []),
    "newer": ({}, {}, []),
    "newer-of-the-same-revision": ({"pod-template-hash": "1"}, {}, ["old/main"]),
    "newer-of-another-revision": ({"pod-template-hash": "2"}, {}, []),
    "newer-that-waits-too": ({"pod-template-hash": "2"}, waiting(**PULLS), ["new/main", "old/main"]),
}


@pytest.mark.parametrize(("labels", "status", "holds"), NEWER.values(), ids=NEWER)
@pytest.mark.parametrize(("api_version", "kind", "label", "prefix"), SERVICES, ids=SERVICE_IDS)
def test_an_old_revision_of_a_service_holds_nothing(
    server: Server,
    cluster: Cluster,
    api_version: str,
    kind: str,
    label: str,
    prefix: str,
    labels: dict[str, str],
    status: Thing,
    holds: list[str],
) -> None:
    service = made(cluster, api_version, kind, "chat")
    revision = {"pod-template-hash": "1"} if labels else {}
    server.put(pod("old", labels={label: "chat", **revision}, **waiting(**PULLS)))
    assert list(stuck(service)) == ["old/main"]
    server.put(pod("new", labels={label: "chat", **labels}, **status))
    assert sorted(stuck(service)) == holds


def test_a_newer_pod_that_waits_in_vain_does_though_an_older_one_starts(
    server: Server, cluster: Cluster
) -> None:
    service = made(cluster, *SERVICES[0][:2], "chat")
    for name, hash_, status in (("old", "1", {}), ("new", "2", waiting(**PULLS))):
        server.put(pod(name, labels={SERVICES[0][2]: "chat", "pod-template-hash": hash_}, **status))
    born(server, "Pod", "old", "2026-01-01T00:00:00Z")
    assert list(stuck(service)) == ["new/main"]


def test_the_leader_of_several_nodes_holds_though_a_worker_is_ready(server: Server, cluster: Cluster) -> None:
    service = made(cluster, *SERVICES[1][:2], "chat")
    index = "leaderworkerset.sigs.k8s.io/worker-index"
    ready = {"conditions": [condition("Ready")]}
    for name, number, status in (("mn-0", "0", waiting(**PULLS)), ("mn-0-1", "1", ready)):
        server.put(pod(name, labels={SERVICES[1][2]: "chat", index: number}, **status))
    assert list(stuck(service)) == ["mn-0/main"]
