"""The online store: embedded documents in Feast's Milvus store on Milvus Lite, for retrieval by meaning."""

from __future__ import annotations

import hashlib
import heapq
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from goldpath.core import storage
from goldpath.core.errors import GoldpathError, InputError, StepError
from goldpath.core.files import read_json, write_json
from goldpath.core.progress import progress
from goldpath.core.spec import Result
from goldpath.feature_repo import offline, shared
from goldpath.feature_repo.embeddings import embed
from goldpath.feature_repo.repository import EMBEDDING_VIEW, EMBEDDINGS, ONLINE, REGISTRY, opened
from goldpath.feature_repo.results import Chunk

_COMPLETE = "online.json"
_KIND = "online-store"
"""Of its slot in the storage."""
_WRITE_ROWS = 1_024
_SENT_ROWS = 256
"""In one request to a feature server: about 2 MB of JSON."""
_MAX_TEXT = 16_000
"""Characters kept of a text: Milvus takes 65,535 bytes, and a character is at most 4."""


class Complete(Result):
    """Written last: the online store in this folder is whole."""

    documents: int
    files: dict[str, int]
    """Relative path to bytes; files that reading does not change."""


def complete(folder: Path) -> Complete | None:
    """What the online store in `folder` holds; None where there is none, or it is unfinished or damaged."""
    try:
        found = Complete.model_validate(read_json(folder / _COMPLETE))
    except (GoldpathError, ValidationError):
        return None
    for name, size in found.files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            return None
    return found


def build(store_folder: Path, frame: Path, moment: datetime, limit: int) -> Complete:
    """Embed up to `limit` documents of the frame and write them into the online store.

    What is left of an interrupted build is removed first; if this build fails, nothing of it stays.

    Args:
        store_folder: where registry, `embeddings.parquet` (the offline copy) and `online.db` are.
        frame: folder with the frame's files.
        moment: event_timestamp of the features: when the frame was taken.
        limit: 0 leaves the store empty.

    Raises:
        StepError: what was written cannot be found again.
        MachineError: the online store cannot be opened.
    """
    _clear(store_folder)
    try:
        count = _fill(store_folder, frame, moment, limit) if limit else 0
    except BaseException:
        _clear(store_folder)
        raise
    # Milvus Lite adds index files when it opens a store, and never touches data files that are flushed.
    kept = [store_folder / REGISTRY, *(store_folder / ONLINE).rglob("data/*")]
    files = {
        path.relative_to(store_folder).as_posix(): path.stat().st_size for path in kept if path.is_file()
    }
    done = Complete(documents=count, files=files)
    write_json(store_folder / _COMPLETE, done.model_dump())
    return done


def bring(store_folder: Path) -> str:
    """Take the online store that another pod has kept where this folder has none.

    Returns:
        URI of the whole copy in the storage; empty where there is none, or it is damaged.

    Raises:
        MachineError: the storage cannot be reached.
    """
    stored = storage.kept(_KIND, store_folder.name) or ""
    if complete(store_folder) is not None:
        return stored if stored and storage.whole(stored) else ""
    if not stored:
        return ""
    _clear(store_folder)
    try:
        storage.bring(stored, store_folder)
    except InputError:  # damaged: it is made, and kept, anew
        _clear(store_folder)
        return ""
    return stored if complete(store_folder) is not None else ""


def keep(store_folder: Path) -> str:
    """Keep a whole online store in the storage that pods share; returns its URI.

    Raises:
        MachineError: the storage cannot be reached or written.
    """
    with tempfile.TemporaryDirectory(dir=store_folder.parent) as scratch:
        # Without its offline copy, which is no smaller and serves no search.
        part = Path(scratch)
        if (store_folder / ONLINE).exists():
            shutil.copytree(store_folder / ONLINE, part / ONLINE)
        for name in (REGISTRY, _COMPLETE):
            shutil.copy2(store_folder / name, part)
        return storage.keep(_KIND, store_folder.name, part)


def _clear(folder: Path) -> None:
    (folder / _COMPLETE).unlink(missing_ok=True)
    (folder / EMBEDDINGS).unlink(missing_ok=True)
    shutil.rmtree(folder / ONLINE, ignore_errors=True)


class Embedded(Result):
    """What a slot of the reuse store holds: the embedded documents, to be written to a shared online store."""

    documents: int


def embed_documents(frame: Path, moment: datetime, limit: int, out: Path) -> Embedded:
    """Embed up to `limit` documents of the frame into `out/embeddings.parquet`."""
    count, total = 0, min(limit, _rows(frame))
    with progress("Embedding documents", total, "documents") as bar, _offline_copy(out / EMBEDDINGS) as write:
        rows = islice(_documents(frame), limit)
        while chunk := list(islice(rows, _WRITE_ROWS)):
            write(_features(chunk, embed([row["text"] for row in chunk], bar.advance), moment))
            count += len(chunk)
    return Embedded(documents=count)


