"""What live objects say of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from goldpath.serving.manifests import read

Manifest = dict[str, Any]
URL = "https://chat.team.example"


def condition(kind: str, status: str, reason: str = "", message: str = "", severity: str = "") -> Manifest:
    parts = {"type": kind, "status": status, "reason": reason, "message": message, "severity": severity}
    return {key: value for key, value in parts.items() if value}


def service(*conditions: Manifest, generation: int = 2, seen: int = 2, **status: Any) -> Manifest:
    return {
        "kind": "InferenceService",
        "metadata": {"name": "chat", "namespace": "team", "generation": generation},
        "spec": {"predictor": {"model": {"runtime": "goldpath-vllm"}}},
        "status": {"observedGeneration": seen, "url": URL, "conditions": list(conditions), **status},
    }


READY = condition("Ready", "True")
NOT_READY = condition("Ready", "False", "MinimumReplicasUnavailable")


def test_a_service_is_ready_when_it_says_so_and_has_an_address() -> None:
    found = read.service(service(condition("Stopped", "False"), condition("PredictorReady", "True"), READY))
    assert found == read.ServiceStatus(state="ready", url=f"{URL}/v1")


def test_the_generation_of_a_deployment_does_not_hold_a_service_up() -> None:
    assert read.service(service(READY, generation=3, seen=1)).state == "ready"


def test_the_api_of_kserves_own_server_lies_elsewhere() -> None:
    live = service(READY)
    live["spec"]["predictor"]["model"]["runtime"] = "kserve-huggingfaceserver"
    assert read.service(live).url == f"{URL}/openai/v1"
    del live["spec"]["predictor"]
    assert read.service(live).url == f"{URL}/v1", "an LLMInferenceService"


@pytest.mark.parametrize(
    ("live", "reason"),
    [
        ({**service(READY, seen=1), "kind": "LLMInferenceService"}, "KServe has not looked at it yet"),
        (
            {"kind": "InferenceService", "metadata": {"name": "chat", "generation": 1}, "spec": {}},
            "has not looked at it",
        ),
        (service(), "has not looked at it"),
        (service(READY, url=""), "has no address yet"),
        (
            service(condition("PredictorReady", "False", "MinimumReplicasUnavailable", "0 of 1"), NOT_READY),
            "PredictorReady: MinimumReplicasUnavailable: 0 of 1",
        ),
        (service(condition("IngressReady", "Unknown"), condition("Ready", "Unknown")), "IngressReady"),
        (
            service(
                condition("GroupDegraded", "False", "Fine", "fine"),
                condition("WorkloadsReady", "False"),
                NOT_READY,
            ),
            "WorkloadsReady",
        ),
        (
            service(condition("PredictorReady", "False", "ReconcileFailed", "try\n again"), NOT_READY),
            "try again",
        ),
    ],
)
def test_what_may_yet_become_ready_is_waited_for(live: Manifest, reason: str) -> None:
    found = read.service(live)
    assert found.state == "waiting"
    assert reason in found.reason


@pytest.mark.parametrize(
    ("live", "reason"),
    [
        (
            service(
                NOT_READY,
                modelStatus={
                    "transitionStatus": "BlockedByFailedLoad",
                    "lastFailureInfo": {
                        "reason": "ModelLoadFailed",
                        "exitCode": 1,
                        "message": "a\nb\nc\nno kernel",
                    },
                },
            ),
            "ModelLoadFailed: exit code 1: b / c / no kernel",
        ),
        (service(NOT_READY, modelStatus={"transitionStatus": "InvalidSpec"}), "InvalidSpec"),
        (
            service(
                condition("PredictorReady", "False", "ProgressDeadlineExceeded", "10 minutes"), NOT_READY
            ),
            "PredictorReady: ProgressDeadlineExceeded: 10 minutes",
        ),
        (
            service(condition("PresetsCombined", "False", "ConfigNotFound", "no preset"), NOT_READY),
            "no preset",
        ),
        (service(condition("Stopped", "True"), NOT_READY), "Stopped"),
    ],
)
def test_what_waiting_does_not_cure_has_failed(live: Manifest, reason: str) -> None:
    found = read.service(live)
    assert found.state == "failed"
    assert reason in found.reason


def test_a_condition_for_information_is_no_failure() -> None:
    info = condition("GroupDegraded", "False", "InvalidSpec", severity="Info")
    assert read.service(service(info, READY)).state == "ready"


def test_a_new_model_that_cannot_be_loaded_has_failed_though_the_old_one_serves() -> None:
    live = service(READY, modelStatus={"transitionStatus": "BlockedByFailedLoad"})
    assert read.service(live).state == "failed"


def test_a_canary_is_told_apart_from_the_service() -> None:
    def live(**status: Any) -> Manifest:
        return service(READY, canaryStatuses=[{"name": "v2", "trafficPercent": 10, **status}])

    assert read.canary(live(ready=True), "v2") == read.ServiceStatus(state="ready", url=f"{URL}/v1")
    assert read.canary(live(ready=False), "v2").reason == "the pods of the canary v2 are not ready"
    assert read.canary(live(ready=True), "v3").state == "waiting"
    failed = read.canary(live(ready=False, modelStatus={"transitionStatus": "BlockedByFailedLoad"}), "v2")
    assert (failed.state, failed.reason) == ("failed", "canary v2: BlockedByFailedLoad")


def cache(nodes: dict[str, str], kind: str = "LocalModelCache", **copies: int) -> Manifest:
    status = {"nodeStatus": nodes, "copies": copies} if nodes or copies else {}
    metadata = {"name": "chat", **({"namespace": "team"} if kind != "LocalModelCache" else {})}
    return {"kind": kind, "metadata": metadata, "spec": {"nodeGroups": ["gpu"]}, "status": status}


def test_a_cache_is_ready_when_every_node_has_its_copy() -> None:
    found = read.cache(cache({"a": "NodeDownloaded", "b": "NodeDownloaded"}, total=2, available=2, failed=0))
    assert found == read.CacheStatus(state="ready", total=2, available=2)


@pytest.mark.parametrize(
    ("live", "reason"),
    [
        (cache({}), "no node of the node groups gpu"),
        (cache({}, total=0, available=0, failed=0), "no node of the node groups gpu"),
        (cache({"a": "NodeDownloaded", "b": "NodeDownloading"}, total=2, available=1), "b: downloading"),
        (cache({"a": "NodeDownloadPending"}, total=1, available=0), "a: the download has not started"),
        (cache({"a": "NodeNotReady"}, total=1, available=0), "a: the node is not ready"),
        (cache({"a": ""}, total=1, available=0), "a: not looked at yet"),
        (cache({"a": "NodeDownloaded"}), "0 of 0 copies"),
        (cache({"a": "NodeDownloaded", "b": "NodeDownloaded"}, total=1, available=1), "1 of 1 copies"),
    ],
)
def test_a_cache_that_is_not_there_yet_says_which_node_is_behind(live: Manifest, reason: str) -> None:
    found = read.cache(live)
    assert found.state == "waiting"
    assert reason in found.reason


@pytest.mark.parametrize(
    ("kind", "where"), [("LocalModelCache", "kserve-localmodel-jobs"), ("LocalModelNamespaceCache", "team")]
)
def test_a_failed_download_names_node_and_where_its_log_is(kind: str, where: str) -> None:
    nodes = {"b": "NodeDownloadError", "a": "NodeDownloading", "c": "NodeDownloaded"}
    found = read.cache(cache(nodes, kind, total=3, available=1, failed=1))
    assert found.state == "failed"
    assert found.failed_nodes == ("b",)
    assert "b: the download failed" in found.reason
    assert f"namespace {where}" in found.reason
