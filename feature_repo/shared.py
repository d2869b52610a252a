"""A feature store that pods share: `GOLDPATH_FEATURE_STORE` names a `feature_store.yaml`, as Feast's users know it.

The name is a path, or a URI that every pod reads (`s3://bucket/feature_store.yaml`). In a cluster it is the file that
Feast's operator keeps for clients (the ConfigMap `feast-NAME-client`): project, remote registry, remote online store,
authentication. Ours alone is the offline store: the training frame is joined by DuckDB in the step itself, from the
documents that the pipeline has prepared.

A shared registry holds many data sets, so sources, views and service carry 12 digits of what they were made from:
`document_embedding_0f3c...`. Nothing that another run registers or writes changes what this one sees.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from goldpath.core import storage
from goldpath.core.errors import GoldpathError, InputError, MachineError, SpecError, from_os_error

FEATURE_STORE = "GOLDPATH_FEATURE_STORE"
_DIGITS = 12
_SCHEME = "feast"


def file() -> str:
    """Absolute path or URI of the shared store's `feature_store.yaml`; empty where everything is embedded."""
    given = os.environ.get(FEATURE_STORE, "").strip()
    return given if not given or "://" in given else str(Path(given).expanduser().absolute())


def suffix(folder: Path) -> str:
    """What the names of a build's definitions end with; nothing where the registry is its own."""
    return f"_{folder.name[:_DIGITS]}" if file() else ""


def values(source: str) -> dict[str, Any]:
    """The settings in the file, environment variables put in as Feast does.

    Raises:
        SpecError: there is no such file, or it is none of Feast's.
        InputError: it may not be read.
        MachineError: it cannot be read.
    """
    import yaml

    remedy = f"Set {FEATURE_STORE} to a feature_store.yaml with a registry and an online store."
    content = _content(source)
    if content is None:
        raise SpecError(f"{FEATURE_STORE} is {source}, and there is no such file", remedy)
    try:
        found = yaml.safe_load(os.path.expandvars(content.decode("utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{source} is not YAML ({str(error)[:120]})", remedy) from None
    lacking = [key for key in ("project", "registry", "online_store") if not (found or {}).get(key)]
    if not isinstance(found, dict) or lacking:
        raise SpecError(f"{source} has no {' and no '.join(lacking) or 'settings'}", remedy)
    return found


def _content(source: str) -> bytes | None:
    if "://" in source:
        return storage.read(source)
    try:
        return Path(source).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os_error(error, source) from error


def reference(view: str, documents: int) -> str:
    """How a step names the online documents of a build to the next: `feast:VIEW?documents=N`."""
    return f"{_SCHEME}:{view}?documents={documents}"


def is_reference(online_store: str) -> bool:
    """Whether `reference` made it."""
    return online_store.startswith(f"{_SCHEME}:")


def referred(online_store: str) -> tuple[str, int]:
    """View and number of documents behind a reference.

    Raises:
        InputError: no shared store is set here.
    """
    if not file():
        raise InputError(
            f"{online_store} lies in a shared feature store, and {FEATURE_STORE} is not set",
            "Set it to the feature_store.yaml that build_features had.",
        )
    parts = urlsplit(online_store)
    return parts.path, int(parse_qs(parts.query).get("documents", ["0"])[0])


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Say what failures of the servers mean.

    Raises:
        MachineError: a server is away or fails.
        InputError: it refuses us; what is asked for is not there.
    """
    try:
        yield
    except GoldpathError:
        raise
    except Exception as error:
        shown = _explained(error)
        if shown is None:
            raise
        raise shown from error


def _explained(error: Exception) -> GoldpathError | None:
    import requests
    from feast.errors import FeastObjectNotFoundException, FeastPermissionError
    from feast.repo_config import FeastConfigError
    from pydantic import ValidationError

    said = " ".join(str(error).split())[:200]
    shown: GoldpathError | None = _of_registry(error)
    if isinstance(error, FeastPermissionError):
        shown = InputError(f"Feast does not let us in ({said})", _AUTH)
    elif isinstance(error, requests.ConnectionError | requests.Timeout):
        shown = MachineError(
            "cannot reach Feast's online store", f"Check `online_store.path` in {file()}{_AND}"
        )
    elif isinstance(error, FeastObjectNotFoundException):
        shown = InputError(
            f"Feast's registry does not know it ({said})", "Run the step build_features again."
        )
    elif isinstance(error, FeastConfigError | ValidationError):
        shown = SpecError(
            f"{file()} is no feature_store.yaml ({said})", "Compare it with Feast's documentation."
        )
    elif isinstance(error, requests.HTTPError) or "feature server API" in said:
        shown = MachineError(
            f"Feast's online store fails ({said})", "Look at the feature server's log, then run it again."
        )
    return shown


def _of_registry(error: Exception) -> GoldpathError | None:
    import grpc

    if not isinstance(error, grpc.RpcError):
        return None
    code = error.code().name
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return InputError(f"Feast's registry does not let us in ({code})", _AUTH)
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return MachineError("cannot reach Feast's registry", f"Check `registry.path` in {file()}{_AND}")
    return MachineError(f"Feast's registry fails ({code})", "Look at its log, then run it again.")


_AND = ", that the server runs, and that a network policy lets us through."
_AUTH = f"Give the pipeline's service account a Feast permission, and `auth` to the file of {FEATURE_STORE}."
