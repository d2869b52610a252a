"""The files of a data set, wherever they are."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from goldpath.core.digest import digest_file
from goldpath.core.errors import DataError
from goldpath.core.fetch import fetch
from goldpath.core.sources import Source, SourceFile, explain, open_source
from goldpath.training.datasets.chats import Chat, from_row
from goldpath.training.datasets.readers import FORMATS, format_of, read_rows

_PREFLIGHT_ROWS = 20
_SUPPORTED = (
    "Give a .jsonl, .ndjson, .json, .csv or .parquet file, a folder of them, or a pattern (data/*.jsonl)."
)
_BLOCK = 1 << 20


@dataclass(frozen=True)
class LocalFiles:
    """The files of a data set on this machine, in order, by their names within it."""

    paths: dict[str, Path]
    digests: dict[str, str]

    def chats(self, max_row_bytes: int) -> Iterator[Chat]:
        """Every row.

        Raises:
            DataError: a row or a file is bad.
        """
        for name, path in self.paths.items():
            try:
                with path.open("rb") as stream:
                    for place, row in read_rows(stream, name, max_row_bytes):
                        yield from_row(row, place)
            except OSError as error:
                raise _unreadable(error, str(path)) from error


def bring(source: str, spool: Path) -> LocalFiles:
    """Find the files of `source`, copy them to `spool` if they are on another machine, and digest their content.

    Raises:
        DataError: nothing is there, it is empty, or holds no file of a format that we read.
        MachineError: no network; the disk is full.
    """
    base, pattern = _split_pattern(source)
    found = open_source(base, DataError)
    chosen = _choose(found, source, pattern)
    names = [file.name for file in chosen]
    if _is_local(found):
        paths = {file.name: Path(file.path) for file in chosen}
        try:
            return LocalFiles(paths, {name: digest_file(path) for name, path in paths.items()})
        except OSError as error:
            raise _unreadable(error, source) from error
    copied = fetch(base, spool, label="Fetching data", select=lambda _: names, error=DataError)
    return LocalFiles({name: spool / name for name in names}, copied)


def preflight(source: str, max_row_bytes: int, max_rows: int | None = None) -> None:
    """Read the first rows of the first file, wherever it is.

    Raises:
        DataError: nothing is there, it is empty, or one of these rows is bad.
        MachineError: no network.
    """
    base, pattern = _split_pattern(source)
    found = open_source(base, DataError)
    files = _choose(found, source, pattern)
    rows, enough = 0, min(_PREFLIGHT_ROWS, max_rows or _PREFLIGHT_ROWS)
    for file in files:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(_open(found, file))
            except Exception as failure:
                raise found.explain(failure, file.name) from failure
            for place, row in read_rows(stream, file.name, max_row_bytes):
                from_row(row, place)
                rows += 1
                if rows == enough:
                    return
        if rows:
            return
    raise empty(source)


def empty(source: str) -> DataError:
    """The error for a data set without a row."""
    return DataError(f"{source} is empty", "Give it at least one row.")


def _open(found: Source, file: SourceFile) -> BinaryIO:
    if _is_local(found):
        return Path(file.path).open("rb")
    return cast(BinaryIO, io.BufferedReader(found.open(file, _BLOCK), _BLOCK))


def _unreadable(error: OSError, source: str) -> Exception:
    return explain(error, str(error.filename or source), DataError)


def _is_local(found: Source) -> bool:
    protocol = found.fs.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else tuple(protocol))


def _split_pattern(source: str) -> tuple[str, str]:
    """The folder above the first wildcard, and the pattern below it; no pattern for a file or a folder."""
    if not any(mark in source for mark in "*?["):
        return source, ""
    scheme, found, rest = source.rpartition("://")
    parts = rest.split("/")
    first = next(index for index, part in enumerate(parts) if any(mark in part for mark in "*?["))
    base = "/".join(parts[:first]) or ("/" if rest.startswith("/") else ".")
    return f"{scheme}{found}{base}", "/".join(parts[first:])


def _choose(found: Source, source: str, pattern: str) -> list[SourceFile]:
    """The files to read: all of one format, in the order of their names."""
    if not found.files:
        raise empty(source)
    visible = [
        file
        for file in found.files
        if not any(part.startswith((".", "_")) for part in PurePosixPath(file.name).parts[:-1])
        and (not pattern or fnmatch.fnmatchcase(file.name, pattern))
    ]
    if not visible:
        raise DataError(f"no file matches {source}", "Check the pattern.")
    for kind in dict.fromkeys(FORMATS.values()):
        matching = [file for file in visible if format_of(file.name) == kind]
        filled = [file for file in matching if file.size != 0]
        if matching and not filled:
            raise empty(source)
        if filled:
            return filled
    names = ", ".join(file.name for file in visible[:3])
    raise DataError(f"{source} has no data file that can be read (found {names})", _SUPPORTED)
