"""A feature store that pods share: Feast's own registry server (gRPC) and feature server, as processes on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from goldpath.core import storage
from goldpath.core.errors import DataError, InputError, MachineError, SpecError
from goldpath.core.ports import free_port
from goldpath.core.reuse import Reused
from goldpath.feature_repo import embeddings, online, shared, store
from goldpath.feature_repo.repository import opened
from goldpath.feature_repo.results import FeatureResult
from goldpath.feature_repo.specs import FeatureSpec
from tests.feature_repo.documents import FACTS, document, facts, write

pytestmark = pytest.mark.e2e

SERVER = """
project: team
provider: local
registry: {folder}/registry.db
offline_store: {{type: duckdb}}
online_store: {{type: milvus, path: {folder}/online.db, embedding_dim: 384, index_type: FLAT, metric_type: COSINE}}
entity_key_serialization_version: 3
"""
CLIENT = """
project: team
registry: {{registry_type: remote, path: "127.0.0.1:{registry}"}}
online_store: {{type: remote, path: "http://127.0.0.1:{online}", connection_retries: 0}}
entity_key_serialization_version: 3
"""


@dataclass
class Servers:
    """The settings for clients, and where the servers write."""

    settings: Path
    log: Path


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Both servers; started once, at the same time."""
    folder = tmp_path_factory.mktemp("feast")
    (folder / "feature_store.yaml").write_text(SERVER.format(folder=folder))
    ports = {"registry": free_port(0), "online": free_port(0)}
    settings = folder / "client.yaml"
    settings.write_text(CLIENT.format(**ports))
    commands = [
        ["serve_registry", "--port", str(ports["registry"])],
        ["serve", "--host", "127.0.0.1", "--port", str(ports["online"]), "--no-access-log"],
    ]
    environment = os.environ | {"no_grpc_proxy": "127.0.0.1,localhost", "HOME": str(folder)}
    started = []
    with (folder / "log").open("wb") as log:
        for command in commands:
            started.append(
                subprocess.Popen(
                    [str(Path(sys.executable).parent / "feast"), *command],
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        try:
            for port, server in zip(ports.values(), started, strict=True):
                _wait(port, server, folder / "log")
            yield Servers(settings, folder / "log")
        finally:
            for server in started:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    while server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-3_000:])


