"""What pods leave for each other: two homes that share no disk, and an object store between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from goldpath.core import storage
from goldpath.core.errors import InputError, MachineError, SpecError
from goldpath.core.reuse import Reused, reuse
from goldpath.core.uris import local_path
from tests import buckets
from tests.core.test_core_reuse import Sum, adding, never

INPUTS = {"numbers": [1, 2]}


@pytest.fixture
def shared(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOLDPATH_STORAGE", f"file://{tmp_path}/shared/")
    return tmp_path / "shared"


@pytest.fixture
def bucket(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The real protocol of S3."""
    name = f"team-{tmp_path.name.replace('_', '-').lower()}"[:60].strip("-")
    with buckets.bucket(monkeypatch, name) as uri:
        monkeypatch.setenv("GOLDPATH_STORAGE", f"{uri}/goldpath")
        yield f"{uri}/goldpath"


def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on we are another pod, with a disk of its own."""
    monkeypatch.setenv("GOLDPATH_HOME", str(folder))


def made(calls: list[Path] | None = None) -> Reused[Sum]:
    return reuse("sum", INPUTS, Sum, adding(1, 2, calls=calls) if calls is not None else never)


def test_another_pod_finds_the_work_and_its_files_in_a_bucket(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made([])
    assert first.uri.startswith(f"{bucket}/store/sum/{first.key}/")
    elsewhere(monkeypatch, tmp_path / "other")
    assert (local_path(first.uri) / "numbers.txt").read_text() == "1 2"
    assert local_path(f"{first.uri}/numbers.txt").is_relative_to(tmp_path / "other")
    again = made()
    assert (again.reused, again.result, again.uri) == (True, Sum(total=3), first.uri)
    assert (again.path / "numbers.txt").read_text() == "1 2"


def test_what_was_brought_is_not_asked_for_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = made([]).uri
    elsewhere(monkeypatch, tmp_path / "other")
    path = local_path(uri)
    fsspec.filesystem("s3").rm(f"{bucket}/store", recursive=True)
    assert local_path(uri) == path
    kept = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
    assert kept == ["numbers.txt", "result.json"]


def test_work_that_was_done_before_there_was_a_storage_is_kept_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made([]).uri.startswith("file://")
    monkeypatch.setenv("GOLDPATH_STORAGE", f"file://{tmp_path}/shared")
    kept = made()
    assert kept.uri == storage.kept("sum", kept.key)
    elsewhere(monkeypatch, tmp_path / "other")
    assert made().uri == kept.uri


@pytest.mark.parametrize("damage", ["changed file", "lost file", "lost sums", "lost word", "broken word"])
def test_a_copy_that_is_not_whole_is_made_again(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    first = made([])
    build = Path(first.uri.removeprefix("file://"))
    {
        "changed file": lambda: (build / "numbers.txt").write_text("1 9"),
        "lost file": lambda: (build / "numbers.txt").unlink(),
        "lost sums": lambda: (build / "SHA256SUMS").unlink(),
        "lost word": lambda: (build.parent / "build.json").unlink(),
        "broken word": lambda: (build.parent / "build.json").write_text("{"),
    }[damage]()
    elsewhere(monkeypatch, tmp_path / "other")
    calls: list[Path] = []
    again = made(calls)
    assert len(calls) == 1
    assert again.uri not in ("", first.uri)
    elsewhere(monkeypatch, tmp_path / "third")
    assert made().uri == again.uri


def test_a_copy_that_was_interrupted_does_not_count(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            made([])
    kept = made()  # the work itself was done, and is not done again
    assert kept.uri == storage.kept("sum", kept.key)


@pytest.mark.parametrize("uri", ["s3://other/m", "file-elsewhere://x/y", "s3://team/goldpath/store/sum"])
def test_what_lies_outside_the_storage_is_not_brought(
    home: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("GOLDPATH_STORAGE", "s3://team/goldpath")
    with pytest.raises(InputError, match=f"{uri} is not on this machine"):
        local_path(uri)


def test_a_storage_that_cannot_be_written_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_STORAGE", "file:///proc/goldpath")
    with pytest.raises(MachineError, match=r"/proc/goldpath.*"):
        made([])


def test_a_cluster_needs_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLDPATH_STORAGE", raising=False)
    monkeypatch.setenv("GOLDPATH_BACKEND", "kubernetes")
    with pytest.raises(SpecError, match=r"GOLDPATH_STORAGE is not set.*s3://bucket/goldpath"):
        made([])
    monkeypatch.setenv("GOLDPATH_STORAGE", "/mnt/shared")
    with pytest.raises(SpecError, match="'/mnt/shared', and goldpath keeps"):
        made([])


def test_the_uri_of_a_folder_is_found_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made([])
    assert storage.where(first.path / "numbers.txt") == f"{first.uri}/numbers.txt"
    elsewhere(monkeypatch, tmp_path / "other")
    assert storage.where(local_path(f"{first.uri}/sub")) == f"{first.uri}/sub"
    with pytest.raises(InputError, match=r"is not in the storage"):
        storage.where(tmp_path / "my-frame")


def test_a_copy_that_lost_a_file_is_not_taken_for_whole(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = made([])
    storage.remove(f"{done.uri}/numbers.txt")
    elsewhere(monkeypatch, tmp_path / "other")
    with pytest.raises(InputError, match=r"not whole: numbers\.txt is gone"):
        local_path(done.uri)
    with pytest.raises(InputError, match="is gone"):
        local_path(done.uri)  # nor the second time
    calls: list[Path] = []
    assert made(calls).result == Sum(total=3)
    assert calls, "the work is done again"


@pytest.mark.parametrize("uri", ["gs://team/goldpath", "hf://team", "bucket/goldpath", "nonsense://x"])
def test_only_what_speaks_s3_keeps_work(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_STORAGE", uri)
    with pytest.raises(SpecError, match=r"what speaks S3.*AWS_ENDPOINT_URL"):
        storage.storage()
