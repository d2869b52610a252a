"""The training frame: documents as they were known at one moment, joined by Feast, written by split."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from goldpath.core.digest import digest_json
from goldpath.core.errors import DataError
from goldpath.core.progress import Bar, progress
from goldpath.feature_repo import offline, shared
from goldpath.feature_repo.repository import SERVICE, bounded_joins

GROUP_ROWS = 2_000
"""Rows of a Parquet row group. Training draws whole groups, so that the order of its chats depends on their size: it is
the same whatever `chunk_rows`, and the frame's digest covers it."""
COLUMNS = ("id", "question", "answer", "messages", "source")


def schema() -> Any:
    """Arrow schema of the frame's files."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {name: pa.string() for name in COLUMNS} | {"messages": pa.list_(message)}
    return pa.schema(list(kinds.items()))


def take(
    store: Any, folder: Path, moment: datetime, chunk_rows: int, out: Path
) -> tuple[dict[str, int], str]:
    """Write `out/{train,validation,test}.parquet` as of `moment`.

    Each document comes in its newest version whose event_timestamp is not after `moment`; a document without one is
    left out. The rows of each file are in the order of the SHA-256 of their ids.

    Args:
        store: a `feast.FeatureStore` whose registry knows the service.
        folder: holds the offline file.
        moment: UTC.
        chunk_rows: documents joined at a time; memory grows with this, not with the data.
        out: where the files go.

    Returns:
        Rows by split, and the SHA-256 over the rows of each split in order and the layout of the files.

    Raises:
        DataError: no training document was known at that moment.
    """
    rows = dict.fromkeys(offline.SPLITS, 0)
    digests = {split: hashlib.sha256() for split in rows}
    with ExitStack() as stack:
        service = store.get_feature_service(SERVICE + shared.suffix(folder))
        stack.enter_context(bounded_joins(folder))
        files = {split: stack.enter_context(_SplitFile(out / f"{split}.parquet")) for split in rows}
        bar = stack.enter_context(
            progress("Taking the training frame", offline.count_ids(folder), "documents")
        )
        for ids in offline.ids(folder, chunk_rows):
            for row_split, table in _parts(_joined(store, service, ids, moment)):
                for row in table.to_pylist():
                    digests[row_split].update(json.dumps(row, sort_keys=True).encode())
                files[row_split].write(table)
                rows[row_split] += table.num_rows
            _advance(bar, len(ids), rows)
    if not rows["train"]:
        raise DataError(
            f"no training document was known as of {moment.isoformat()} (rows by split: {rows})",
            "Choose a later as_of, or leave it out for the newest version of each document.",
        )
    layout = {"group_rows": GROUP_ROWS}
    return rows, digest_json({split: digests[split].hexdigest() for split in rows} | layout)


class _SplitFile:
    """One split's Parquet file, in row groups of `GROUP_ROWS`."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(path, schema(), compression="zstd")
        self._held = schema().empty_table()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._writer:
            if kind is None and self._held.num_rows:
                self._writer.write_table(self._held)

    def write(self, table: Any) -> None:
        """Append rows; those that fill no whole group wait for the next ones, or the end."""
        import pyarrow as pa

        held = pa.concat_tables([self._held, table]).combine_chunks()
        while held.num_rows >= GROUP_ROWS:
            self._writer.write_table(held.slice(0, GROUP_ROWS))
            held = held.slice(GROUP_ROWS)
        self._held = held


def questions(file: Path, count: int, longest: int = 200) -> list[str]:
    """The first questions of a split that are short enough to be typed by a person, else its shortest one.

    Args:
        file: a split's Parquet file.
        count: at most this many.
        longest: characters.

    Returns:
        An empty list where the split has no rows.
    """
    import pyarrow.parquet as pq

    found: list[str] = []
    shortest = ""
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(512, columns=["question"]):
            asked = [text for text in batch.column("question").to_pylist() if text]
            shortest = min([*asked, *([shortest] if shortest else [])], key=len, default="")
            found += [text for text in asked if len(text) <= longest]
            if len(found) >= count:
                return found[:count]
    return found or ([shortest] if shortest else [])


def _joined(store: Any, service: Any, ids: list[str], moment: datetime) -> Any:
    """Feast's point-in-time join for these ids, in their order, without the documents not yet known."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    when = pd.Series([moment] * len(ids), dtype="datetime64[us, UTC]")
    entities = pd.DataFrame({"id": ids, "event_timestamp": when})
    table = store.get_historical_features(entity_df=entities, features=service).to_arrow()
    table = table.filter(pc.is_valid(table["split"]))
    return table.take(pc.sort_indices(pc.index_in(table["id"], pa.array(ids))))


def _parts(table: Any) -> list[tuple[str, Any]]:
    """The chunk's rows by split, with the frame's columns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = schema()
    parts = []
    for split in offline.SPLITS:
        some = table.filter(pc.equal(table["split"], split))
        columns = {name: some[name].cast(pa.string()) for name in COLUMNS if name != "messages"}
        chats = [
            [{"role": message["role"], "content": message["content"]} for message in json.loads(text)]
            for text in some["messages"].to_pylist()
        ]
        columns["messages"] = pa.array(chats, kinds.field("messages").type)
        if some.num_rows:
            parts.append((split, pa.table([columns[name] for name in COLUMNS], schema=kinds)))
    return parts


def _advance(bar: Bar, amount: int, rows: dict[str, int]) -> None:
    bar.advance(amount, train=str(rows["train"]), test=str(rows["test"]))