@pytest.fixture
def documents(home: Path, tmp_path: Path, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents; the store is the shared one, and so is what pods leave for each other."""
    monkeypatch.setenv("GOLDPATH_FEATURE_STORE", str(servers.settings))
    monkeypatch.setenv("GOLDPATH_STORAGE", f"file://{tmp_path}/shared")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    return write(tmp_path / "documents.parquet", facts())


def build(documents: Path, digest: str = "facts", **fields: Any) -> Reused[FeatureResult]:
    return store.build(documents, digest, FeatureSpec.parse(fields))


def test_frame_and_retrieval_are_those_of_the_embedded_stores(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = build(documents)
    view = there.result.online_store.removeprefix("feast:").partition("?")[0]
    assert there.result.online_documents == len(FACTS)
    assert there.result.feature_service == view.replace("document_embedding", "finetune")
    query = "why is there high water and low water"
    found = store.retrieve(query, 6, there.result.online_store)
    assert found[0].id == "moon"
    assert len(store.retrieve(query, 2, there.result.online_store)) == 2

    monkeypatch.delenv("GOLDPATH_FEATURE_STORE")
    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "laptop"))
    monkeypatch.delenv("GOLDPATH_STORAGE")
    here = build(documents)
    assert (here.result.digest, here.result.rows) == (there.result.digest, there.result.rows)
    for split in there.result.rows:
        assert pq.read_table(there.path / f"{split}.parquet") == pq.read_table(here.path / f"{split}.parquet")
    local = store.retrieve(query, 6, here.result.online_store)
    assert [(chunk.id, chunk.text, chunk.source) for chunk in found] == [
        (chunk.id, chunk.text, chunk.source) for chunk in local
    ]
    assert [chunk.score for chunk in found] == pytest.approx([chunk.score for chunk in local], abs=1e-3)


def test_another_pod_embeds_and_writes_nothing_again(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(documents)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "another-pod"))
    monkeypatch.setattr(online, "embed", never)
    from feast import FeatureStore

    monkeypatch.setattr(FeatureStore, "write_to_online_store", never)
    again = build(documents)
    assert again.reused
    assert again.result == first.result
    assert store.retrieve("a recipe for a loaf", 1, again.result.online_store)[0].id == "bread"


def test_what_the_online_store_lost_is_written_again(
    documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(documents, "lost")
    written: list[int] = []
    from feast import FeatureStore

    real, answers = FeatureStore.write_to_online_store, iter([False, True])

    def write_online(self: Any, view: str, df: Any) -> None:
        written.append(len(df))
        real(self, view, df=df)

    monkeypatch.setattr(FeatureStore, "write_to_online_store", write_online)
    monkeypatch.setattr(online, "_is_there", lambda *_: next(answers))
    assert build(documents, "lost").result == first.result
    assert written == [len(FACTS)]


def test_the_settings_may_lie_in_the_storage(
    documents: Path, tmp_path: Path, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path}/shared/feature_store.yaml"
    monkeypatch.setenv("GOLDPATH_FEATURE_STORE", uri)
    with pytest.raises(SpecError, match=r"is file://.*feature_store\.yaml, and there is no such file"):
        build(documents)
    storage.write(servers.settings.read_bytes(), uri)
    assert store.retrieve("a recipe for a loaf", 1, build(documents).result.online_store)[0].id == "bread"


def test_data_sets_in_one_registry_do_not_mix(documents: Path, tmp_path: Path, servers: Servers) -> None:
    build(documents)
    other = write(
        tmp_path / "other.parquet", [document("tea", "How is tea made?", "Pour hot water on leaves.")]
    )
    second = build(other, "other")
    found = store.retrieve("high water and low water", 6, second.result.online_store)
    assert [chunk.id for chunk in found] == ["tea"]
    first = build(documents)
    assert len(store.retrieve("high water", 6, first.result.online_store)) == len(FACTS)
    with opened(tmp_path) as team:
        names = {view.name for view in team.list_feature_views()}
    assert {
        first.result.online_store[6:].partition("?")[0],
        second.result.online_store[6:].partition("?")[0],
    } <= names


def test_nothing_online_is_retrieved_from_nothing(documents: Path) -> None:
    found = build(documents, online_rows=0)
    assert found.result.online_store.endswith("?documents=0")
    assert store.retrieve("anything", 3, found.result.online_store) == []


def test_bad_documents_are_refused_before_anything_is_registered(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no documents file"):
        build(tmp_path / "none.parquet", "none")


def test_a_reference_needs_the_store(documents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"does not know it .*document_embedding_gone.*Run the step build_features"
    ):
        store.retrieve("anything", 1, shared.reference("document_embedding_gone", 3))
    monkeypatch.delenv("GOLDPATH_FEATURE_STORE")
    with pytest.raises(InputError, match="GOLDPATH_FEATURE_STORE is not set"):
        store.retrieve("anything", 1, shared.reference("document_embedding_x", 3))


@pytest.mark.parametrize(
    ("old", "says"),
    [
        ('path: "127.0.0.1:', r"cannot reach Feast's registry.*Check `registry.path` in"),
        ('path: "http://127.0.0.1:', r"cannot reach Feast's online store.*Check `online_store.path` in"),
    ],
)
def test_a_server_that_is_away_is_named(
    documents: Path, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, says: str
) -> None:
    built = build(documents)
    settings = servers.settings.read_text()
    head, _, tail = settings.partition(old)
    (tmp_path / "client.yaml").write_text(f"{head}{old}9{tail[tail.index(chr(34)) :]}")
    monkeypatch.setenv("GOLDPATH_FEATURE_STORE", str(tmp_path / "client.yaml"))
    monkeypatch.setattr(embeddings, "embed", lambda _: [[0.0] * embeddings.SIZE])
    with pytest.raises(MachineError, match=says):
        store.retrieve("anything", 1, built.result.online_store)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such file.*Set GOLDPATH_FEATURE_STORE to a feature_store.yaml"),
        ("project: team", "has no registry and no online_store"),
        ("", "has no project and no registry"),
        ("[", "is not YAML"),
        (
            "project: 7\nregistry: x\nonline_store: {type: remote}",
            "is no feature_store.yaml",
        ),
    ],
)
def test_settings_that_are_none_are_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "client.yaml").write_text(content)
    monkeypatch.setenv("GOLDPATH_FEATURE_STORE", str(tmp_path / "client.yaml"))
    with pytest.raises(SpecError, match=says), opened(tmp_path):
        pass
