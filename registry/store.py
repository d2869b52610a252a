"""Our connection to MLflow: one writer at a time, its failures as our errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from goldpath.core import settings
from goldpath.core.errors import GoldpathError, InputError, MachineError
from goldpath.core.tracking_store import LOCK_TIMEOUT_S, database, explained, tracking_store
from goldpath.registry import place

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
KIND = "kind"
MODEL, PIPELINE = "model", "pipeline"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


def check_name(name: str) -> str:
    """The name, if the registry, file systems and endpoints can all carry it.

    Raises:
        InputError: it cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a model",
            "Use 1 to 100 letters, digits, '-', '_' and '.', with a letter or digit at both ends.",
        )
    return name


def exists() -> bool:
    """Whether anything can be registered yet; answers without importing MLflow."""
    file = database()
    return file is None or file.exists()


@contextmanager
def reading() -> Iterator[MlflowClient]:
    """A client for looking things up.

    Raises:
        MachineError: the database is damaged, locked or read-only; the server does not answer.
    """
    with _errors():
        uri = tracking_store()
        from mlflow.tracking import MlflowClient

        yield MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def writing() -> Iterator[MlflowClient]:
    """A client for changes: nobody else of ours writes meanwhile, so that look-ups stay true until the change.

    Raises:
        InputError: MLflow's store is a server, and there is no storage that it and other pods can read.
        MachineError: the database is damaged, locked or read-only; the server does not answer.
    """
    place.require()
    lock = FileLock(settings.state() / ".registry.lock")
    try:
        lock.acquire(timeout=2 * LOCK_TIMEOUT_S)
    except Timeout:
        raise MachineError(
            "another registration has held the registry for a minute", "Wait for it, or end that run."
        ) from None
    try:
        with reading() as client:
            yield client
    finally:
        lock.release()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except GoldpathError:
        raise
    except Exception as error:
        file = database()
        shown = explained(error, file) if file else None
        if shown is None and file is None:
            shown = _of_server(error)
        if shown is None:
            raise
        raise shown from error


def _of_server(error: BaseException) -> MachineError | None:
    text = str(error)
    if "Max retries exceeded" in text or "Connection refused" in text or "timed out" in text:
        return MachineError(
            f"cannot reach MLflow at {settings.tracking_uri()}", "Check MLFLOW_TRACKING_URI and the network."
        )
    if "error code 401" in text or "error code 403" in text or "PERMISSION_DENIED" in text:
        return MachineError(
            f"MLflow at {settings.tracking_uri()} refuses us",
            "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, of someone who may.",
        )
    return None


def registered(client: MlflowClient, name: str) -> Any:
    """The registered model (MLflow's entity), or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def require_kind(client: MlflowClient, name: str, kind: str, description: str) -> None:
    """Make the registered model if it is missing.

    Raises:
        InputError: the name is taken by another kind of thing.
    """
    found = registered(client, name)
    if found is None:
        client.create_registered_model(name, tags={KIND: kind}, description=description)
    elif found.tags.get(KIND) != kind:
        raise InputError(
            f"{name} is taken in the registry by a {found.tags.get(KIND, 'model that goldpath did not make')}",
            "Choose another name.",
        )


def tagged_versions(client: MlflowClient, name: str) -> list[Any]:
    """All versions of a registered model (MLflow's entities), newest first."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1_000, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: -int(version.version))
