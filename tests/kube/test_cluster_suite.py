"""`make test-cluster` itself: against the server of these tests, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.accelerators.clusters import CLASSES, SLICES
from tests.kube import Refusal, Server

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
Thing = dict[str, Any]


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(server: Server | None, *chosen: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "GOLDPATH_TEST_CLUSTER": "1", "GOLDPATH_TEST_GONE_S": "1"}
        env.pop("KUBECONFIG", None)
        if server:
            env["KUBECONFIG"] = str(server.kubeconfig(tmp_path))
        words = ["-q", "-n", "0", "-p", "no:cacheprovider", "tests/cluster_contract", *chosen]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def strict(new: Thing, old: Thing | None) -> None:
    if "resourceClaim" in new["spec"]:
        raise Refusal(400, "BadRequest", 'strict decoding error: unknown field "spec.resourceClaim"')


def never_ends(new: Thing, old: Thing | None) -> None:
    """A namespace on a server without controllers: it stays until somebody finalizes it."""
    if old is None:
        new["metadata"]["finalizers"] = ["kubernetes"]
    elif new.get("spec", {}).get("finalizers") == []:
        new["metadata"].pop("finalizers", None)


def has_an_account(server: Server) -> Callable[[Thing, Thing | None], None]:
    def check(new: Thing, old: Thing | None) -> None:
        spaces = {one["metadata"]["namespace"] for one in server.find("ServiceAccount")}
        if old is None and new["metadata"]["namespace"] not in spaces:
            raise Refusal(
                403, "Forbidden", 'error looking up service account: serviceaccount "default" not found'
            )

    return check


def schedules(server: Server) -> Callable[[Thing], Thing | None]:
    """A scheduler that waits until each claim of a pod has one."""

    def control(pod: Thing) -> Thing | None:
        status = pod.get("status") or {}
        templates = [
            one for one in pod["spec"].get("resourceClaims", []) if "resourceClaimTemplateName" in one
        ]
        waits = len(status.get("resourceClaimStatuses", [])) < len(templates)
        if waits or "conditions" in status:
            return None
        return {**status, "conditions": [{"type": "PodScheduled", "status": "True"}]}

    return control


def test_all_is_tried_on_a_bare_server_and_nothing_is_left(suite: Callable[..., Any]) -> None:
    with Server() as server:
        server.lack("ScaledObject")
        server.admit("Namespace", never_ends)
        server.admit("Pod", strict)
        server.admit("Pod", has_an_account(server))
        server.on("Pod", schedules(server))
        for one in SLICES:
            server.put({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", **one})
        for one in CLASSES:
            server.put({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", **one})
        before = server.left()
        done = suite(server, "-k", "not agree")
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.left() == before
    out = done.stdout
    for kind in (
        "TrainJob",
        "Experiment",
        "PyTorchJob",
        "InferenceService",
        "LocalModelCache",
        "ResourceClaim",
    ):
        assert f"dry run, {kind} (" in out
        assert f"{kind}/" in " ".join(server.created) or kind == "PyTorchJob", "examples are created"
    assert "the cluster has no ScaledObject (keda.sh/v1alpha1)" in out
    assert "note: no controller ends namespaces: we did" in out
    assert "note: no controller made the namespace's service account: we did" in out
    assert "\nscheduled: " in out
    assert " created and removed: " not in out
    assert "\ncreated and removed: " in out


def test_a_scheduler_that_gives_what_the_doctor_does_not_see_is_a_failure(suite: Callable[..., Any]) -> None:
    with Server() as server:
        server.on("Pod", schedules(server))
        for one in SLICES:
            server.put({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", **one})
        for one in CLASSES:
            server.put({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", **one})
        done = suite(server, "-k", "agree")
    assert done.returncode == 1
    assert "the doctor says Supply(devices=0" in done.stdout
    assert "\ndoctor and scheduler agree: " in done.stdout


def test_a_refused_object_and_one_that_stays_are_failures(suite: Callable[..., Any]) -> None:
    def refuse(new: Thing, old: Thing | None) -> None:
        raise Refusal(422, "Invalid", "spec.trainer: Invalid value")

    with Server() as server:
        server.admit("TrainJob", refuse)
        done = suite(server, "-k", "lora")
        assert done.returncode == 1
        assert "spec.trainer: Invalid value" in done.stdout
        assert done.stdout.count("FAILED") == 2, "the dry run and the creation"
        assert server.left() == []


def test_what_a_webhook_misses_is_skipped_with_its_words(suite: Callable[..., Any]) -> None:
    def refuse(new: Thing, old: Thing | None) -> None:
        raise Refusal(403, "Forbidden", 'admission webhook "x" denied the request: runtime "y" not found')

    with Server() as server:
        server.admit("TrainJob", refuse)
        done = suite(server, "-k", "lora")
        assert done.returncode == 0, done.stdout
        assert done.stdout.count("skipped 1: TrainJob: cannot ") == 2, "the dry run and the creation"
        assert 'runtime "y" not found' in done.stdout


def test_devices_that_nobody_has_and_a_missing_scheduler_are_said(suite: Callable[..., Any]) -> None:
    with Server() as server:
        assert "the cluster has no ResourceSlices" in suite(server, "-k", "scheduled and mps").stdout
        for one in SLICES:
            server.put({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", **one})
        for one in CLASSES:
            server.put({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", **one})
        done = suite(server, "-k", "scheduled and (mps or mig-on-demand)")
        assert "scheduling: no scheduler answers" in done.stdout
        assert "no device fits" in done.stdout


def test_without_a_named_cluster_nothing_is_tried(suite: Callable[..., Any]) -> None:
    done = suite(None, "-k", "lora")
    assert done.returncode == 2
    assert "KUBECONFIG is not set" in done.stdout + done.stderr


def test_a_cluster_that_does_not_let_us_is_said_in_a_line(suite: Callable[..., Any]) -> None:
    with Server() as server:
        server.deny("create", "namespaces")
        done = suite(server, "-k", "lora")
    assert done.returncode == 2
    assert "cannot POST /api/v1/namespaces: " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_make_test_collects_none_of_it() -> None:
    env = {key: value for key, value in os.environ.items() if key != "GOLDPATH_TEST_CLUSTER"}
    words = ["-q", "-n", "0", "--collect-only", "-p", "no:cacheprovider", "tests/cluster_contract"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no tests" in done.stdout
