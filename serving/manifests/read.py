"""What live objects say of themselves: a service, its canary, a model cache. Pure functions.

A status that was written for an older generation of an LLMInferenceService says nothing about this one. What an
InferenceService calls `observedGeneration` is that of a Deployment of it (KServe 0.18 to 0.20), and tells nothing: who
has changed one looks at its pods.
"""

from __future__ import annotations

from typing import Literal

from goldpath.core.spec import Result
from goldpath.serving.cluster import KSERVE_RUNTIME
from goldpath.serving.manifests.parts import Manifest

State = Literal["ready", "waiting", "failed"]
DOWNLOADS = "kserve-localmodel-jobs"
"""The namespace where KServe downloads what a LocalModelCache names; one of a namespace is downloaded in its own."""
_FINAL = {
    "ProgressDeadlineExceeded",
    "InvalidSpec",
    "InvalidPredictorSpec",
    "NoSupportingRuntime",
    "RuntimeNotRecognized",
    "RuntimeDisabled",
    "ConfigNotFound",
    "InvalidRenderedConfig",
    "CombineBaseError",
    "RefsInvalid",
    "ScalingCRDNotFound",
    "Stopped",
}
"""Reasons that do not go away by waiting."""
_GOOD_IF_FALSE = ("Stopped", "GroupDegraded")
_NODE = {
    "": "not looked at yet",
    "NodeNotReady": "the node is not ready",
    "NodeDownloadPending": "the download has not started",
    "NodeDownloading": "downloading",
    "NodeDownloadError": "the download failed",
}


class ServiceStatus(Result):
    """How a service is."""

    state: State
    url: str = ""
    """Base URL of the OpenAI API, where it is known."""
    reason: str = ""
    """Why it is not ready, in words; empty where it is."""


class CacheStatus(Result):
    """How a model cache is."""

    state: State
    total: int
    """Nodes that shall have a copy."""
    available: int
    failed_nodes: tuple[str, ...] = ()
    reason: str = ""
    """Which nodes are not ready and why; empty where all are."""


def service(live: Manifest) -> ServiceStatus:
    """An InferenceService or LLMInferenceService.

    It is ready when it says so; failed for reasons that waiting does not cure; else waiting.
    """
    status = live.get("status") or {}
    url = _openai(live, str(status.get("url") or ""))
    generation = live["metadata"].get("generation", 0)
    outdated = (
        live.get("kind") != "InferenceService" and status.get("observedGeneration", generation) < generation
    )
    if outdated or not status.get("conditions"):
        return ServiceStatus(state="waiting", url=url, reason="KServe has not looked at it yet")
    conditions = [one for one in status["conditions"] if one.get("severity") != "Info"]
    if failure := _model_failure(status.get("modelStatus") or {}):
        return ServiceStatus(state="failed", url=url, reason=failure)
    unmet = [one for one in conditions if one["status"] == "False" and one["type"] not in _GOOD_IF_FALSE]
    stopped = [one for one in conditions if one["type"] == "Stopped" and one["status"] == "True"]
    if final := [*stopped, *(one for one in unmet if one.get("reason") in _FINAL)]:
        return ServiceStatus(state="failed", url=url, reason=_said(_closest(final)))
    ready = next((one for one in conditions if one["type"] == "Ready"), None)
    if ready is not None and ready["status"] == "True":
        if url:
            return ServiceStatus(state="ready", url=url)
        return ServiceStatus(state="waiting", reason="it is ready and has no address yet")
    pending = unmet or [one for one in conditions if one["status"] == "Unknown"]
    reason = _said(_closest(pending)) if pending else "it does not say what it waits for"
    return ServiceStatus(state="waiting", url=url, reason=reason)


def canary(live: Manifest, revision: str) -> ServiceStatus:
    """The canary of an InferenceService; one of an LLMInferenceService is a service of its own."""
    found = (live.get("status") or {}).get("canaryStatuses") or ()
    url = service(live).url
    status = next((one for one in found if one.get("name") == revision), None)
    if status is None:
        return ServiceStatus(
            state="waiting", url=url, reason=f"KServe has not looked at the canary {revision} yet"
        )
    if failure := _model_failure(status.get("modelStatus") or {}):
        return ServiceStatus(state="failed", url=url, reason=f"canary {revision}: {failure}")
    if status.get("ready"):
        return ServiceStatus(state="ready", url=url)
    return ServiceStatus(state="waiting", url=url, reason=f"the pods of the canary {revision} are not ready")


def cache(live: Manifest) -> CacheStatus:
    """A LocalModelCache or LocalModelNamespaceCache, which has no condition Ready: nodes and copies have to tell."""
    status = live.get("status") or {}
    copies = status.get("copies") or {}
    nodes: dict[str, str] = status.get("nodeStatus") or {}
    total, available = int(copies.get("total") or 0), int(copies.get("available") or 0)
    failed = tuple(sorted(name for name, state in nodes.items() if state == "NodeDownloadError"))
    behind = {name: state for name, state in sorted(nodes.items()) if state != "NodeDownloaded"}
    told = "; ".join(f"{name}: {_NODE.get(state, state)}" for name, state in behind.items())
    if failed:
        cluster = live.get("kind") == "LocalModelCache"
        where = DOWNLOADS if cluster else live["metadata"].get("namespace", "its namespace")
        reason = f"{told} (the log of its download is with the Jobs of namespace {where})"
        return CacheStatus(
            state="failed", total=total, available=available, failed_nodes=failed, reason=reason
        )
    if not nodes:
        groups = ", ".join(live.get("spec", {}).get("nodeGroups", ()))
        reason = f"no node of the node groups {groups} has been looked at; do nodes carry their labels?"
        return CacheStatus(state="waiting", total=total, available=available, reason=reason)
    if not behind and total >= len(nodes) and available >= total:
        return CacheStatus(state="ready", total=total, available=available)
    reason = told or f"{available} of {total} copies are there"
    return CacheStatus(state="waiting", total=total, available=available, reason=reason)


def _model_failure(status: Manifest) -> str:
    """What KServe says about the model that it could not load; empty where nothing."""
    if status.get("transitionStatus") not in ("BlockedByFailedLoad", "InvalidSpec"):
        return ""
    info = status.get("lastFailureInfo") or {}
    code = f"exit code {info['exitCode']}" if info.get("exitCode") else ""
    lines = str(info.get("message") or "").strip().splitlines()
    said = [str(info.get("reason") or status["transitionStatus"]), code, " / ".join(lines[-3:])]
    return ": ".join(filter(None, said))[:500]


def _closest(conditions: list[Manifest]) -> Manifest:
    """The one nearest to the cause: Ready only repeats the others, and a message says more than none."""
    return min(conditions, key=lambda one: (one["type"] == "Ready", not one.get("message")))


def _said(condition: Manifest) -> str:
    parts = [str(condition["type"]), str(condition.get("reason") or ""), str(condition.get("message") or "")]
    return ": ".join(" ".join(part.split()) for part in parts if part)[:500]


def _openai(live: Manifest, url: str) -> str:
    """Where the OpenAI API is below a service's address: KServe's own server puts it aside."""
    if not url:
        return ""
    model = live.get("spec", {}).get("predictor", {}).get("model", {})
    return (
        f"{url.rstrip('/')}/openai/v1" if model.get("runtime") == KSERVE_RUNTIME else f"{url.rstrip('/')}/v1"
    )
