"""The chats of a training frame, read in order or in a random order, in memory that does not grow with the file."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from goldpath.core.errors import DataError

Messages = list[dict[str, str]]
"""One chat: `{"role", "content"}` for each turn."""

_BATCH = 512
_HELD = 16 * _BATCH
"""Chats among which the next ones are drawn."""


def require_rows(file: Path) -> int:
    """Rows of a split's file.

    Raises:
        DataError: the file is missing, unreadable, empty or has no column `messages`.
    """
    with _open(file) as parquet:
        return int(parquet.metadata.num_rows)


def read_chats(file: Path) -> Iterator[list[Messages]]:
    """The column `messages` in batches of rows, in the file's order.

    Raises:
        DataError: the file is missing, empty, has no such column, or a row has no assistant message.
    """
    with _open(file) as parquet:
        yield from _batches(file, parquet, range(parquet.num_row_groups))


def shuffled_chats(file: Path, order: random.Random) -> Iterator[list[Messages]]:
    """As `read_chats`, once through the file in a random order.

    Row groups come in a random order, and each batch is drawn from the next 8,192 chats or so. Single rows cannot be
    reached in Parquet: to take a batch of rows from all over a file is to read all of it.
    """
    with _open(file) as parquet:
        groups = list(range(parquet.num_row_groups))
        order.shuffle(groups)
        held: list[Messages] = []
        for batch in _batches(file, parquet, groups):
            held += batch
            if len(held) >= _HELD:
                yield _drawn(held, order)
        while held:
            yield _drawn(held, order)


def _drawn(held: list[Messages], order: random.Random) -> list[Messages]:
    """Take a batch of random chats out of `held`."""
    drawn = []
    for _ in range(min(_BATCH, len(held))):
        at = order.randrange(len(held))
        held[at], held[-1] = held[-1], held[at]
        drawn.append(held.pop())
    return drawn


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        raise DataError(f"{file} does not exist", "Build the training frame first (`build_features`).")
    try:
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)  # a page at a time
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{file} is not a readable Parquet file ({error})", "Build the frame again."
        ) from error
    if "messages" not in parquet.schema_arrow.names:
        parquet.close()
        raise DataError(f"{file} has no column `messages`", "Build the frame with build_features.")
    if parquet.metadata.num_rows == 0:
        parquet.close()
        raise DataError(f"{file} has no rows", "Use a larger data set, or other split fractions.")
    return parquet


def _batches(file: Path, parquet: Any, groups: Sequence[int]) -> Iterator[list[Messages]]:
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    for group in groups:
        row = sum(sizes[:group])
        for batch in parquet.iter_batches(_BATCH, row_groups=[group], columns=["messages"]):
            found = batch.column("messages").to_pylist()
            for messages in found:
                row += 1
                if not messages or not any(message["role"] == "assistant" for message in messages):
                    raise DataError(
                        f"row {row} of {file} has no assistant message", "Remove or complete the row."
                    )
            yield found
