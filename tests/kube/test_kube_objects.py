"""Create, adopt, change and remove: twice is once, and what is another's is left alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from goldpath.core.errors import GoldpathError, InputError, Interrupted, StepError
from goldpath.core.kubernetes import Cluster, Ref, client
from tests.kube import QUICK, Faults, Server
from tests.kube.conftest import Connect
from tests.kube.things import Thing, config_map, model_cache, pod, reference, train_job


def in_pod(server: Server, monkeypatch: pytest.MonkeyPatch, name: str) -> Thing:
    made = server.put(pod(name))
    monkeypatch.setenv("KFP_POD_NAME", name)
    monkeypatch.setenv("KFP_POD_UID", made["metadata"]["uid"])
    return made


def test_what_is_created_carries_labels_digest_and_the_pod_as_owner(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = in_pod(server, monkeypatch, "step")
    thing = connect().create_or_adopt(train_job())
    metadata = thing["metadata"]
    assert metadata["labels"] == {
        "goldpath.io/run": "run-1",
        "goldpath.io/step": "fine_tune",
        "app.kubernetes.io/managed-by": "goldpath",
        "app.kubernetes.io/part-of": "goldpath",
    }
    assert len(metadata["annotations"]["goldpath.io/spec-digest"]) == 64
    assert metadata["ownerReferences"] == [reference(step)]
    server.drop("Pod", "step")
    assert server.left() == []


def test_outside_a_cluster_there_is_no_owner_and_a_note(cluster: Cluster) -> None:
    assert "ownerReferences" not in cluster.create_or_adopt(train_job())["metadata"]
    assert "no pod of the cluster" in cluster.owner.note


def test_in_a_pod_that_kfp_did_not_name_the_owner_is_found_by_the_host_name(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = server.put(pod("notebook-0"))
    monkeypatch.setenv("HOSTNAME", "notebook-0")
    inside = replace(client.connect(), in_cluster=True)
    owned = Cluster(inside, run="r", step="s", retry=QUICK).create_or_adopt(config_map())
    assert owned["metadata"]["ownerReferences"] == [reference(made)]
    server.deny("get", "pods")
    cluster = Cluster(inside, run="r", step="other", retry=QUICK)
    assert "ownerReferences" not in cluster.create_or_adopt(config_map("second"))["metadata"]
    assert "notebook-0' could not be read" in cluster.owner.note


def test_the_pod_of_one_namespace_owns_nothing_in_another(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-b"}})
    in_pod(server, monkeypatch, "step")
    job = train_job()
    job["metadata"]["namespace"] = "team-b"
    made = connect().create_or_adopt(job)
    assert made["metadata"]["namespace"] == "team-b"
    assert "ownerReferences" not in made["metadata"]


def test_what_belongs_to_the_cluster_has_neither_namespace_nor_owner(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pod(server, monkeypatch, "step")
    metadata = connect().create_or_adopt(model_cache())["metadata"]
    assert "namespace" not in metadata
    assert "ownerReferences" not in metadata


def test_a_retried_step_adopts_and_becomes_the_owner(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pod(server, monkeypatch, "first")
    made = connect().create_or_adopt(train_job())
    second = in_pod(server, monkeypatch, "second")
    adopted = connect().create_or_adopt(train_job())
    assert adopted["metadata"]["uid"] == made["metadata"]["uid"]
    assert adopted["metadata"]["ownerReferences"] == [reference(second)]
    server.drop("Pod", "first")
    assert server.left() == ["Pod/second", "TrainJob/job"]


def test_who_may_not_update_adopts_all_the_same(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deny("update", "trainjobs")
    in_pod(server, monkeypatch, "first")
    made = connect().create_or_adopt(train_job())
    in_pod(server, monkeypatch, "second")
    assert connect().create_or_adopt(train_job())["metadata"]["uid"] == made["metadata"]["uid"]


@pytest.mark.parametrize(
    "faults", [["drop-after"], ["drop-after", "429", "500", "drop-before"], ["conflict", "drop-after"]]
)
def test_a_creation_whose_answer_was_lost_leads_to_one_object(
    server: Server, cluster: Cluster, faults: list[str]
) -> None:
    server.faults = Faults(script=faults, only="POST")
    thing = cluster.create_or_adopt(train_job())
    assert not server.faults.script
    assert [job["metadata"]["uid"] for job in server.find("TrainJob")] == [thing["metadata"]["uid"]]
    posts = [
        code for method, path, code in server.requests if method == "POST" and path.endswith("trainjobs")
    ]
    assert posts[-1] == 409  # the last try found what the first had made


def test_the_name_of_anothers_object_is_refused(server: Server, cluster: Cluster, connect: Connect) -> None:
    server.put(train_job())
    with pytest.raises(
        InputError,
        match=r"did not make it.*delete trainjob\.trainer\.kubeflow\.org job -n team-a",
    ):
        cluster.create_or_adopt(train_job())
    connect(run="other").create_or_adopt(train_job("theirs"))
    with pytest.raises(InputError, match="made by step 'fine_tune' of run 'other'"):
        cluster.create_or_adopt(train_job("theirs"))
    cluster.create_or_adopt(train_job("mine"))
    with pytest.raises(InputError, match="another content"):
        cluster.create_or_adopt(train_job("mine", suspend=True))


def test_what_outlives_a_run_is_adopted_by_the_next_if_it_is_the_same(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pod(server, monkeypatch, "step")
    made = connect(run="one").create_or_adopt(config_map(a="1"), keep=True)
    assert "ownerReferences" not in made["metadata"]
    assert connect(run="two").create_or_adopt(config_map(a="1"), keep=True) == made
    with pytest.raises(InputError, match="another content"):
        connect(run="two").create_or_adopt(config_map(a="2"), keep=True)


def test_one_that_is_being_deleted_is_waited_for_then_made_anew(server: Server, cluster: Cluster) -> None:
    old = cluster.create_or_adopt(train_job())
    server.edit("TrainJob", "job", lambda thing: thing["metadata"].update(finalizers=["example.com/hold"]))
    server.drop("TrainJob", "job")

    def release() -> None:  # its controller lets go once the step waits for that
        while not any(method == "POST" and code == 409 for method, _, code in list(server.requests)):
            time.sleep(0.01)
        server.edit("TrainJob", "job", lambda thing: thing["metadata"].pop("finalizers"))

    controller = threading.Thread(target=release)
    controller.start()
    new = cluster.create_or_adopt(train_job())
    controller.join()
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert "deletionTimestamp" not in server.find("TrainJob")[0]["metadata"]


def test_two_who_change_the_same_object_both_succeed(server: Server, cluster: Cluster) -> None:
    cluster.create_or_adopt(config_map(n="0"))
    ref = Ref("v1", "ConfigMap", "settings")
    interfered = []

    def edit(thing: Thing) -> None:
        if not interfered:  # another writes between our read and our write
            interfered.append(
                server.edit("ConfigMap", "settings", lambda now: now["data"].update(theirs="1"))
            )
        thing["data"]["ours"] = "1"

    changed = cluster.change(ref, edit)
    assert changed["data"] == {"n": "0", "theirs": "1", "ours": "1"}
    assert [code for method, _, code in server.requests if method == "PUT"] == [409, 200]
    cluster.change(ref, edit)  # nothing to do, so nothing is sent
    assert sum(method == "PUT" for method, *_ in server.requests) == 2
    with pytest.raises(StepError, match="does not exist"):
        cluster.change(Ref("v1", "ConfigMap", "nothing"), edit)


def test_apply_creates_then_updates_and_leaves_others_alone(server: Server, connect: Connect) -> None:
    first = connect(run="one").apply(config_map(a="1"))
    assert connect(run="two").apply(config_map(a="1", b="2"))["data"] == {"a": "1", "b": "2"}
    assert len(server.find("ConfigMap")) == 1
    assert server.find("ConfigMap")[0]["metadata"]["uid"] == first["metadata"]["uid"]
    assert server.find("ConfigMap")[0]["metadata"]["labels"]["goldpath.io/run"] == "two"
    server.put(config_map("theirs"))
    with pytest.raises(InputError, match="did not make it"):
        connect().apply(config_map("theirs", a="1"))


def test_a_dry_run_keeps_nothing_and_changes_nothing(server: Server, cluster: Cluster) -> None:
    assert cluster.dry_run(train_job())["metadata"]["name"] == "job"
    assert server.left() == []
    cluster.create_or_adopt(train_job())
    cluster.dry_run(train_job(suspend=True))
    assert "suspend" not in server.find("TrainJob")[0]["spec"]


def test_removing_waits_until_it_and_what_it_owned_have_gone(server: Server, cluster: Cluster) -> None:
    thing = cluster.create_or_adopt(train_job())
    server.put(pod("node", thing))
    assert cluster.remove(Ref.of(thing))
    assert server.left() == []
    assert not cluster.remove(Ref.of(thing))


def test_removing_says_what_holds_an_object(server: Server, cluster: Cluster) -> None:
    thing = cluster.create_or_adopt(train_job())
    server.edit("TrainJob", "job", lambda now: now["metadata"].update(finalizers=["example.com/hold"]))
    with pytest.raises(StepError, match=r"still being deleted.*example\.com/hold holds it"):
        cluster.remove(Ref.of(thing), wait_s=0.2)


def test_only_what_goldpath_made_is_removed(server: Server, cluster: Cluster) -> None:
    server.put(train_job())
    with pytest.raises(InputError, match="not ours to remove"):
        cluster.remove(Ref.of(train_job()))
    assert server.left() == ["TrainJob/job"]


def test_another_object_that_took_the_name_meanwhile_is_left_alone(server: Server) -> None:
    """The answer to our deletion is lost, and somebody else makes one of that name before we try again."""

    def sleep(seconds: float) -> None:
        if not server.find("TrainJob"):
            server.put(train_job())

    cluster = Cluster.connect(run="run-1", step="fine_tune", retry=replace(QUICK, sleep=sleep))
    thing = cluster.create_or_adopt(train_job())
    server.faults = Faults(script=["drop-after"], only="DELETE")
    with pytest.raises(InputError, match="not ours to remove"):
        cluster.remove(Ref.of(thing))
    assert server.left() == ["TrainJob/job"]


def test_lists_are_read_page_by_page(server: Server, cluster: Cluster) -> None:
    for number in range(1203):
        server.put(
            {
                **config_map(f"c{number}"),
                "metadata": {"name": f"c{number}", "labels": {"odd": str(number % 2)}},
            }
        )
    assert len(cluster.find("v1", "ConfigMap")) == 1203
    assert len(cluster.find("v1", "ConfigMap", labels={"odd": "1"})) == 601


def test_a_block_that_fails_removes_what_it_made_and_nothing_else(server: Server, cluster: Cluster) -> None:
    def fails() -> None:
        with cluster.children():
            cluster.create_or_adopt(train_job("made"))
            cluster.create_or_adopt(config_map("kept"), keep=True)
            raise ZeroDivisionError

    cluster.create_or_adopt(train_job("before"))
    with pytest.raises(ZeroDivisionError):
        fails()
    assert server.left() == ["ConfigMap/kept", "TrainJob/before"]
    with cluster.children():
        cluster.create_or_adopt(train_job("stays"))
    assert "TrainJob/stays" in server.left()


def test_a_second_sigterm_does_not_end_the_cleaning(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

    def sleep(seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    cluster = Cluster.connect(run="run-1", step="fine_tune", retry=replace(QUICK, sleep=sleep))

    def fails() -> None:
        with cluster.children():
            cluster.create_or_adopt(train_job())
            server.faults = Faults(script=["500"], only="DELETE")
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(Interrupted):
            fails()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert server.faults.done == {"500": 1}
    assert heard == []
    assert server.left() == []


def test_what_is_to_stay_is_kept(server: Server, cluster: Cluster) -> None:
    def fails() -> None:
        with cluster.children() as made:
            cluster.create_or_adopt(train_job("stays"))
            cluster.create_or_adopt(train_job("goes"))
            made.keep(Ref.of(train_job("stays")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert server.left() == ["TrainJob/stays"]


def test_what_could_not_be_removed_is_named(server: Server, cluster: Cluster) -> None:
    def fails() -> None:
        with cluster.children():
            cluster.create_or_adopt(train_job())
            raise StepError("it went wrong")

    server.deny("delete", "trainjobs")
    with pytest.raises(
        StepError, match=r"wrong; not removed: cannot remove TrainJob team-a/job: .*may not delete"
    ):
        fails()


def test_a_creation_that_was_interrupted_before_its_answer_is_removed(server: Server) -> None:
    """Ctrl-C in the pause after the answer was lost: we do not know that it exists, and yet it goes."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            raise KeyboardInterrupt

    cluster = Cluster.connect(run="run-1", step="fine_tune", retry=replace(QUICK, sleep=sleep))
    server.faults = Faults(script=["drop-after"], only="POST")

    def fails() -> None:
        with cluster.children():
            cluster.create_or_adopt(train_job())

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert server.created == ["TrainJob/job"]
    assert server.left() == []


def test_whether_something_is_permitted(server: Server, cluster: Cluster) -> None:
    server.deny("create", "trainjobs")
    server.deny("get", "pods/log")
    kind = ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert not cluster.allowed("create", *kind)
    assert cluster.allowed("get", *kind)
    assert not cluster.allowed("get", "v1", "Pod", part="log")
    assert cluster.has(*kind)
    assert cluster.versions("trainer.kubeflow.org") == ["v1alpha1"]
    assert cluster.versions("nowhere.io") == []


def test_every_refusal_is_an_error_with_a_remedy(server: Server, cluster: Cluster) -> None:
    server.deny("get", "trainjobs")
    with pytest.raises(GoldpathError) as refused:
        cluster.get(Ref.of(train_job()))
    assert refused.value.remedy
