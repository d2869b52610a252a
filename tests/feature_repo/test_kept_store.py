"""The online store between pods that share no disk: kept in the storage, brought, and kept anew where it is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from goldpath.core import storage
from goldpath.feature_repo import online, store
from goldpath.feature_repo.specs import FeatureSpec
from tests.feature_repo.documents import facts, write


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOLDPATH_STORAGE", f"file://{tmp_path}/shared")
    monkeypatch.delenv("GOLDPATH_EVENTS", raising=False)
    write(tmp_path / "documents.parquet", facts())
    return tmp_path / "documents.parquet"


def in_a_pod(home: Path, documents: Path, patch: pytest.MonkeyPatch) -> tuple[str, bool]:
    """Build on a disk of its own: where the online store is, and whether it was found."""
    patch.setenv("GOLDPATH_HOME", str(home))
    built = store.build(documents, "facts", FeatureSpec())
    return built.result.online_store, built.reused


def finds(home: Path, online_store: str, patch: pytest.MonkeyPatch) -> str:
    patch.setenv("GOLDPATH_HOME", str(home))
    return store.retrieve("a recipe for a loaf", 1, online_store)[0].id


def test_another_pod_takes_what_was_kept_and_retrieves_from_it(
    tmp_path: Path, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, found = in_a_pod(tmp_path / "one", documents, monkeypatch)
    assert not found
    assert first.startswith(f"file://{tmp_path}/shared/store/online-store/")

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("documents are embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(online, "embed", never)
        assert in_a_pod(tmp_path / "two", documents, monkeypatch) == (first, True)
        assert in_a_pod(tmp_path / "two", documents, monkeypatch) == (first, True), "nor kept again"
    assert finds(tmp_path / "three", first, monkeypatch) == "bread"


@pytest.mark.parametrize("damage", ["lost", "rotten"])
def test_a_damaged_copy_is_made_and_kept_anew(
    tmp_path: Path, documents: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    first, _ = in_a_pod(tmp_path / "one", documents, monkeypatch)
    victim = next(name for name in storage.listed(first) if name.startswith("online.db"))
    if damage == "lost":
        storage.remove(f"{first}/{victim}")
        assert not storage.whole(first)
    else:
        storage.write(b"rotten", f"{first}/{victim}")
    second, found = in_a_pod(tmp_path / "two", documents, monkeypatch)
    assert (second == first, found) == (False, False)
    assert finds(tmp_path / "three", second, monkeypatch) == "bread"
    if damage == "lost":  # seen without reading all of it
        storage.remove(f"{second}/{victim}")
        third, _ = in_a_pod(tmp_path / "two", documents, monkeypatch)
        assert third not in (first, second)
