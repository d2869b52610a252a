"""The user's own files: every shape and format, and a clear refusal of every bad one."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from goldpath.core.errors import DataError, GoldpathError, MachineError, SpecError
from goldpath.training.datasets import EPOCH, check, prepare
from goldpath.training.specs import DatasetSpec

from .rows import pair, pairs, sentence, write_jsonl


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


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)


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
        ("data.parquet", _parquet),
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


QUESTION, ANSWER = sentence("q", 6), sentence("a", 12)
ASKED = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]


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
    _parquet(tmp_path / "a.parquet", [pair(n, timestamp=moment) for n in range(15)])
    _parquet(tmp_path / "b.parquet", [pair(n, timestamp=moment.date()) for n in range(15)])
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


def _line(row: object) -> bytes:
    return json.dumps(row).encode() + b"\n"


GOOD = b"".join(_line(row) for row in pairs(20))
BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("d.jsonl", b"", r"d.jsonl is empty"),
    "only blank lines": ("d.jsonl", b"\n \n", r"d.jsonl is empty"),
    "only a header": ("d.csv", b"prompt,completion\n", r"d.csv is empty"),
    "an empty list": ("d.json", b"[]", r"d.json is empty"),
    "broken JSON": ("d.jsonl", GOOD + b'{"prompt": "a", "completion\n', r"d.jsonl, line 21: broken JSON"),
    "not an object": ("d.jsonl", b"[1, 2]\n", r"d.jsonl, line 1: not a JSON object"),
    "a number of 5,000 digits": ("d.jsonl", b'{"prompt": ' + b"1" * 5_000 + b"}\n", r"line 1: broken JSON"),
    "deep brackets": ("d.jsonl", b"[" * 100_000 + b"\n", r"d.jsonl, line 1: broken JSON"),
    "broken list": (
        "d.json",
        b'[{"prompt": "a", "completion": "b"}\n{"prompt"',
        r"d.json, line 2: broken JSON, expected",
    ),
    "list without an end": (
        "d.json",
        b'[{"prompt": "a", "completion": "b"},',
        r"d.json, row 2 \(line 1\): broken JSON",
    ),
    "list of numbers": ("d.json", b"[1, 2]", r"d.json, row 1 \(line 1\): not a JSON object"),
    "list with deep brackets": ("d.json", b"[" * 100_000, r"d.json, row 1 \(line 1\): broken JSON"),
    "not UTF-8": (
        "d.jsonl",
        GOOD + b'{"prompt": "caf\xe9"}\n',
        r"d.jsonl, line 21: not UTF-8, byte 16 is 0xe9",
    ),
    "not UTF-8 in a list": (
        "d.json",
        b'[\n{"prompt": "caf\xe9"}]',
        r"d.json, line 2: not UTF-8, byte 16 is 0xe9",
    ),
    "not UTF-8 in CSV": (
        "d.csv",
        b"prompt,completion\na,caf\xe9\n",
        r"d.csv, line 2: not UTF-8, byte 6 is 0xe9",
    ),
    "UTF-16": ("d.jsonl", '{"prompt": "a"}'.encode("utf-16"), r"d.jsonl, line 1: not UTF-8, byte 1 is 0xff"),
    "no answer": ("d.jsonl", GOOD + _line({"prompt": "why?"}), r"d.jsonl, line 21: no answer"),
    "null answer": ("d.jsonl", _line({"question": "why?", "answer": None}), r"line 1: no answer"),
    "blank answer": ("d.jsonl", _line({"prompt": "why?", "completion": "  "}), r"line 1: no answer"),
    "ends with a question": (
        "d.jsonl",
        _line({"messages": ASKED[:1]}),
        r"line 1: no answer; the last message is the user's",
    ),
    "only an answer": ("d.jsonl", _line({"messages": ASKED[1:]}), r"line 1: no question"),
    "blank question": (
        "d.jsonl",
        _line({"prompt": "", "completion": "yes it is"}),
        r"the user message is empty",
    ),
    "late system message": (
        "d.jsonl",
        _line({"messages": [ASKED[0], {"role": "system", "content": "x"}, ASKED[1]]}),
        r"system message stands after",
    ),
    "unknown role": (
        "d.jsonl",
        _line({"messages": [{"role": "bot", "content": "x"}]}),
        r"message 1 has the role 'bot'.*system, user, assistant",
    ),
    "no role": ("d.jsonl", _line({"messages": [{"from": "bot"}]}), r"message 1 of `messages` has no role"),
    "messages is text": ("d.jsonl", _line({"messages": "hello"}), r"`messages` is text, not a list"),
    "content is a list": (
        "d.jsonl",
        _line({"messages": [{"role": "user", "content": ["x"]}]}),
        r"is a list, not text",
    ),
    "other columns": (
        "d.jsonl",
        _line({"text": "x", "label": 1}),
        r"no chat in this row, its columns are `text`, `label`",
    ),
    "bad timestamp": ("d.jsonl", _line(pair(1, timestamp="yesterday")), r"`timestamp` is 'yesterday'"),
    "bad id": ("d.jsonl", _line(pair(1, id=[1])), r"`id` is a list"),
    "long line": (
        "d.jsonl",
        GOOD + _line(pair(1, x="y" * 3_000)),
        r"d.jsonl, line 21: longer than 2,000 bytes",
    ),
    "long row of a list": (
        "d.json",
        b"[" + _line(pair(1, x="y" * 3_000)) + b"]",
        r"d.json, row 1 \(line 1\): longer than 2,000",
    ),
    "longer row of a list": (
        "d.json",
        b"[" + _line(pair(1, x="y" * 300_000)) + b"]",
        r"d.json, row 1 \(line 1\): longer than 2,000",
    ),
    "quote that never ends": (
        "d.csv",
        b'prompt,completion\na,"b\n' + b"c\n" * 3_000,
        r"d.csv, line \d+: broken CSV",
    ),
    "cells too many": (
        "d.csv",
        b"prompt,completion\na,b,c\n",
        r"d.csv, row 1 \(line 2\): 3 cells, the header has 2",
    ),
    "damaged gzip": ("d.jsonl.gz", gzip.compress(GOOD)[:-20], r"d.jsonl.gz is damaged"),
    "not gzip": ("d.jsonl.gz", GOOD, r"d.jsonl.gz is damaged"),
    "not Parquet": ("d.parquet", GOOD, r"d.parquet is not a readable Parquet file"),
    "unknown format": ("d.txt", GOOD, r"no data file that can be read \(found d.txt\)"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line_and_leaves_nothing(home: Path, tmp_path: Path, case: str) -> None:
    name, content, message = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        prepare(DatasetSpec(source=str(path), max_row_bytes=2_000 if "long" in case else 1_000_000))
    assert "\n" not in caught.value.line()
    assert caught.value.remedy
    assert [path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_the_preflight_finds_what_stands_in_the_first_rows(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(_line({"prompt": "why?"}) + GOOD)
    with pytest.raises(DataError, match=r"line 1: no answer"):
        check(DatasetSpec(source=str(path)))
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        check(DatasetSpec(source=str(path)))
    path.write_bytes(b"\n\n")
    with pytest.raises(DataError, match="is empty"):
        check(DatasetSpec(source=str(path)))
    path.write_bytes(GOOD * 2 + _line({"prompt": "why?"}))
    check(DatasetSpec(source=str(path)))  # it looks at the first 20 only: that is what makes it fast


def test_one_line_of_300_mb_is_refused_without_reading_it(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "')
        file.truncate(300_000_000)  # sparse: the rest is zeros, without a newline
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"huge.jsonl, line 1: longer than 1,000,000 bytes"):
            check(DatasetSpec(source=str(path)))
        with pytest.raises(DataError, match=r"huge.jsonl, line 1: longer than 1,000,000 bytes"):
            prepare(DatasetSpec(source=str(path)))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_long_row_of_parquet_is_refused(home: Path, tmp_path: Path) -> None:
    _parquet(tmp_path / "d.parquet", [pair(n, system="y" * (3_000 if n == 9 else 3)) for n in range(20)])
    with pytest.raises(DataError, match=r"d.parquet, row 10: longer than 2,000 bytes"):
        prepare(DatasetSpec(source=str(tmp_path / "d.parquet"), max_row_bytes=2_000))


def test_parquet_with_text_that_is_not_utf8_is_refused(home: Path, tmp_path: Path) -> None:
    raw = pa.array([b"caf\xe9"] * 3, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": raw, "completion": raw}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"d.parquet, row 1: not UTF-8"):
        prepare(DatasetSpec(source=str(tmp_path / "d.parquet")))


def test_a_parquet_file_without_a_chat_is_named_with_its_columns(home: Path, tmp_path: Path) -> None:
    _parquet(tmp_path / "d.parquet", [{"text": "a", "label": 2}])
    with pytest.raises(DataError, match="its columns are `text`, `label`"):
        check(DatasetSpec(source=str(tmp_path / "d.parquet")))


def test_missing_places(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"there is nothing at .*nowhere.jsonl"):
        check(DatasetSpec(source=str(tmp_path / "nowhere.jsonl")))
    (tmp_path / "hollow").mkdir()
    with pytest.raises(DataError, match="hollow is empty"):
        prepare(DatasetSpec(source=str(tmp_path / "hollow")))
    with pytest.raises(DataError, match=r"carrier-pigeon://data.jsonl .*Use a path, file://, s3://"):
        check(DatasetSpec(source="carrier-pigeon://data.jsonl"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(GoldpathError) as caught:
        check(DatasetSpec(source="hf://datasets/nobody/nothing/data.jsonl"))
    assert "hf://datasets/nobody/nothing/data.jsonl" in caught.value.line()
    assert caught.value.remedy


@pytest.mark.parametrize("source", ["", "  ", "builtin://other"])
def test_a_source_that_cannot_be_is_refused_by_the_spec(source: str) -> None:
    with pytest.raises(SpecError, match="source is"):
        DatasetSpec.parse({"source": source})


def test_a_file_that_vanishes_while_it_is_read(home: Path, tmp_path: Path) -> None:
    from goldpath.training.datasets.sources import LocalFiles

    gone = LocalFiles({"d.jsonl": tmp_path / "d.jsonl"}, {})
    with pytest.raises(DataError, match=r"there is nothing at .*d.jsonl"):
        next(gone.chats(1_000))


def test_a_full_disk_is_said_to_be_full(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import sqlite3

    from goldpath.training.datasets.dedupe import Seen

    path = write_jsonl(tmp_path / "d.jsonl", pairs(20))
    for failure in (OSError(errno.ENOSPC, "full"), sqlite3.OperationalError("database or disk is full")):

        def fail(*_: object, failure: Exception = failure) -> str:
            raise failure

        monkeypatch.setattr(Seen, "duplicate", fail)
        with pytest.raises(MachineError, match="the disk is full"):
            prepare(DatasetSpec(source=str(path)))


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
    _parquet(tmp_path / "b.parquet", pairs(40)[20:])
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
