"""Rows out of JSON Lines, JSON, CSV and Parquet files, one at a time, each with its place for errors."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from goldpath.core.errors import DataError
from goldpath.training.datasets.chats import CHAT_COLUMNS, LABEL_COLUMNS

Row = tuple[str, dict[str, Any]]
"""Place and columns."""
FORMATS = {
    ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".json": "json",
}  # fmt: skip
"""File suffix to format, in the order in which a folder's are looked for; all but Parquet may end with `.gz` too."""
_PIECE = 1 << 16
_BATCH_ROWS = 256
_EXPECTED = {
    "Expecting value": "expected a value",
    "Expecting ',' delimiter": "expected a comma or a closing bracket",
    "Expecting ':' delimiter": "expected a colon",
    "Expecting property name enclosed in double quotes": "expected a name in double quotes",
    "Unterminated string starting at": "expected a closing quote for the text that begins",
    "Extra data": "expected no more after the object",
    "Invalid control character at": "expected \\n, \\t or the like for a control character",
}
"""What Python's parser says, as what was expected."""


def format_of(name: str) -> str:
    """The format of a file by its name; empty if it is none of ours."""
    path = PurePosixPath(name.lower())
    found = FORMATS.get(PurePosixPath(path.stem).suffix if path.suffix == ".gz" else path.suffix, "")
    return "" if found == "parquet" and path.suffix == ".gz" else found


def read_rows(stream: BinaryIO, name: str, max_row_bytes: int) -> Iterator[Row]:
    """The rows of one file.

    At most `max_row_bytes` and a buffer are held at a time, whatever the length of a line; for Parquet, a page of
    the file.

    Args:
        stream: the file, opened for reading bytes; seekable for Parquet.
        name: its name, for the format and for errors.
        max_row_bytes: a longer row is refused.

    Raises:
        DataError: the file is damaged, is not UTF-8, or has a row that is broken or too long.
    """
    kind = format_of(name)
    if kind == "parquet":
        yield from _parquet(stream, name, max_row_bytes)
        return
    raw: Any = gzip.GzipFile(fileobj=stream) if name.lower().endswith(".gz") else stream
    buffered = io.BufferedReader(raw, _PIECE)
    read = {"jsonl": _jsonl, "json": _json, "csv": _csv}[kind]
    try:
        yield from read(buffered, name, max_row_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name} is damaged ({error})", "Compress or download it again.") from error
    finally:
        buffered.detach()


def _lines(stream: io.BufferedReader, name: str, limit: int) -> Iterator[tuple[int, str]]:
    """Numbered lines as text, never holding more than `limit` bytes of one."""
    number = 0
    while data := stream.readline(limit + 1):
        number += 1
        if len(data) > limit:
            raise DataError(
                f"{name}, line {number}: longer than {limit:,} bytes",
                "Split the row, or raise max_row_bytes (overrides) if it is right.",
            )
        yield number, _decode(data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data, name, number)


def _decode(data: bytes, name: str, line: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}, line {line}: not UTF-8, byte {error.start + 1} is 0x{data[error.start]:02x}",
            "Save the file as UTF-8.",
        ) from None


def _jsonl(stream: io.BufferedReader, name: str, limit: int) -> Iterator[Row]:
    for number, line in _lines(stream, name, limit):
        if line.strip():
            place = f"{name}, line {number}"
            yield place, _object(_parse(line, place), place)


def _parse(text: str, place: str, remedy: str = "Write one JSON object a line.") -> Any:
    text = text.rstrip("\r\n")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: {_broken(error, f'character {error.pos + 1}', 'line')}", remedy) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise DataError(f"{place}: broken JSON, {error}", remedy) from None


def _broken(error: json.JSONDecodeError, where: str, whole: str) -> str:
    """What was expected, and where (counted from 1) in the `whole` line or file."""
    if error.pos >= len(error.doc):
        where += f", where the {whole} ends"
    return f"broken JSON, {_EXPECTED.get(error.msg, error.msg.lower().removesuffix(' at'))} at {where}"


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: not a JSON object", "Write each row as an object: {...}.")
    return value


def _json(stream: io.BufferedReader, name: str, limit: int) -> Iterator[Row]:
    """A `.json` file holds one array of objects, or lines of them."""
    start = stream.peek(_PIECE)[:_PIECE].removeprefix(b"\xef\xbb\xbf").lstrip()
    yield from _array(stream, name, limit) if start.startswith(b"[") else _jsonl(stream, name, limit)


def _array(stream: io.BufferedReader, name: str, limit: int) -> Iterator[Row]:
    text = _Window(stream, name)
    text.skip("\ufeff")
    text.skip(" \t\r\n")
    text.take(1)
    number = 0
    decoder = json.JSONDecoder()
    while True:
        text.skip(" \t\r\n")
        if text.held.startswith("]"):
            text.take(1)
            text.skip(" \t\r\n")
            if text.held:
                raise DataError(
                    f"{name}, line {text.line}: broken JSON, expected no more after the array at character "
                    f"{text.column + 1}",
                    "Write one array of objects.",
                )
            return
        if number and text.held[:1] != ",":
            raise DataError(
                f"{name}, line {text.line}: broken JSON, expected a comma or a closing bracket at character "
                f"{text.column + 1}{'' if text.held else ', where the file ends'}",
                "Write an array of objects.",
            )
        if number:
            text.take(1)
            text.skip(" \t\r\n")
        number += 1
        place = f"{name}, row {number} (line {text.line})"
        yield place, _object(_element(text, decoder, place, limit), place)


