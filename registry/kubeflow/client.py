"""The connection to Kubeflow's Model Registry, and what its failures mean.

Work is handed over whole and done again from its start where a failure may pass: all of ours finds what an earlier
try has made.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from goldpath.core.errors import GoldpathError, InputError, MachineError
from goldpath.registry.kubeflow import ADDRESS, address

T = TypeVar("T")
AUTHOR = "goldpath"
TIMEOUT_S = 30.0
"""For one request; the client's own is five minutes."""
WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""Before each further try, up to half as long again."""
_PAGE = 100


class Server:
    """What we ask of the registry.

    `model_registry.ModelRegistry` connects (token of the pod, certificates) and validates. Its `register_model` makes
    a model, a version and an artifact in three requests that cannot be taken up where they broke off, and without
    state or properties of the model; so objects are made one by one through the API client that it holds.
    """

    def __init__(self) -> None:
        registry = _import()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "User access token is missing": the server says if it wants one
            self._registry = registry(address(), author=AUTHOR, log_level=logging.CRITICAL, async_runner=_run)

    def _do(self, call: str, *arguments: Any, **options: Any) -> Any:
        return _run(getattr(self._registry._api, call)(*arguments, **options))

    def model(self, name: str) -> Any:
        """The registered model, or None."""
        return self._do("get_registered_model_by_params", name)

    def version(self, model: Any, name: str) -> Any:
        """The version of a registered model, or None."""
        return self._do("get_model_version_by_params", model.id, name)

    def versions(self, model: Any) -> list[Any]:
        """All versions, newest first."""
        found = self._pages("get_model_versions", model.id)
        return sorted(found, key=lambda one: int(one.create_time_since_epoch or 0), reverse=True)

    def artifact(self, version: Any) -> Any:
        """What a version holds, or None."""
        return next(iter(self._pages("get_model_version_artifacts", version.id)), None)

    def add_model(self, **fields: Any) -> Any:
        """Make a registered model."""
        from model_registry.types import RegisteredModel

        return self._do("upsert_registered_model", RegisteredModel(owner=AUTHOR, **fields))

    def add_version(self, model: Any, **fields: Any) -> Any:
        """Make a version; a second of the same name is a conflict."""
        from model_registry.types import ModelVersion

        return self._do("upsert_model_version", ModelVersion(author=AUTHOR, **fields), model.id)

    def add_artifact(self, version: Any, kind: str, **fields: Any) -> Any:
        """Give a version what it holds: a `ModelArtifact` or a `DocArtifact`."""
        from model_registry import types

        return self._do("upsert_model_version_artifact", getattr(types, kind)(**fields), version.id)

    def update(self, thing: Any, properties: dict[str, Any] | None = None, **fields: Any) -> Any:
        """Write changed fields; `properties` are put over those that are there."""
        more = {"custom_properties": {**(thing.custom_properties or {}), **properties}} if properties else {}
        return self._registry.update(thing.model_copy(update={**fields, **more}))

    def _pages(self, call: str, parent: str) -> list[Any]:
        from model_registry.types import ListOptions

        options = ListOptions(limit=_PAGE)
        found: list[Any] = []
        while True:
            found += self._do(call, parent, options)
            if not options.next_page_token:
                return found


def ask(work: Callable[[Server], T]) -> T:
    """Do `work` with the registry, again from its start after a failure that may pass.

    Raises:
        InputError: the address is no model registry; we may not; it refuses what we wrote.
        MachineError: the registry is away, or fails.
        GoldpathError: whatever `work` raises.
    """
    for wait in (*WAITS_S, None):
        try:
            return work(Server())
        except GoldpathError:
            raise
        except Exception as error:
            shown, passing = explained(error)
            if shown is None:
                raise
            if wait is None or not passing:
                raise shown from error
        time.sleep(wait * random.uniform(1, 1.5))  # noqa: S311  (no secret)
    raise AssertionError


def explained(error: Exception) -> tuple[GoldpathError | None, bool]:
    """What a failure means, and whether it may pass; None where it is none of the registry's."""
    import aiohttp
    from model_registry.exceptions import StoreError
    from mr_openapi.exceptions import ApiException

    where = f"the model registry at {address()}"
    if isinstance(error, ApiException):
        return _refused(error, where)
    if isinstance(error, StoreError):
        return InputError(f"{where} cannot be asked ({error})", _UNKNOWN), False
    if isinstance(error, aiohttp.ClientSSLError):
        return MachineError(
            f"{where} shows a certificate that is not trusted ({str(error)[:120]})",
            "Set SSL_CERT_FILE to the certificates of your cluster; in a pod the ConfigMap goldpath-certificates.",
        ), False
    if isinstance(error, (aiohttp.ClientError, TimeoutError, OSError)):
        return MachineError(
            f"cannot reach {where} ({type(error).__name__})",
            f"Check {ADDRESS}, that the server runs, and that a network policy lets us through.",
        ), True
    if isinstance(error, ValueError):  # of JSON and of pydantic too: a dashboard or a login page answered
        return InputError(f"what answers at {address()} is no model registry", f"Check {ADDRESS}."), False
    return None, False


_UNKNOWN = "Set KF_PIPELINES_SA_TOKEN_PATH to a file that holds a token, or run where the pod has its own."


def _refused(error: Any, where: str) -> tuple[GoldpathError, bool]:
    status = error.status or 0
    said = " ".join(str(error.body or error.reason or "").split())[:200]
    if status == 401:
        return InputError(f"{where} does not know who we are (401)", _UNKNOWN), False
    if status == 403:
        return InputError(
            f"{where} does not let us in (403)",
            "Bind the pipeline's service account to a role of the registry (`registry-user-...`), or have its "
            "namespace added to the registry's AuthorizationPolicy.",
        ), False
    if status == 404 or status < 400:  # the client gives 0 to an answer that is no JSON, a login page for one
        return InputError(
            f"what answers at {address()} is no model registry ({said})", f"Check {ADDRESS}."
        ), False
    if status == 409:
        return MachineError(f"{where} has another object in the way ({said})", "Run it again."), True
    if status == 429 or status >= 500:
        return MachineError(
            f"{where} fails ({status}: {said})", "Look at its log and its database, then run it again."
        ), True
    return InputError(
        f"{where} refuses what we wrote ({status}: {said})", "Check the name and its versions."
    ), False


def _import() -> Any:
    """The client's class. Its import gives the root logger a handler, by which every library would print."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        from model_registry import ModelRegistry
    except ImportError as error:
        raise MachineError(
            "Kubeflow's Model Registry needs the package model-registry", "Install it: `make setup`."
        ) from error
    root.handlers[:] = before
    return ModelRegistry


def _run(request: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: a notebook has an event loop that runs already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asyncio.wait_for(request, TIMEOUT_S)).result()
