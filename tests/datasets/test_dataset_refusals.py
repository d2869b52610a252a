"""Files that cannot be read, and rows that cannot be used: one line each, and nothing left behind."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from goldpath.core.errors import DataError, GoldpathError, MachineError, SpecError
from goldpath.training.datasets import check, prepare
from goldpath.training.specs import DatasetSpec

from .rows import ASKED, GOOD, json_line, pair, pairs, write_jsonl, write_parquet

BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("d.jsonl", b"", r"d.jsonl is empty"),
    "only blank lines": ("d.jsonl", b"\n \n", r"d.jsonl is empty"),
    "only a header": ("d.csv", b"prompt,completion\n", r"d.csv is empty"),
    "an empty list": ("d.json", b"[]", r"d.json is empty"),
    "broken JSON": ("d.jsonl", GOOD + b'{"prompt": "a", "completion\n', r"d.jsonl, line 21: broken JSON"),
    "cut off at its end": (
        "d.jsonl",
        GOOD + b'{"prompt": "a", "completion": "b"\r\n',
        r"line 21: broken JSON, expected a comma or a closing bracket at character 34, where the line ends\.",
    ),
    "no value": (
        "d.jsonl",
        b'{"prompt": "\xc3\xa9", "completion": }\n',
        r"line 1: broken JSON, expected a value at character 31\.",
    ),
    "no closing quote": (
        "d.jsonl",
        b'{"prompt": "a\n',
        r"line 1: broken JSON, expected a closing quote for the text that begins at character 12\.",
    ),
    "broken row of a list": (
        "d.json",
        b'[{"prompt": "a", "completion": "b"}, {"prompt": "a", completion\n}]',
        r"row 2 \(line 1\): broken JSON, expected a name in double quotes at line 1, character 54\.",
    ),
    "row of a list with a broken end": (
        "d.json",
        b'[\n  {"prompt": "a",\n   "completion": "b"',
        r"expected a comma or a closing bracket at line 3, character 21, where the file ends\.",
    ),
    "no comma in a list": (
        "d.json",
        b'[\n {"prompt": "a", "completion": "b"} {}]',
        r"d.json, line 2: broken JSON, expected a comma or a closing bracket at character 37\.",
    ),
    "broken messages in CSV": (
        "d.csv",
        b'id,messages\n1,"[{""role"": ""user"""\n',
        r"cell `messages`: broken JSON, expected a comma.* at character 17, where the line ends.*Write the list",
    ),
    "not an object": ("d.jsonl", b"[1, 2]\n", r"d.jsonl, line 1: not a JSON object"),
    "more than one array": (
        "d.json",
        b'[{"prompt": "a", "completion": "b"}]\n[{"prompt": "c", "completion": "d"}]',
        r"d.json, line 2: broken JSON, expected no more after the array at character 1\..*one array",
    ),
    "two columns of one name": (
        "d.csv",
        b"prompt,completion,completion\na,b,c\n",
        r"d.csv: two columns are called 'completion'\. Give each column",
    ),
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
    "no answer": ("d.jsonl", GOOD + json_line({"prompt": "why?"}), r"d.jsonl, line 21: no answer"),
    "null answer": ("d.jsonl", json_line({"question": "why?", "answer": None}), r"line 1: no answer"),
    "blank answer": ("d.jsonl", json_line({"prompt": "why?", "completion": "  "}), r"line 1: no answer"),
    "ends with a question": (
        "d.jsonl",
        json_line({"messages": ASKED[:1]}),
        r"line 1: no answer; the last message is the user's",
    ),
    "only an answer": ("d.jsonl", json_line({"messages": ASKED[1:]}), r"line 1: no question"),
    "blank question": (
        "d.jsonl",
        json_line({"prompt": "", "completion": "yes it is"}),
        r"the user message is empty",
    ),
    "late system message": (
        "d.jsonl",
        json_line({"messages": [ASKED[0], {"role": "system", "content": "x"}, ASKED[1]]}),
        r"system message stands after",
    ),
    "unknown role": (
        "d.jsonl",
        json_line({"messages": [{"role": "bot", "content": "x"}]}),
        r"message 1 has the role 'bot'.*system, user, assistant",
    ),
    "no role": (
        "d.jsonl",
        json_line({"messages": [{"from": "bot"}]}),
        r"message 1 of `messages` has no role",
    ),
    "messages is text": ("d.jsonl", json_line({"messages": "hello"}), r"`messages` is text, not a list"),
    "content is a list": (
        "d.jsonl",
        json_line({"messages": [{"role": "user", "content": ["x"]}]}),
        r"is a list, not text",
    ),
    "other columns": (
        "d.jsonl",
        json_line({"text": "x", "label": 1}),
        r"no chat in this row, its columns are `text`, `label`",
    ),
    "bad timestamp": ("d.jsonl", json_line(pair(1, timestamp="yesterday")), r"`timestamp` is 'yesterday'"),
    "bad id": ("d.jsonl", json_line(pair(1, id=[1])), r"`id` is a list"),
    "long line": (
        "d.jsonl",
        GOOD + json_line(pair(1, x="y" * 3_000)),
        r"d.jsonl, line 21: longer than 2,000 bytes",
    ),
    "long row of a list": (
        "d.json",
        b"[" + json_line(pair(1, x="y" * 3_000)) + b"]",
        r"d.json, row 1 \(line 1\): longer than 2,000",
    ),
    "longer row of a list": (
        "d.json",
        b"[" + json_line(pair(1, x="y" * 300_000)) + b"]",
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
    path.write_bytes(json_line({"prompt": "why?"}) + GOOD)
    with pytest.raises(DataError, match=r"line 1: no answer"):
        check(DatasetSpec(source=str(path)))
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        check(DatasetSpec(source=str(path)))
    path.write_bytes(b"\n\n")
    with pytest.raises(DataError, match="is empty"):
        check(DatasetSpec(source=str(path)))
    path.write_bytes(GOOD * 2 + json_line({"prompt": "why?"}))
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
    write_parquet(tmp_path / "d.parquet", [pair(n, system="y" * (3_000 if n == 9 else 3)) for n in range(20)])
    with pytest.raises(DataError, match=r"d.parquet, row 10: longer than 2,000 bytes"):
        prepare(DatasetSpec(source=str(tmp_path / "d.parquet"), max_row_bytes=2_000))


def test_parquet_with_text_that_is_not_utf8_is_refused(home: Path, tmp_path: Path) -> None:
    raw = pa.array([b"caf\xe9"] * 3, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": raw, "completion": raw}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"d.parquet, row 1: not UTF-8"):
        prepare(DatasetSpec(source=str(tmp_path / "d.parquet")))


def test_a_parquet_file_without_a_chat_is_named_with_its_columns(home: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "d.parquet", [{"text": "a", "label": 2}])
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
