"""Rows and files for the tests of data preparation."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_WORDS = [a + b + c for a in "bcdfglmnprst" for b in "aeiou" for c in ("n", "rk", "lt", "sh", "m", "")]


def sentence(seed: object, words: int = 20) -> str:
    """Made-up words, the same for the same seed, unlike for another."""
    return " ".join(random.Random(str(seed)).choices(_WORDS, k=words))


def pair(number: int, **more: Any) -> dict[str, Any]:
    """A row that resembles no other."""
    return {"prompt": f"{sentence(('q', number), 6)}?", "completion": sentence(("a", number)), **more}


def pairs(count: int) -> list[dict[str, Any]]:
    return [pair(number) for number in range(count)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


QUESTION, ANSWER = sentence("q", 6), sentence("a", 12)
ASKED = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)


def json_line(row: object) -> bytes:
    return json.dumps(row).encode() + b"\n"


GOOD = b"".join(json_line(row) for row in pairs(20))
