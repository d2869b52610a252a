"""The server of the tests is held to what the official client's own classes expect of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes import client, config, watch

from tests.kube import Server
from tests.kube.things import config_map, pod, train_job


@pytest.fixture
def api(server: Server, tmp_path: Path) -> client.ApiClient:
    return config.new_client_from_config(str(server.kubeconfig(tmp_path)))


def test_the_typed_client_creates_lists_patches_and_deletes(server: Server, api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    labelled = {**config_map(color="red"), "metadata": {"name": "a", "labels": {"x": "1"}}}
    made = core.create_namespaced_config_map("team-a", labelled)
    core.create_namespaced_config_map("team-a", config_map("b"))
    changed = core.patch_namespaced_config_map("a", "team-a", {"data": {"color": "blue", "size": "2"}})
    assert changed.data == {"color": "blue", "size": "2"}
    assert int(changed.metadata.resource_version) > int(made.metadata.resource_version)
    assert changed.metadata.uid == made.metadata.uid
    names = [m.metadata.name for m in core.list_namespaced_config_map("team-a", label_selector="x=1").items]
    assert names == ["a"]
    with pytest.raises(client.ApiException) as stale:
        core.replace_namespaced_config_map("a", "team-a", made)
    assert stale.value.status == 409
    core.delete_namespaced_config_map("a", "team-a")
    assert server.left() == ["ConfigMap/b"]


def test_the_dynamic_client_discovers_custom_kinds(server: Server, api: client.ApiClient) -> None:
    from kubernetes import dynamic

    jobs = dynamic.DynamicClient(api).resources.get(
        api_version="trainer.kubeflow.org/v1alpha1", kind="TrainJob"
    )
    made = jobs.create(body={**train_job(), "status": {"forged": True}}, namespace="team-a")
    assert made.metadata.generation == 1
    assert "status" not in made.to_dict()
    again = jobs.patch(
        name="job",
        namespace="team-a",
        body={"spec": {"suspend": True}},
        content_type="application/merge-patch+json",
    )
    assert again.metadata.generation == 2


def test_the_clients_own_watch_sees_every_change_and_its_end(server: Server, api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    first = core.create_namespaced_config_map("team-a", config_map("a"))
    core.patch_namespaced_config_map("a", "team-a", {"data": {"k": "v"}})
    core.delete_namespaced_config_map("a", "team-a")
    stream = watch.Watch().stream(
        core.list_namespaced_config_map,
        "team-a",
        resource_version=first.metadata.resource_version,
        timeout_seconds=1,
    )
    assert [event["type"] for event in stream] == ["MODIFIED", "DELETED"]
    server.forget()
    with pytest.raises(client.ApiException) as old:
        list(
            watch.Watch().stream(
                core.list_namespaced_config_map, "team-a", resource_version="1", timeout_seconds=1
            )
        )
    assert old.value.status == 410


def test_what_an_object_owned_goes_with_it_and_finalizers_hold_it(
    server: Server, api: client.ApiClient
) -> None:
    core = client.CoreV1Api(api)
    owner = server.put({**pod("owner"), "metadata": {"name": "owner", "finalizers": ["example.com/hold"]}})
    child = server.put(pod("child", owner))
    server.put(pod("grandchild", child))
    core.delete_namespaced_pod("owner", "team-a")
    assert core.read_namespaced_pod("owner", "team-a").metadata.deletion_timestamp
    assert len(server.left()) == 3
    core.patch_namespaced_pod("owner", "team-a", {"metadata": {"finalizers": None}})
    assert server.left() == []


def test_in_foreground_what_is_owned_goes_first(server: Server, api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    owner = server.put(pod("owner"))
    child = pod("child", owner)
    child["metadata"]["finalizers"] = ["example.com/hold"]
    server.put(child)
    core.delete_namespaced_pod("owner", "team-a", propagation_policy="Foreground")
    assert server.left() == ["Pod/child", "Pod/owner"]
    server.edit("Pod", "child", lambda thing: thing["metadata"].pop("finalizers"))
    assert server.left() == []