def _element(text: _Window, decoder: json.JSONDecoder, place: str, limit: int) -> Any:
    want = _PIECE
    while True:
        try:
            value, end = decoder.raw_decode(text.held)
        except json.JSONDecodeError as error:
            if len(text.held) > limit:
                raise _too_long(place, limit) from None
            if not text.more(want):
                column = error.colno + (text.column if error.lineno == 1 else 0)
                where = f"line {text.line + error.lineno - 1}, character {column}"
                raise DataError(
                    f"{place}: {_broken(error, where, 'file')}", "Write an array of objects."
                ) from None
            want *= 2  # so that a long row is not decoded again for every piece of it
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: broken JSON, {error}", "Write an array of objects.") from None
        else:
            if end > limit:
                raise _too_long(place, limit)
            text.take(end)
            return value


def _too_long(place: str, limit: int) -> DataError:
    return DataError(
        f"{place}: longer than {limit:,} bytes, or broken JSON",
        "Split or correct the row, or raise max_row_bytes (overrides) if it is right.",
    )


class _Window:
    """The part of a text that is being looked at."""

    def __init__(self, stream: io.BufferedReader, name: str) -> None:
        self.stream, self.name, self.held = stream, name, ""
        self.line, self.column = 1, 0
        """Where `held` begins: the line from 1, and how many of its characters came before."""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        data = self.stream.read(min(size, 1 << 20))
        try:
            self.held += self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            line = self.line + self.held.count("\n") + error.object.count(b"\n", 0, error.start)
            start = error.start - (error.object.rfind(b"\n", 0, error.start) + 1)
            raise DataError(
                f"{self.name}, line {line}: not UTF-8, byte {start + 1} is 0x{error.object[error.start]:02x}",
                "Save the file as UTF-8.",
            ) from None
        return bool(data)

    def take(self, count: int) -> None:
        """Go past `count` characters."""
        lines = self.held.count("\n", 0, count)
        self.line += lines
        self.column = count - self.held.rindex("\n", 0, count) - 1 if lines else self.column + count
        self.held = self.held[count:]

    def skip(self, characters: str) -> None:
        """Go past any of these."""
        while True:
            kept = self.held.lstrip(characters)
            self.take(len(self.held) - len(kept))
            if self.held or not self.more(_PIECE):
                return


def _csv(stream: io.BufferedReader, name: str, limit: int) -> Iterator[Row]:
    lines = (line for _, line in _lines(stream, name, limit))
    before = csv.field_size_limit(limit)  # process-wide, so put back
    try:
        reader = csv.reader(lines, strict=True)
        header = next(reader, None)
        if header is None:
            return
        header = [column.strip() for column in header]
        if twice := {column for column in header if header.count(column) > 1}:
            raise DataError(
                f"{name}: two columns are called {min(twice)!r}", "Give each column a name of its own."
            )
        for number, cells in enumerate(reader, 1):
            if not cells:
                continue
            place = f"{name}, row {number} (line {reader.line_num})"
            if len(cells) != len(header):
                raise DataError(
                    f"{place}: {len(cells)} cells, the header has {len(header)}",
                    'Quote cells that hold commas: "a, b".',
                )
            yield place, _cells(dict(zip(header, cells, strict=True)), place)
    except csv.Error as error:
        raise DataError(
            f"{name}, line {reader.line_num}: broken CSV, {error}",
            "Close every quote, and double quotes inside a cell.",
        ) from None
    finally:
        csv.field_size_limit(before)


def _cells(row: dict[str, str], place: str) -> dict[str, Any]:
    """In CSV a list of messages stands in its cell as JSON."""
    if not row.get("messages"):
        return {name: value for name, value in row.items() if name != "messages"}
    cell = _parse(row["messages"], f"{place}, cell `messages`", "Write the list of messages as JSON.")
    return {**row, "messages": cell}


def _parquet(stream: BinaryIO, name: str, limit: int) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=_useful(file.schema_arrow.names)):
            for index in range(batch.num_rows):
                number += 1
                place = f"{name}, row {number}"
                piece = batch.slice(index, 1)
                if piece.get_total_buffer_size() > limit and piece.nbytes > limit:
                    raise DataError(
                        f"{place}: longer than {limit:,} bytes",
                        "Split the row, or raise max_row_bytes (overrides) if it is right.",
                    )
                yield place, piece.to_pylist()[0]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}, row {number}: not UTF-8, byte {error.start + 1} of a text", "Write its texts as UTF-8."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{name} is not a readable Parquet file ({' '.join(str(error).split())[:120]})",
            "Write it again, or download it again.",
        ) from error


def _useful(names: list[str]) -> list[str]:
    """The columns that a chat can use; all where none of them holds a chat, so that the error can name them."""
    chosen = [name for name in names if name in CHAT_COLUMNS or name in LABEL_COLUMNS]
    return chosen if any(name in CHAT_COLUMNS for name in chosen) else names
