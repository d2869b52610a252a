"""Reading a frame's chats: all of them, in an order that the seed decides, a little of the file at a time."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from goldpath.core.errors import DataError
from goldpath.training import frames
from tests.models import chats, write_rows

ROWS, GROUP = 12_000, 1_000


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chats in twelve row groups; each chat is its number."""
    path = tmp_path_factory.mktemp("frame") / "train.parquet"
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    made = [[{"role": "assistant", "content": str(number)}] for number in range(ROWS)]
    table = pa.table({"messages": pa.array(made, pa.list_(message))})
    pq.write_table(table, path, row_group_size=GROUP)
    return path


def numbers(batch: list[frames.Messages]) -> list[int]:
    return [int(messages[0]["content"]) for messages in batch]


def read(file: Path, seed: int) -> list[int]:
    return [number for batch in frames.shuffled_chats(file, random.Random(seed)) for number in numbers(batch)]


def test_every_chat_comes_once_in_an_order_of_the_seed(file: Path) -> None:
    found = read(file, 1)
    assert sorted(found) == list(range(ROWS))
    assert found == read(file, 1)
    assert found != read(file, 2)


def test_a_batch_is_drawn_from_many_row_groups(file: Path) -> None:
    first = numbers(next(frames.shuffled_chats(file, random.Random(1))))
    assert len(first) == 512
    assert len({number // GROUP for number in first}) >= 8
    assert first != sorted(first)


def test_the_file_is_read_once_and_no_further_than_needed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self: Any, *args: Any, row_groups: list[int], **more: Any) -> Any:
        groups.extend(row_groups)
        return iter_batches(self, *args, row_groups=row_groups, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    stream = frames.shuffled_chats(file, random.Random(1))
    next(stream)
    assert len(groups) == 9  # 8,192 chats are held
    assert sum(len(batch) for batch in stream) == ROWS - 512
    assert sorted(groups) == list(range(12))


def test_chats_in_order(file: Path) -> None:
    found = [number for batch in frames.read_chats(file) for number in numbers(batch)]
    assert found == list(range(ROWS))
    assert frames.require_rows(file) == ROWS


def test_a_bad_row_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    rows = chats(30)
    rows[24]["messages"] = []
    path = write_rows(tmp_path / "train.parquet", rows)
    pq.write_table(pq.read_table(path), path, row_group_size=10)
    for stream in (frames.read_chats(path), frames.shuffled_chats(path, random.Random(1))):
        with pytest.raises(DataError, match=r"row 25 of .* has no assistant message"):
            list(stream)
