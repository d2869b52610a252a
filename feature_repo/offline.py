"""The offline store: the documents, checked, as a file that Feast's views read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from goldpath.core.errors import DataError
from goldpath.core.files import write_beside
from goldpath.feature_repo.repository import DOCUMENTS, bounded, duckdb_errors

SPLITS = ("train", "validation", "test")
_TEXT = ("id", "group", "split", "question", "answer", "source")
_REMEDY = "Prepare the data again with the step prepare_data, which writes documents.parquet."


def check(documents: Path) -> None:
    """See that `documents` is a Parquet file with the columns and types of documents.parquet, and has rows.

    Raises:
        DataError: missing, not Parquet, empty, or which columns are wrong.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not documents.is_file():
        raise DataError(f"there is no documents file {documents}", _REMEDY)
    try:
        with pq.ParquetFile(documents) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except pa.ArrowInvalid as error:
        raise DataError(f"{documents} is not a Parquet file ({error})", _REMEDY) from None
    wrong = [
        f"{name} is missing" for name in (*_TEXT, "messages", "event_timestamp") if name not in schema.names
    ]
    for name in schema.names:
        kind = schema.field(name).type
        if name in _TEXT and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            wrong.append(f"{name} is {kind}, not string")
        elif name == "messages" and not _is_chat(kind):
            wrong.append(f"messages is {kind}, not list<struct<role: string, content: string>>")
        elif name == "event_timestamp" and not pa.types.is_timestamp(kind):
            wrong.append(f"event_timestamp is {kind}, not a timestamp")
    if wrong:
        raise DataError(f"{documents} has the wrong columns: {'; '.join(wrong)}", _REMEDY)
    if rows == 0:
        raise DataError(f"{documents} has no rows", _REMEDY)


def _is_chat(kind: Any) -> bool:
    import pyarrow as pa

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(
        kind.value_type
    ):
        return False
    return {"role", "content"} <= {kind.value_type.field(i).name for i in range(kind.value_type.num_fields)}


@contextmanager
def _connected(folder: Path, documents: Path) -> Iterator[Any]:
    """A DuckDB connection, bounded in memory, with the view `documents`."""
    import duckdb

    with bounded(folder) as options, duckdb_errors():
        connection = duckdb.connect(config={**options, "preserve_insertion_order": False})
        try:
            connection.execute("SET TimeZone = 'UTC'")  # what a timestamp without a zone means
            connection.read_parquet(str(documents)).create_view("documents")
            yield connection
        finally:
            connection.close()


def write(documents: Path, folder: Path) -> Path:
    """Write the offline file `folder/documents.parquet`: the same rows, messages as JSON, timestamps in UTC.

    Raises:
        DataError: see `check`; a split other than train, validation and test; an empty value; two rows with the same
            id and event_timestamp, of which neither is the later version.
    """
    target = folder / DOCUMENTS
    if target.exists():
        return target
    check(documents)
    with _connected(folder, documents) as connection:
        _refuse(connection, documents)
        with write_beside(target) as fresh:
            connection.sql(
                'SELECT id, "group", split, question, answer, to_json(messages)::VARCHAR AS messages, source, '
                "event_timestamp::TIMESTAMPTZ AS event_timestamp FROM documents"
            ).write_parquet(str(fresh), compression="zstd")
    return target


def _refuse(connection: Any, documents: Path) -> None:
    def first(query: str) -> Any:
        return next(iter(connection.execute(query).fetchall()), None)

    gap = first(
        'SELECT count(*) FROM documents WHERE id IS NULL OR "group" IS NULL OR split IS NULL OR question IS NULL '
        "OR answer IS NULL OR messages IS NULL OR source IS NULL OR event_timestamp IS NULL"
    )
    other = first("SELECT split FROM documents WHERE split NOT IN ('train', 'validation', 'test') LIMIT 1")
    twin = first(
        "SELECT id, count(*), event_timestamp::VARCHAR FROM documents GROUP BY id, event_timestamp "
        "HAVING count(*) > 1 ORDER BY id LIMIT 1"
    )
    if gap[0]:
        raise DataError(f"{documents} has {gap[0]} rows with an empty value", _REMEDY)
    if other:
        raise DataError(f"{documents} has the split {other[0]!r}", f"Use one of: {', '.join(SPLITS)}.")
    if twin:
        raise DataError(
            f"{documents} has the document {twin[0]!r} {twin[1]} times at {twin[2]}",
            "Keep one version of a document for each event_timestamp.",
        )


def newest(folder: Path) -> datetime:
    """The latest event_timestamp of all documents, UTC."""
    # Microseconds, because DuckDB's client needs another package for a timestamp with a zone.
    micros = _figure(folder, "SELECT epoch_us(max(event_timestamp)) FROM documents")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def count_ids(folder: Path) -> int:
    """Distinct documents, all versions of one counting once."""
    return _figure(folder, "SELECT count(DISTINCT id) FROM documents")


def _figure(folder: Path, query: str) -> int:
    with _connected(folder, folder / DOCUMENTS) as connection:
        return int(connection.execute(query).fetchall()[0][0])


def ids(folder: Path, chunk_rows: int) -> Iterator[list[str]]:
    """The distinct ids, `chunk_rows` at a time, in the order of their SHA-256.

    That order depends on nothing but the ids, and any stretch of it is a fair sample of the documents.
    """
    with _connected(folder, folder / DOCUMENTS) as connection:
        found = connection.execute(
            "SELECT id FROM (SELECT DISTINCT id FROM documents) ORDER BY sha256(id), id"
        )
        while chunk := found.fetchmany(chunk_rows):
            yield [row[0] for row in chunk]
