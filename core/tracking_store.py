"""The embedded MLflow store: one SQLite file, made whole in a second, checked before it is used.

MLflow makes a new database by running all its migrations, each with its own sync to disk: six to nine seconds, and a
half-migrated file if it is killed. Here they run without syncs on a file beside, which is then renamed into place.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from goldpath.core import settings
from goldpath.core.errors import GoldpathError, MachineError, from_os_error
from goldpath.core.files import write_beside

LOCK_TIMEOUT_S = 30.0
"""How long to wait for another program that writes to the database."""
_SQLITE = "sqlite:///"


def database() -> Path | None:
    """The SQLite file behind `settings.tracking_uri()`; None where MLflow's store is a server."""
    uri = settings.tracking_uri()
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None


def tracking_store() -> str:
    """The URI of MLflow's store, ready for use: an embedded database is made if missing.

    Experiments that are made in it keep their artifacts under `home()/mlartifacts`.

    Raises:
        MachineError: the database is damaged, or stays locked by another program, or cannot be written.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = settings.tracking_uri()
    file = database()
    if file is None:
        return uri
    for chatty in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            if not file.exists():
                _create(file)
    except OSError as error:
        raise from_os_error(error, file) from error
    check_database(file)
    return uri


def check_database(file: Path) -> None:
    """Make sure that a database is whole and can be written to now.

    Raises:
        MachineError: it is damaged, or stays locked, or is read-only.
    """
    with database_errors(file), closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT_S)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


@contextmanager
def database_errors(file: Path) -> Iterator[None]:
    """Say what a failure of the database means and what to do about it, whoever raised it (sqlite3 or MLflow)."""
    try:
        yield
    except GoldpathError:
        raise
    except Exception as error:
        shown = explained(error, file)
        if shown is None:
            raise
        raise shown from error


def explained(error: BaseException, file: Path) -> MachineError | None:
    """The error to show for a failure of the database; None where it is something else."""
    text = str(error)
    if "is locked" in text:
        return MachineError(
            f"{file} is locked by another program",
            "End the program that holds it (`goldpath ui`, a database browser), then run it again.",
        )
    if "readonly database" in text or "unable to open database" in text:
        return MachineError(
            f"no permission to write {file}", "Set GOLDPATH_HOME to a folder that you can write to."
        )
    if "disk is full" in text or "disk I/O error" in text:
        return MachineError(
            f"the disk is full or failing: cannot write {file}",
            "Free some space (`goldpath runs clean` removes old runs) or set GOLDPATH_HOME to another disk.",
        )
    if isinstance(error, sqlite3.DatabaseError) or "malformed" in text or "not a database" in text:
        return MachineError(
            f"{file} is damaged ({text[:80]})",
            "Move it away; a new one is made by the next run (models stay under mlartifacts).",
        )
    return None


def _create(file: Path) -> None:
    """Run MLflow's migrations into a new file, without a sync for each; the rename at the end is what counts."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    with database_errors(file), write_beside(file) as fresh:

        def quick(connection: Any, _: object) -> None:
            if connection.execute("PRAGMA database_list").fetchone()[2] == str(fresh):
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA journal_mode=MEMORY")

        event.listen(Engine, "connect", quick)
        try:
            store = SqlAlchemyStore(f"{_SQLITE}{fresh}", settings.state("mlartifacts").as_uri())
            store.engine.dispose()
        finally:
            event.remove(Engine, "connect", quick)
        with fresh.open("rb") as whole:
            os.fsync(whole.fileno())