def publish(folder: Path, embedded: Path) -> None:
    """Register the definitions of a build, and write its documents to the shared online store if they are not there.

    They are written in order, so the last one says whether all are there.

    Args:
        folder: of the build; its name ends the definitions' names.
        embedded: folder with `embeddings.parquet`.

    Raises:
        StepError: what was written cannot be found again.
        MachineError: the registry or the online store is away.
    """
    import pyarrow.parquet as pq

    view = EMBEDDING_VIEW + shared.suffix(folder)
    with pq.ParquetFile(embedded / EMBEDDINGS) as file, opened(folder, register=True) as store:
        groups = file.metadata.num_row_groups
        if not groups:
            return
        tail = file.read_row_group(groups - 1).slice(file.metadata.row_group(groups - 1).num_rows - 1)
        last = tail.to_pylist()[0]
        if _is_there(store, view, last):
            return
        for batch in file.iter_batches(_SENT_ROWS):
            store.write_to_online_store(view, df=batch.to_pandas())
        if not _is_there(store, view, last):
            raise StepError(
                "the online store does not find a document by its own vector", "Run the step again."
            )


def _is_there(store: Any, view: str, row: dict[str, Any]) -> bool:
    """Whether a search by a document's own vector finds it; a store that has no such view yet has nothing."""
    try:
        found = find(store, view, row["vector"], 1)
    except (RuntimeError, ValueError, KeyError):
        return False
    return bool(found) and found[0].score >= 0.99


def _fill(folder: Path, frame: Path, moment: datetime, limit: int) -> int:
    first: Any = None
    count = 0
    total = min(limit, _rows(frame))
    with ExitStack() as stack:
        bar = stack.enter_context(progress("Embedding documents", total, "documents"))
        write = stack.enter_context(_offline_copy(folder / EMBEDDINGS))
        rows = islice(_documents(frame), limit)
        while chunk := list(islice(rows, _WRITE_ROWS)):
            features = _features(chunk, embed([row["text"] for row in chunk], bar.advance), moment)
            # Open for the write alone: gRPC ends a connection that idles while the next texts are embedded.
            with opened(folder, register=not count) as store:
                store.write_to_online_store(EMBEDDING_VIEW, df=features)
            write(features)
            first = features["vector"][0] if first is None else first
            count += len(chunk)
    if count and search(folder, first, 1)[0].score < 0.99:
        raise StepError("the online store does not find a document by its own vector", "Run the step again.")
    return count


def _rows(frame: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(frame / f"{split}.parquet").num_rows for split in offline.SPLITS)


def _documents(frame: Path) -> Iterator[dict[str, str]]:
    """Documents of all splits, in the order of the SHA-256 of their ids: any first part is a fair sample."""
    streams = [_stream(frame / f"{split}.parquet") for split in offline.SPLITS]
    yield from heapq.merge(*streams, key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())


def _stream(file: Path) -> Iterator[dict[str, str]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(_WRITE_ROWS, columns=["id", "question", "answer", "source"]):
            for row in batch.to_pylist():
                text = f"{row['question']}\n{row['answer']}"[:_MAX_TEXT]
                yield {"id": row["id"], "text": text, "source": row["source"][:_MAX_TEXT]}


def _features(chunk: list[dict[str, str]], vectors: Any, moment: datetime) -> Any:
    import pandas as pd

    table = pd.DataFrame(chunk)
    table["document_id"] = table["id"]
    table["vector"] = list(vectors)
    table["event_timestamp"] = pd.Series([moment] * len(chunk), dtype="datetime64[us, UTC]")
    return table


@contextmanager
def _offline_copy(target: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = ("id", "document_id", "text", "source")
    schema = pa.schema([
        *((name, pa.string()) for name in text),
        ("vector", pa.list_(pa.float32())),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
    ])  # fmt: skip
    with pq.ParquetWriter(target, schema) as writer:
        yield lambda table: writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))


def search(folder: Path, vector: Any, k: int) -> list[Chunk]:
    """The `k` documents nearest to a unit vector of 384 numbers, most similar first."""
    with opened(folder) as store:
        return find(store, EMBEDDING_VIEW, vector, k)


def find(store: Any, view: str, vector: Any, k: int) -> list[Chunk]:
    """`search` in an open `feast.FeatureStore`."""
    found = store.retrieve_online_documents_v2(
        features=[f"{view}:{name}" for name in ("vector", "document_id", "text", "source")],
        query=[float(number) for number in vector],
        top_k=k,
        distance_metric="COSINE",  # the "distance" that Milvus hands back is the similarity
    ).to_dict()
    rows = zip(found["document_id"], found["text"], found["source"], found["distance"], strict=True)
    chunks = [
        Chunk(id=key, text=text, source=source, score=float(score)) for key, text, source, score in rows
    ]
    return sorted(chunks, key=lambda chunk: (-chunk.score, chunk.id))
