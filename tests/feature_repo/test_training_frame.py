"""The training frame: what was known at a moment, in a fixed order, in bounded pieces."""

from __future__ import annotations

import hashlib
import importlib.metadata
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from goldpath.core.errors import DataError, MachineError, SpecError
from goldpath.core.reuse import Reused
from goldpath.feature_repo import frame, repository, store
from goldpath.feature_repo.results import FeatureResult
from goldpath.feature_repo.specs import FeatureSpec
from tests.feature_repo.documents import MESSAGE, day, document, write

SPLITS = ("train", "validation", "test")


def versions(count: int = 140) -> list[dict[str, Any]]:
    """Documents in one to four versions, at moments of their own; a version may move to another split."""
    draw = random.Random(7)
    rows = []
    for number in range(count):
        for version in range(draw.randint(1, 4)):
            moment = round(version * 3 + draw.random() * 2.9, 4)
            split = draw.choices(SPLITS, (8, 1, 1))[0]
            rows.append(
                document(f"d{number}", f"question {number}", f"answer {version}", split=split, at=moment)
            )
    draw.shuffle(rows)
    return rows


def build(path: Path, rows: list[dict[str, Any]], digest: str = "d", **fields: Any) -> Reused[FeatureResult]:
    return store.build(
        write(path / "documents.parquet", rows), digest, FeatureSpec.parse({"online_rows": 0, **fields})
    )


def known(rows: list[dict[str, Any]], moment: Any) -> set[tuple[str, str, str]]:
    """(split, id, answer) as pandas' merge_asof sees them: the reference."""
    table = pd.DataFrame(rows).sort_values("event_timestamp")
    asked = pd.DataFrame({"id": sorted(set(table["id"])), "event_timestamp": moment})
    asked["event_timestamp"] = pd.to_datetime(asked["event_timestamp"], utc=True).astype(
        "datetime64[us, UTC]"
    )
    table["event_timestamp"] = table["event_timestamp"].astype("datetime64[us, UTC]")
    joined = pd.merge_asof(asked, table, on="event_timestamp", by="id", direction="backward").dropna(
        subset="split"
    )
    return set(zip(joined["split"], joined["id"], joined["answer"], strict=True))


def taken(frame: Path) -> list[tuple[str, str, str]]:
    return [
        (split, row["id"], row["answer"])
        for split in SPLITS
        for row in pq.read_table(frame / f"{split}.parquet").to_pylist()
    ]


@pytest.mark.parametrize("at", [0.5, 2.95, 3.0, 5.123, 7.5, None])
def test_frame_holds_what_was_known(home: Path, tmp_path: Path, at: float | None) -> None:
    rows = versions()
    moment = day(at) if at is not None else None
    built = build(tmp_path, rows, as_of=moment)
    found = taken(built.path)
    newest = max(row["event_timestamp"] for row in rows)
    assert len(found) == len(set(found))
    assert set(found) == known(rows, moment or newest)
    assert built.result.rows == {split: sum(row[0] == split for row in found) for split in SPLITS}
    assert built.result.as_of == (moment or newest).isoformat()


def test_a_version_counts_from_its_own_moment_on(home: Path, tmp_path: Path) -> None:
    rows = [
        document("a", "q", "old", at=1),
        document("a", "q", "new", at=2),
        document("b", "q", "late", at=3),
    ]
    just_before = day(2).replace(microsecond=0) - pd.Timedelta(microseconds=1).to_pytimedelta()
    assert taken(build(tmp_path, rows, as_of=just_before).path) == [("train", "a", "old")]
    assert taken(build(tmp_path, rows, as_of=day(2)).path) == [("train", "a", "new")]


def test_frame_does_not_depend_on_chunks_or_file_order(home: Path, tmp_path: Path) -> None:
    rows = versions(260)
    whole = build(tmp_path, rows, digest="as written")
    pieces = build(tmp_path, sorted(rows, key=lambda row: row["answer"]), digest="sorted", chunk_rows=100)
    assert not pieces.reused
    assert pieces.result.digest == whole.result.digest
    assert taken(pieces.path) == taken(whole.path)
    for split in SPLITS:  # training reads whole row groups: their layout is part of its order
        assert (pieces.path / f"{split}.parquet").read_bytes() == (
            whole.path / f"{split}.parquet"
        ).read_bytes()
    other = build(tmp_path, [*rows, document("one more", "q", "a")], digest="more")
    assert other.result.digest != whole.result.digest


