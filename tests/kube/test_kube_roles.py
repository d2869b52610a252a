"""What `deploy/base` grants is enough for what steps do: a verb that is missing there fails here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from goldpath.core.checks import needs
from goldpath.core.errors import GoldpathError
from goldpath.core.kubernetes import Ref
from tests.kube import Server
from tests.kube.conftest import Connect
from tests.kube.roles import Rule, of_the_pipelines
from tests.kube.test_kube_objects import in_pod
from tests.kube.things import Thing, config_map, reference, train_job

CHILDREN = [use for use in needs.NAMESPACED if {"create", "delete", "update"} <= set(use.verbs)]


def without(verb: str) -> list[Rule]:
    return [replace(rule, verbs=rule.verbs - {verb}) for rule in of_the_pipelines()]


def thing(use: needs.Use) -> Thing:
    return {"apiVersion": use.api, "kind": use.kind, "metadata": {"name": "job"}, "spec": {"a": "b"}}


@pytest.mark.parametrize("use", CHILDREN, ids=lambda use: use.plural)
def test_what_a_retry_adopts_stays_when_the_first_pod_goes(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, use: needs.Use
) -> None:
    server.enforce(of_the_pipelines())
    in_pod(server, monkeypatch, "first")
    made = connect().create_or_adopt(thing(use))
    second = in_pod(server, monkeypatch, "second")
    adopted = connect().create_or_adopt(thing(use))
    assert adopted["metadata"]["uid"] == made["metadata"]["uid"]
    assert adopted["metadata"]["ownerReferences"] == [reference(second)]
    server.drop("Pod", "first")
    assert server.left() == sorted([f"{use.kind}/job", "Pod/second"])
    assert connect().remove(Ref.of(made))


def test_without_the_verb_update_it_goes_with_the_first_pod(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.enforce(without("update"))
    in_pod(server, monkeypatch, "first")
    connect().create_or_adopt(train_job())
    in_pod(server, monkeypatch, "second")
    connect().create_or_adopt(train_job())
    server.drop("Pod", "first")
    assert server.left() == ["Pod/second"]


def test_a_verb_that_is_missing_is_refused_and_named(server: Server, connect: Connect) -> None:
    server.enforce(without("create"))
    with pytest.raises(GoldpathError, match="may not create trainjobs"):
        connect().create_or_adopt(train_job())
    server.enforce(without("delete"))
    made = connect().create_or_adopt(train_job())
    with pytest.raises(GoldpathError, match="may not delete trainjobs"):
        connect().remove(Ref.of(made))
    assert server.find("TrainJob") == [made]


def test_the_role_ends_at_the_namespace_and_asking_says_so(server: Server, connect: Connect) -> None:
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-b"}})
    server.enforce(of_the_pipelines())
    cluster = connect()
    job, secret = ("trainer.kubeflow.org/v1alpha1", "TrainJob"), ("v1", "Secret")
    assert cluster.allowed("create", *job)
    assert not cluster.allowed("create", *job, namespace="team-b")
    assert not cluster.allowed("get", *secret)
    assert cluster.get(Ref("v1", "Namespace", "team-a")) is not None
    for refused in (
        Ref("v1", "Namespace", "team-b"),
        Ref("v1", "ConfigMap", "x", "team-b"),
        Ref(*secret, "x"),
    ):
        with pytest.raises(GoldpathError, match="may not get"):
            cluster.get(refused)
    cluster.create_or_adopt(config_map())
