"""Features: take the training frame of a data set and make its documents retrievable."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from goldpath.core import storage
from goldpath.core.digest import code_digest, digest_json, versions
from goldpath.core.errors import InputError
from goldpath.core.reuse import Reused, reuse
from goldpath.core.settings import state
from goldpath.core.spec import Result
from goldpath.feature_repo import embeddings, frame, offline, online, shared
from goldpath.feature_repo.repository import EMBEDDING_VIEW, SERVICE, locked, opened
from goldpath.feature_repo.results import Chunk, FeatureResult
from goldpath.feature_repo.specs import FeatureSpec

_WAIT_S = 120.0
_MAX_K = 1_000


class TrainingFrame(Result):
    """What a slot of the reuse store holds: the frame alone, whose files never change."""

    as_of: str
    rows: dict[str, int]
    digest: str


def build(documents: Path, documents_digest: str, spec: FeatureSpec) -> Reused[FeatureResult]:
    """Take the training frame of `documents` and fill the online store.

    Frame and online store are each reused where they stand whole; the one that is missing is built again.

    Args:
        documents: `documents.parquet` of a prepared data set.
        documents_digest: its content digest; together with `spec` it says whether work can be reused.
        spec: the moment, and bounds.

    Returns:
        The result; `path` holds `train.parquet`, `validation.parquet` and `test.parquet`.

    Raises:
        DataError: the file is missing, has wrong columns or values, or no training document was known at `as_of`.
        SpecError: the file of a shared store is missing or is none.
        MachineError: the disk is full, or the online store cannot be opened; a server of a shared store is away.
    """
    moment = spec.as_of.isoformat() if spec.as_of else None
    inputs = {
        "documents": documents_digest,
        "as_of": moment,
        "code": code_digest("feature_repo"),
        "libraries": versions("feast", "duckdb", "pyarrow"),
    }
    variant = {**inputs, "online_rows": spec.online_rows, "embedding": embeddings.made_by()}
    folder = state("features") / digest_json(variant)[:32]
    with locked(folder):
        folder.mkdir(exist_ok=True)
        taken = reuse("features", inputs, TrainingFrame, lambda slot: _take(documents, folder, spec, slot))
        if shared.file():
            filled = _publish(documents, folder, taken, spec.online_rows, variant)
            reused, count = filled.reused, filled.result.documents
            place = shared.reference(EMBEDDING_VIEW + shared.suffix(folder), count)
        else:
            stored = online.bring(folder)
            whole = online.complete(folder)
            ready = whole or _fill(documents, folder, taken, spec.online_rows)
            place = stored or (online.keep(folder) if storage.storage() else str(folder))
            reused, count = whole is not None, ready.documents
    result = FeatureResult(
        feature_service=SERVICE + shared.suffix(folder),
        as_of=taken.result.as_of,
        rows=taken.result.rows,
        digest=taken.result.digest,
        documents_digest=documents_digest,
        online_documents=count,
        embedding_model=embeddings.MODEL,
        embedding_size=embeddings.SIZE,
        online_store=place,
    )
    return Reused(result, taken.path, taken.key, taken.reused and reused, taken.stored)


def _take(documents: Path, folder: Path, spec: FeatureSpec, slot: Path) -> TrainingFrame:
    offline.write(documents, folder)
    moment = spec.as_of or offline.newest(folder)
    with opened(folder, register=True):
        pass
    with opened(
        folder
    ) as store:  # joins do not touch the online store, so nothing is held open for their time
        rows, digest = frame.take(store, folder, moment, spec.chunk_rows, slot)
    return TrainingFrame(as_of=moment.isoformat(), rows=rows, digest=digest)


def _fill(documents: Path, folder: Path, taken: Reused[TrainingFrame], limit: int) -> online.Complete:
    """The online store alone, from the frame; it is also what mends one that is gone or damaged."""
    offline.write(documents, folder)
    return online.build(folder, taken.path, datetime.fromisoformat(taken.result.as_of), limit)


def _publish(
    documents: Path, folder: Path, taken: Reused[TrainingFrame], limit: int, variant: Mapping[str, object]
) -> Reused[online.Embedded]:
    """The shared store: embedded once for all pods, and written to the online store where that lacks them."""
    offline.write(documents, folder)
    moment = datetime.fromisoformat(taken.result.as_of)
    embedded = reuse(
        "embeddings",
        variant,
        online.Embedded,
        lambda slot: online.embed_documents(taken.path, moment, limit, slot),
    )
    online.publish(folder, embedded.path)
    return embedded


def retrieve(query: str, k: int, online_store: str) -> list[Chunk]:
    """The documents nearest in meaning to `query`, most similar first.

    Works from any process: the online store is opened for the search alone, under a lock. The first call of a process
    imports Feast and loads the embedding model, which takes seconds.

    Args:
        query: a question or any text; its first 256 tokens count.
        k: at most this many, 1 to 1,000.
        online_store: `FeatureResult.online_store`.

    Returns:
        Fewer than `k` chunks where the store holds fewer; none where it was built with `online_rows` 0.

    Raises:
        InputError: an empty query, `k` out of range, no (whole) online store there.
        MachineError: another process holds it for two minutes.
    """
    if not query.strip():
        raise InputError("the query is empty", "Ask something.")
    if not 1 <= k <= _MAX_K:
        raise InputError(f"k is {k}", f"Ask for 1 to {_MAX_K:,} documents.")
    if shared.is_reference(online_store):
        view, count = shared.referred(online_store)
        if not count:
            return []
        vector = embeddings.embed([query])[0]
        with opened(state("features")) as store:
            return online.find(store, view, vector, min(k, count))
    folder = storage.here(online_store) if "://" in online_store else Path(online_store)
    if not online_store or not folder.is_dir():
        raise InputError(f"there is no online store {online_store!r}", "Run the step build_features again.")
    vector = embeddings.embed([query])[0]
    with locked(folder, _WAIT_S):
        whole = online.complete(folder)
        if whole is None:
            raise InputError(
                f"the online store {folder} is unfinished or damaged", "Run the step build_features again."
            )
        if not whole.documents:
            return []
        return online.search(folder, vector, min(k, whole.documents))