def test_row_groups_have_one_size_and_another_size_is_another_frame(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [document(f"d{number}", "q", "a", split="train") for number in range(250)]
    usual = build(tmp_path, rows)
    monkeypatch.setattr(frame, "GROUP_ROWS", 60)
    small = build(tmp_path, rows, digest="small", chunk_rows=100)
    with pq.ParquetFile(small.path / "train.parquet") as parquet:
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    assert sizes == [60, 60, 60, 60, 10]
    assert taken(small.path) == taken(usual.path)
    assert small.result.digest != usual.result.digest


def test_questions_of_a_split_are_those_that_a_person_would_type(home: Path, tmp_path: Path) -> None:
    rows = [document(f"long{number}", "why " * 100, "a") for number in range(3)]
    file = build(tmp_path, [*rows, document("least", "why " * 60, "a")]).path / "train.parquet"
    assert frame.questions(file, 2) == ["why " * 60]
    rows += [document(f"brief{number}", f"why {number}?", "a") for number in range(3)]
    file = build(tmp_path, rows, digest="both").path / "train.parquet"
    asked = frame.questions(file, 2)
    assert len(asked) == 2
    assert set(asked) < {"why 0?", "why 1?", "why 2?"}
    assert frame.questions(file.with_name("test.parquet"), 1) == []


def test_files_are_ordered_by_hash_and_keep_every_character(home: Path, tmp_path: Path) -> None:
    rows = [document(f"k{number}", "q", f'"a"\n\\ é 😀 \x00 {number}') for number in range(30)]
    built = build(tmp_path, rows)
    table = pq.read_table(built.path / "train.parquet")
    assert table.column_names == ["id", "question", "answer", "messages", "source"]
    assert table.schema.field("messages").type.value_type == MESSAGE
    ids = table["id"].to_pylist()
    assert ids == sorted(ids, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    by_id = {row["id"]: row for row in rows}
    for row in table.to_pylist():
        assert row == {name: by_id[row["id"]][name] for name in table.column_names}
    assert pq.read_table(built.path / "test.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("library", "new_frame"), [("feast", True), ("duckdb", True), ("torch", False), ("milvus-lite", False)]
)
def test_another_version_of_a_library_is_other_work(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, new_frame: bool
) -> None:
    """The frame follows what joins it, the online store what embeds and holds it too."""
    first = build(tmp_path, versions(5))
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == library else version(name))
    other = build(tmp_path, versions(5))
    assert (other.key != first.key) == new_frame
    assert other.result.online_store != first.result.online_store
    assert not other.reused


def test_the_same_work_is_done_once(home: Path, tmp_path: Path) -> None:
    first = build(tmp_path, versions(20), as_of="2026-01-09T12:00:00")
    (tmp_path / "documents.parquet").unlink()
    missing = tmp_path / "documents.parquet"
    again = store.build(
        missing, "d", FeatureSpec.parse({"online_rows": 0, "as_of": "2026-01-09T14:00:00+02:00"})
    )
    assert (first.reused, again.reused) == (False, True)
    assert again.result == first.result
    with pytest.raises(DataError, match="no documents file"):
        store.build(missing, "another digest", FeatureSpec())


def test_moment_before_every_document_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training document .* as of 2025-01-01T00:00:00\+00:00.*as_of"):
        build(tmp_path, versions(5), as_of="2025-01-01")
    assert not list(home.rglob("result.json"))
    assert not list(home.rglob(".spill*"))


def without(name: str) -> list[dict[str, Any]]:
    return [{**document("a", "q", "a"), name: None}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        (without("answer"), "has 1 rows with an empty value"),
        (without("event_timestamp"), "has 1 rows with an empty value"),
        ([document("a", "q", "a", split="dev")], "has the split 'dev'. Use one of: train, validation, test"),
        (
            [document("a", "q", "a"), document("a", "q", "b")],
            "has the document 'a' 2 times at 2026-01-01 00:00:00",
        ),
    ],
)
def test_bad_rows_are_refused(home: Path, tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError) as caught:
        build(tmp_path, rows)
    assert message in caught.value.line()
    assert not list(home.rglob("*.parquet"))


def test_wrong_columns_are_named(home: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "documents.parquet"
    table = {
        "id": [1],
        "question": ["q"],
        "answer": ["a"],
        "messages": ["hi"],
        "split": ["train"],
        "source": ["s"],
    }
    pq.write_table(pa.table(table | {"event_timestamp": ["today"]}), path)
    with pytest.raises(DataError) as caught:
        store.build(path, "d", FeatureSpec())
    for part in ("group is missing", "id is int64, not string", "messages is string, not list<struct<role",
                 "event_timestamp is string, not a timestamp"):  # fmt: skip
        assert part in caught.value.message
    path.write_text("not parquet")
    with pytest.raises(DataError, match="is not a Parquet file"):
        store.build(path, "d", FeatureSpec())


@pytest.mark.parametrize(
    ("values", "field"),
    [({"chunk_rows": 5}, "chunk_rows"), ({"online_rows": -1}, "online_rows"), ({"as_of": "x"}, "as_of")],
)
def test_spec_says_which_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError, match=field):
        FeatureSpec.parse(values)


def test_too_little_memory_for_a_join_is_explained(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "MEMORY_LIMIT", "1MB")
    with pytest.raises(MachineError, match=r"1MB of memory\. Lower chunk_rows"):
        build(tmp_path, versions(100))
    assert not list(home.rglob("result.json"))
