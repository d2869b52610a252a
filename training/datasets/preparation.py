"""Prepare a data set: read, check, normalise, redact, deduplicate, split, write."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from goldpath.core.digest import code_digest, digest_json, versions
from goldpath.core.errors import DataError, from_os_error
from goldpath.core.progress import progress
from goldpath.core.reuse import Reused, reuse
from goldpath.core.settings import state
from goldpath.training.datasets import kube_api, pii, sources
from goldpath.training.datasets.chats import Chat, Turn
from goldpath.training.datasets.dedupe import Seen, text_key
from goldpath.training.datasets.split import SPLITS, Overlap, Splitter
from goldpath.training.datasets.text import normalise, words
from goldpath.training.datasets.writer import FILE, Writer
from goldpath.training.results import DataCard
from goldpath.training.specs import DatasetSpec

_LIBRARIES = ("datasketch", "presidio-analyzer", "pyarrow")


def prepare(spec: DatasetSpec) -> Reused[DataCard]:
    """Prepare a data set, or find it prepared: the same content, parameters and code give the same slot.

    Returns:
        The data card; `path/documents.parquet` holds the rows (see `writer.schema`).

    Raises:
        DataError: the data set is missing, empty or has a bad row; nothing is left of it then.
        MachineError: no network, or the disk is full or read-only.
    """
    with _opened(spec) as source:
        inputs = {
            "source": source.identity,
            "spec": spec.model_dump(mode="json", exclude={"source"}),
            "libraries": versions(*_LIBRARIES),
            "code": code_digest("training.datasets"),
        }
        done = reuse("dataset", inputs, DataCard, lambda folder: _build(source, spec, folder))
    # The same content may come from somewhere else this time.
    return replace(done, result=done.result.model_copy(update={"source": spec.source}))


def check(spec: DatasetSpec) -> None:
    """A fast look before a run: the data set is there, is not empty, and its first rows are good.

    Raises:
        DataError: it is not.
        MachineError: no network.
    """
    if spec.source == kube_api.URI:
        kube_api.check()
    else:
        sources.preflight(spec.source, spec.max_row_bytes, spec.max_rows)


@dataclass(frozen=True)
class _Source:
    identity: dict[str, str]
    """What its content depends on: package versions, or file names and digests."""
    chats: Callable[[], Iterator[Chat]]


@contextmanager
def _opened(spec: DatasetSpec) -> Iterator[_Source]:
    if spec.source == kube_api.URI:
        yield _Source(kube_api.versions(), kube_api.chats)
        return
    check(spec)  # before gigabytes are fetched and digested
    with _spool() as spool:
        files = sources.bring(spec.source, spool)
        yield _Source(files.digests, lambda: files.chats(spec.max_row_bytes))


@contextmanager
def _spool() -> Iterator[Path]:
    """A folder for what is fetched, under a lock as `runs clean --store` looks for it: it leaves one in use alone."""
    spool = state("spool") / uuid4().hex
    lock = FileLock(spool.parent / f".{spool.name}.lock")
    with lock:
        spool.mkdir()
        try:
            yield spool
        finally:
            shutil.rmtree(spool, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)  # nobody else will want a name that is used once


def _build(source: _Source, spec: DatasetSpec, folder: Path) -> DataCard:
    tally = _Tally()
    with _disk(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        scratch = Path(name)
        splitter = Splitter(scratch / "teams.db", spec.seed, spec.validation_fraction, spec.test_fraction)
        with closing(splitter):
            _stage(source, spec, scratch, splitter, tally)
            splitter.settle()
            with Writer(folder / FILE) as writer:
                _write(scratch, splitter, writer, tally)
            _require_splits(writer, tally)
            return DataCard(
                source=spec.source,
                rows_in=tally.rows_in,
                dropped=dict(sorted(tally.dropped.items())),
                rows_out=writer.rows,
                splits={split: writer.splits[split] for split in SPLITS},
                groups=splitter.groups(),
                pii=dict(sorted(tally.pii.items())),
                words=writer.words(),
                digest=writer.digest,
                samples=writer.samples(),
                source_digest=digest_json(source.identity),
            )


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Say what it means when our own files cannot be written."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, folder) from error
    except sqlite3.OperationalError as error:
        if "full" not in str(error) and "disk" not in str(error):
            raise
        raise from_os_error(OSError(errno.ENOSPC, str(error)), folder) from error


class _Tally:
    """Counts of a run."""

    def __init__(self) -> None:
        self.rows_in = 0
        self.staged = 0
        self.dropped: Counter[str] = Counter()
        self.pii: Counter[str] = Counter()


def _stage(source: _Source, spec: DatasetSpec, scratch: Path, splitter: Splitter, tally: _Tally) -> None:
    """First pass: clean each row, drop what is not to be kept, and put the rest in a file."""
    seen = Seen(scratch / "seen.db", spec.near_duplicate_threshold)
    with (
        closing(seen),
        (scratch / "staged.jsonl").open("w", encoding="utf-8") as file,
        progress("Cleaning rows", unit="rows") as bar,
    ):
        for raw in islice(source.chats(), spec.max_rows):
            tally.rows_in += 1
            bar.advance(1)
            chat = _clean(raw, spec, tally)
            if chat is None:
                continue
            key = text_key(chat)
            reason = seen.duplicate(chat, key)
            if reason:
                tally.dropped[reason] += 1
                continue
            row = _row(chat, key)
            splitter.add(row["group"])
            file.write(json.dumps([row, chat.core]) + "\n")
            tally.staged += 1
    if tally.rows_in == 0:
        raise sources.empty(spec.source)
    if tally.staged == 0:
        raise DataError(
            f"no row of {spec.source} is left after cleaning ({_reasons(tally)})",
            "Lower min_answer_words or raise max_words (overrides), or give other rows.",
        )


def _clean(chat: Chat, spec: DatasetSpec, tally: _Tally) -> Chat | None:
    """Normal form, length filter, redaction; None where the row is dropped."""
    turns = [Turn(turn.role, normalise(turn.content)) for turn in chat.turns]
    total = sum(len(words(turn.content)) for turn in turns)
    if total > spec.max_words or len(words(turns[-1].content)) < spec.min_answer_words:
        tally.dropped["too_long" if total > spec.max_words else "too_short"] += 1
        return None
    if spec.redact_pii:
        for index, turn in enumerate(turns):
            text, counts = pii.redact(turn.content)
            turns[index] = Turn(turn.role, text)
            tally.pii += counts
    return replace(chat, turns=tuple(turns))


def _row(chat: Chat, key: bytes) -> dict[str, Any]:
    name = chat.id or key.hex()
    return {
        "id": name,
        "group": chat.group or name,
        "question": chat.question,
        "answer": chat.answer,
        "messages": [{"role": turn.role, "content": turn.content} for turn in chat.turns],
        "source": chat.source,
        "event_timestamp": chat.timestamp.isoformat(),
    }


def _write(scratch: Path, splitter: Splitter, writer: Writer, tally: _Tally) -> None:
    """Second and third pass: learn what the test split says, then write all rows but those that say it too."""
    with closing(Overlap(scratch / "runs.db")) as overlap:
        with progress("Learning the test split", tally.staged, "rows") as bar:
            for row, core in _staged(scratch):
                bar.advance(1)
                if splitter.of(row["group"]) == "test":
                    overlap.add(core or row["answer"])
        with progress("Writing rows", tally.staged, "rows") as bar:
            for row, core in _staged(scratch):
                bar.advance(1)
                split = splitter.of(row["group"])
                if split != "test" and overlap.contaminated(core or row["answer"]):
                    tally.dropped["contaminated"] += 1
                    continue
                row["split"] = split
                row["event_timestamp"] = datetime.fromisoformat(row["event_timestamp"])
                writer.write(row, sum(len(words(message["content"])) for message in row["messages"]))
                splitter.wrote(row["group"])


def _staged(scratch: Path) -> Iterator[tuple[dict[str, Any], str]]:
    with (scratch / "staged.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row, core = json.loads(line)
            yield row, core


def _require_splits(writer: Writer, tally: _Tally) -> None:
    missing = [split for split in SPLITS if not writer.splits[split]]
    if missing:
        raise DataError(
            f"no row is left for {' and '.join(missing)} ({_reasons(tally)})",
            "The rows repeat each other across groups: put rows that belong together in one `group`.",
        )


def _reasons(tally: _Tally) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(tally.dropped.items())) or "none dropped"
