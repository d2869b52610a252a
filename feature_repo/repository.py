"""Feast opened over a folder of our state, without its noise."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from goldpath.core.errors import MachineError
from goldpath.feature_repo import shared

SERVICE = "finetune"
EMBEDDING_VIEW = "document_embedding"
REGISTRY = "registry.db"
ONLINE = "online.db"
DOCUMENTS = "documents.parquet"
EMBEDDINGS = "embeddings.parquet"
MEMORY_LIMIT = "1GB"
"""What DuckDB may take for a join before it spills to disk."""

_NOISY = ("feast", "faiss", "milvus_lite", "pymilvus", "grpc._server")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and log lines of Feast, Milvus Lite and gRPC that no user can act on."""
    # gRPC would send even a loopback connection through the proxy of the environment.
    os.environ.setdefault("no_grpc_proxy", "127.0.0.1,localhost")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import feast  # noqa: F401  (its import asks for every DeprecationWarning again)

            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def settings(folder: Path) -> Any:
    """Feast's `RepoConfig`: `feature_store.yaml` with registry and online store in `folder`, or the shared ones.

    Raises:
        SpecError: the file of the shared store is missing or is none.
    """
    import yaml
    from feast.repo_config import RepoConfig

    values = yaml.safe_load((Path(__file__).parent / "feature_store.yaml").read_text(encoding="utf-8"))
    if source := shared.file():
        theirs = {**shared.values(source), "offline_store": values["offline_store"]}
        return RepoConfig(**{"provider": values["provider"], **theirs}, repo_path=folder)
    values["registry"] = str(folder / REGISTRY)
    values["online_store"]["path"] = str(folder / ONLINE)
    return RepoConfig(**values, repo_path=folder)


@contextlib.contextmanager
def opened(folder: Path, *, register: bool = False) -> Iterator[Any]:
    """A `feast.FeatureStore` over `folder`; at the end the embedded online store is flushed and released.

    Milvus Lite serves one process at a time, so callers hold `locked(folder)` and keep it open only while they use
    it: opening is quick.

    Args:
        folder: where registry, sources and online store are.
        register: start with a new registry that holds entity, sources, views and service; a shared one gets them.

    Raises:
        MachineError: the online store cannot be opened; a server of the shared store is away.
        SpecError: the file of the shared store is missing or is none.
    """
    if shared.file():
        with quiet(), shared.errors():
            from feast import FeatureStore

            store = FeatureStore(config=settings(folder))
            if register:
                _register(folder, store)
            yield store
        return
    with quiet():
        from feast import FeatureStore
        from milvus_lite.server_manager import server_manager_instance
        from pymilvus.exceptions import MilvusException

        if register:
            (folder / REGISTRY).unlink(missing_ok=True)
        store = FeatureStore(config=settings(folder))
        try:
            if register:
                _register(folder, store)
            yield store
        except MilvusException as error:
            raise MachineError(
                f"the online store {folder / ONLINE} cannot be used: {error}",
                "Stop other programs that have it open; if it is damaged, delete its folder and run it again.",
            ) from error
        finally:
            client = store.provider.online_store.client
            if client is not None:
                client.close()
            server_manager_instance.release_server(str(folder / ONLINE))


def _register(folder: Path, store: Any) -> None:
    from goldpath.feature_repo.features import define

    with contextlib.redirect_stdout(io.StringIO()):
        store.apply(list(define(folder, shared.suffix(folder))))


@contextlib.contextmanager
def locked(folder: Path, timeout_s: float = -1) -> Iterator[None]:
    """Hold the folder for this process and thread; -1 waits for ever.

    Raises:
        MachineError: it stayed taken for `timeout_s` seconds.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        # A search is short: asking often lets processes that search at once take turns.
        lock.acquire(timeout=timeout_s, poll_interval=0.01)
    except Timeout:
        raise MachineError(
            f"the feature store {folder} is in use by another process",
            "Wait until that run is done, then try again.",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def bounded(folder: Path) -> Iterator[dict[str, Any]]:
    """Settings that keep a DuckDB connection within `MEMORY_LIMIT`, spilling into a scratch folder in `folder`."""
    with tempfile.TemporaryDirectory(prefix=".spill.", dir=folder, ignore_cleanup_errors=True) as spill:
        yield {"memory_limit": MEMORY_LIMIT, "temp_directory": spill, "threads": min(4, os.cpu_count() or 1)}


@contextlib.contextmanager
def duckdb_errors() -> Iterator[None]:
    """Say what DuckDB's errors mean."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise MachineError(
            f"the documents do not fit a join in {MEMORY_LIMIT} of memory",
            "Lower chunk_rows and run it again.",
        ) from error
    except duckdb.IOException as error:
        raise MachineError(
            f"DuckDB could not read or write: {error}",
            "Check the disk's space and the path, then run it again.",
        ) from error


@contextlib.contextmanager
def bounded_joins(folder: Path) -> Iterator[None]:
    """Run Feast's DuckDB joins on a connection of ours, with bounded memory, and put things back after it."""
    import ibis

    before = ibis.options.default_backend
    with bounded(folder) as options, duckdb_errors():
        connection = ibis.duckdb.connect(**options)
        ibis.set_backend(connection)
        try:
            yield
        finally:
            ibis.options.default_backend = before
            connection.disconnect()
