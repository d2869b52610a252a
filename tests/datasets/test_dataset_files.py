"""The user's own files: every shape and format, and a clear refusal of every bad one."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from goldpath.core.errors import DataError
from goldpath.training.datasets import EPOCH, check, prepare
from goldpath.training.specs import DatasetSpec

from .rows import ANSWER, ASKED, GOOD, QUESTION, pair, pairs, sentence, write_jsonl, write_parquet


def documents(spec: DatasetSpec) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(prepare(spec).path / "documents.parquet").to_pylist()
    return rows


def _json_array(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _gzip(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("data.jsonl", write_jsonl),
        ("data.ndjson", write_jsonl),
        ("data.json", write_jsonl),
        ("data.json", _json_array),
        ("data.csv", _csv),
        ("data.parquet", write_parquet),
        ("data.jsonl.gz", _gzip),
    ],
)
def test_every_format_gives_the_same_rows(
    home: Path, tmp_path: Path, name: str, write: Callable[[Path, list[dict[str, Any]]], object]
) -> None:
    given = [pair(number, id=f"row {number}", group=f"team {number % 5}") for number in range(30)]
    given[3]["completion"] += ', with "quotes", ümläuts 模型\nand a second line'
    write(tmp_path / name, given)
    check(DatasetSpec(source=str(tmp_path / name)))
    rows = documents(DatasetSpec(source=str(tmp_path / name)))
    assert [(row["question"], row["answer"], row["id"], row["group"]) for row in rows] == [
        (row["prompt"], row["completion"], row["id"], row["group"]) for row in given
    ]
    assert all(row["source"].startswith(f"{name}, ") for row in rows)
    assert all(row["event_timestamp"] == EPOCH for row in rows)


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"messages": ASKED}, "user assistant"),
        ({"messages": [{"role": "system", "content": "Be kind."}, *ASKED]}, "system user assistant"),
        ({"prompt": QUESTION, "completion": ANSWER}, "user assistant"),
        ({"prompt": ASKED[:1], "completion": ASKED[1:]}, "user assistant"),
        ({"question": QUESTION, "answer": ANSWER, "system": "Be kind."}, "system user assistant"),
        ({"instruction": QUESTION, "input": "", "output": ANSWER}, "user assistant"),
    ],
)
def test_every_shape_becomes_a_chat(home: Path, tmp_path: Path, row: dict[str, Any], roles: str) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [row, *pairs(20)])
    first = documents(DatasetSpec(source=str(path)))[0]
    assert (first["question"], first["answer"]) == (QUESTION, ANSWER)
    assert " ".join(message["role"] for message in first["messages"]) == roles
    assert first["messages"][-2:] == ASKED


def test_an_instruction_takes_its_input_along(home: Path, tmp_path: Path) -> None:
    row = {"instruction": "Sum up this text.", "input": QUESTION, "output": ANSWER}
    path = write_jsonl(tmp_path / "data.jsonl", [row, *pairs(20)])
    assert documents(DatasetSpec(source=str(path)))[0]["question"] == f"Sum up this text.\n\n{QUESTION}"


def test_messages_in_csv_are_json(home: Path, tmp_path: Path) -> None:
    rows = [
        {
            "messages": json.dumps(
                [
                    {"role": "user", "content": sentence(n, 5)},
                    {"role": "assistant", "content": sentence(-n, 9)},
                ]
            )
        }
        for n in range(1, 20)
    ]
    _csv(tmp_path / "data.csv", rows)
    assert documents(DatasetSpec(source=str(tmp_path / "data.csv")))[0]["answer"] == sentence(-1, 9)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (None, EPOCH),
    ],
)
@pytest.mark.parametrize("column", ["timestamp", "event_timestamp"])
def test_timestamps(home: Path, tmp_path: Path, column: str, value: object, moment: datetime) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [pair(0, **{column: value}), *pairs(20)[1:]])
    assert documents(DatasetSpec(source=str(path)))[0]["event_timestamp"] == moment


def test_parquet_dates_and_times_are_timestamps(home: Path, tmp_path: Path) -> None:
    moment = datetime(2026, 3, 1, 8, 30)
    write_parquet(tmp_path / "a.parquet", [pair(n, timestamp=moment) for n in range(15)])
    write_parquet(tmp_path / "b.parquet", [pair(n, timestamp=moment.date()) for n in range(15)])
    spec = DatasetSpec(source=str(tmp_path / "a.parquet"))
    assert documents(spec)[0]["event_timestamp"] == moment.replace(tzinfo=UTC)
    spec = DatasetSpec(source=str(tmp_path / "b.parquet"))
    assert documents(spec)[0]["event_timestamp"] == datetime(2026, 3, 1, tzinfo=UTC)


def test_folders_and_patterns(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_jsonl(folder / "a.jsonl", pairs(40)[:20])
    write_jsonl(folder / "deep" / "b.jsonl", pairs(40)[20:])
    (folder / "deep" / "empty.jsonl").touch()
    (folder / "README.md").write_text("not data")
    write_jsonl(folder / ".cache" / "c.jsonl", [pair(99)])
    _csv(folder / "z.csv", [pair(98)])
    sources = {row["source"] for row in documents(DatasetSpec(source=str(folder)))}
    assert len(sources) == 40
    assert {source.split(",")[0] for source in sources} == {"a.jsonl", "deep/b.jsonl"}
    found = documents(DatasetSpec(source=f"{folder}/a*.jsonl"))
    assert len(found) == 20
    assert len(documents(DatasetSpec(source=f"file://{folder}/a.jsonl"))) == 20
    with pytest.raises(DataError, match="no file matches"):
        check(DatasetSpec(source=f"{folder}/x*.jsonl"))


def test_a_pattern_without_a_folder_looks_here(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "a.jsonl", pairs(20))
    monkeypatch.chdir(tmp_path)
    assert prepare(DatasetSpec(source="*.jsonl")).result.rows_out == 20


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A real S3 server on loopback, and a file system that speaks to it."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("team-data")
    try:
        yield fs
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


def test_s3(home: Path, tmp_path: Path, bucket: Any) -> None:
    local = write_jsonl(tmp_path / "a.jsonl", pairs(40)[:20])
    write_parquet(tmp_path / "b.parquet", pairs(40)[20:])
    bucket.put(str(local), "team-data/chats/a.jsonl")
    bucket.put(str(tmp_path / "b.parquet"), "team-data/tables/b.parquet")
    for source in ("s3://team-data/chats", "s3://team-data/chats/*.jsonl", "s3://team-data/tables/b.parquet"):
        check(DatasetSpec(source=source))
        assert prepare(DatasetSpec(source=source)).result.rows_out == 20
    done = prepare(DatasetSpec(source="s3://team-data/chats/a.jsonl"))
    again = prepare(DatasetSpec(source=str(local)))
    assert again.reused  # the same bytes from elsewhere
    assert again.result.digest == done.result.digest
    assert (done.result.source, again.result.source) == ("s3://team-data/chats/a.jsonl", str(local))
    assert list((home / "spool").iterdir()) == []
    with pytest.raises(DataError, match=r"nothing at s3://team-data/other.jsonl"):
        check(DatasetSpec(source="s3://team-data/other.jsonl"))
    bucket.pipe("team-data/bad.jsonl", GOOD + b"{\n")
    with pytest.raises(DataError, match=r"bad.jsonl, line 21: broken JSON"):
        prepare(DatasetSpec(source="s3://team-data/bad.jsonl"))
    assert list((home / "spool").iterdir()) == []
