"""Watches as `core/kubernetes/watching.py` takes them: resumed, kept fresh by bookmarks, and begun anew after 410."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from goldpath.core.errors import StepError
from goldpath.core.kubernetes import Cluster, ClusterError, Ref, watching
from goldpath.core.kubernetes.api import Api
from goldpath.core.kubernetes.kinds import Kinds
from goldpath.core.kubernetes.retry import Retry
from goldpath.core.kubernetes.watching import Seen, Watching
from tests.cluster_contract.bench import Bench, Manifest

CHANGES = 6
KINDS = [("v1", "ConfigMap"), ("trainer.kubeflow.org/v1alpha1", "TrainJob")]
"""One of Kubernetes' own, and one by definition: the server has another way for either."""


class Recorder(Api):
    """Counts lists and watches."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.lists, self.versions = 0, list[str]()

    def call(self, method: str, path: str, doing: str, **more: Any) -> Manifest:
        self.lists += doing.startswith("watch ")
        return super().call(method, path, doing, **more)

    def events(self, path: str, doing: str, query: Any, quiet_s: float) -> Iterator[Manifest]:
        self.versions.append(dict(query)["resourceVersion"])
        return super().events(path, doing, query, quiet_s)


@pytest.fixture
def api(bench: Bench) -> Recorder:
    return Recorder(bench.cluster.connection, Retry())


@pytest.fixture
def follow(api: Recorder) -> Watching:
    return Watching(api, Kinds(api))


@pytest.fixture(params=KINDS, ids=lambda kind: kind[1])
def thing(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Manifest]:
    """An object to watch, with its `turn` at 0."""
    version, kind = request.param
    metadata = {"name": "watched", "namespace": bench.namespace, "annotations": {"turn": "0"}}
    made: Manifest = {"apiVersion": version, "kind": kind, "metadata": metadata}
    if kind == "TrainJob":
        made["spec"] = {"runtimeRef": {"name": "any"}, "suspend": True}
    if bench.kind(made) is None:
        pytest.skip(f"the cluster lacks {kind}")
    try:
        yield bench.create(made)
    except ClusterError as error:
        pytest.skip(f"a webhook refuses what only a test makes: {error.message}")
    assert bench.remove(Ref.of(made))


def turn(bench: Bench, ref: Ref, number: int) -> Manifest:
    return bench.cluster.change(ref, lambda now: now["metadata"]["annotations"].update(turn=str(number)))


def meanwhile(action: Callable[[], object]) -> threading.Thread:
    """Do it beside the test, after a second."""
    made = threading.Timer(1, action)
    made.start()
    return made


def test_a_watch_that_ends_goes_on_where_it_was(
    bench: Bench, api: Recorder, follow: Watching, thing: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of a second each: what happens in one, and between two, is told, and nothing is listed again."""
    monkeypatch.setattr(watching, "WINDOW_S", 1)
    ref = Ref.of(thing)
    writer = Cluster(bench.cluster.connection, run=bench.cluster.run, step="writer")

    def write() -> None:
        for number in range(1, CHANGES + 1):
            time.sleep(0.6)
            writer.change(ref, lambda now, to=str(number): now["metadata"]["annotations"].update(turn=to))

    told: list[str] = []

    def judge(now: Manifest) -> bool | None:
        told.append(now["metadata"]["annotations"]["turn"])
        return True if told[-1] == str(CHANGES) else None

    worker = meanwhile(write)
    assert follow.wait(ref, judge, 60)
    worker.join()
    assert list(dict.fromkeys(told)) == [str(number) for number in range(CHANGES + 1)]
    assert len(api.versions) >= 3, "it began anew"
    assert api.lists == 1
    bench.done["watches that went on where they were"] += len(api.versions)


def test_bookmarks_keep_a_quiet_watch_fresh(bench: Bench, follow: Watching, thing: Manifest) -> None:
    """The object rests while others change: the server tells the version up to which that is so."""
    ref = Ref.of(thing)
    begun = thing["metadata"]["resourceVersion"]
    metadata = {"name": "busy", "namespace": bench.namespace, "annotations": {"turn": "0"}}
    other = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata, **rest(thing)}
    bench.create(other)

    def write() -> None:
        for number in range(1, CHANGES):
            time.sleep(0.3)
            turn(bench, Ref.of(other), number)

    worker = meanwhile(write)
    seen = list(follow._events(ref, begun, 5))
    worker.join()
    assert bench.remove(Ref.of(other))
    assert [one for one in seen if one.thing is not watching.BOOKMARK] == []
    if not seen:
        pytest.skip("the server sends no bookmarks")
    assert int(seen[-1].version) > int(begun)
    bench.done["bookmarks"] += len(seen)


def rest(thing: Manifest) -> Manifest:
    return {"spec": thing["spec"]} if "spec" in thing else {}


def outcome(follow: Watching, ref: Ref) -> ClusterError | None:
    """The error of a watch from the first version on; None where the server still knows that."""
    try:
        list(follow._events(ref, "1", 2))
    except ClusterError as error:
        return error
    return None


def test_a_version_that_is_too_old_is_gone_and_the_wait_lists_anew(
    bench: Bench, api: Recorder, follow: Watching, thing: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = Ref.of(thing)
    if (told := outcome(follow, ref)) is None:
        pytest.skip("the server still knows its first version")
    assert told.status == 410
    assert told.reason in ("Expired", "Gone")
    now, listed = follow._now, []

    def outdated(*given: Any) -> Seen:
        """The list of a watcher that slept for an hour, the first time."""
        seen = now(*given)
        listed.append(seen.version)
        return Seen(seen.thing, "1") if len(listed) == 1 else seen

    monkeypatch.setattr(follow, "_now", outdated)
    worker = meanwhile(lambda: turn(bench, ref, 1))
    assert follow.wait(ref, lambda one: one["metadata"]["annotations"]["turn"] == "1" or None, 30)
    worker.join()
    assert len(listed) >= 2
    assert api.versions[0] == "1"
    bench.done["410 and listed anew"] += 1


def test_what_is_removed_while_somebody_waits_is_said(
    bench: Bench, follow: Watching, thing: Manifest
) -> None:
    ref = Ref.of(thing)
    worker = meanwhile(lambda: bench.call("DELETE", bench.path(ref)))
    with pytest.raises(StepError, match="was removed while the step waited"):
        follow.wait(ref, lambda now: None, 30)
    worker.join()


def test_a_change_of_an_old_state_is_made_on_the_new_one(bench: Bench, thing: Manifest) -> None:
    """409 is a conflict of versions: the edit is done again on what the other wrote."""
    ref, first = Ref.of(thing), []

    def edit(now: Manifest) -> None:
        if not first:
            first.append(turn(bench, ref, 5)["metadata"]["resourceVersion"])
        now["metadata"]["annotations"]["mine"] = "yes"

    made = bench.cluster.change(ref, edit)
    assert made["metadata"]["annotations"]["turn"] == "5"
    assert made["metadata"]["annotations"]["mine"] == "yes"
