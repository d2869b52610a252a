"""Endpoints: a model behind an OpenAI-compatible address. `GOLDPATH_BACKEND` says where they run."""

from __future__ import annotations

from types import ModuleType

from goldpath.core import settings
from goldpath.serving.results import Endpoint
from goldpath.serving.specs import ServeSpec


def deploy(spec: ServeSpec) -> Endpoint:
    """Serve a model under a name, and return when it has answered.

    The same model with the same settings, already up and healthy, is adopted at once. Another model replaces the
    one that is served: at the same address, without a gap, and only once the new one answers.

    On a cluster, what replaces another model needs room beside it until it answers. A deployment that fails leaves
    what was there before.

    Raises:
        ModelError: the folder is no safe, whole model; or a cluster cannot read it.
        MachineError: the port is taken; the disk is full or read-only.
        StepError: the engine did not start; the message holds its last words.
    """
    return _backend().deploy(spec)  # type: ignore[no-any-return]


def list_endpoints() -> list[Endpoint]:
    """All endpoints, by name. One that died is listed once, with status `dead` or `failed`, and cleared away."""
    return _backend().list_endpoints()  # type: ignore[no-any-return]


def get(name: str) -> Endpoint:
    """The endpoint of that name.

    Raises:
        InputError: there is none.
    """
    return _backend().get(name)  # type: ignore[no-any-return]


def stop(name: str) -> None:
    """End an endpoint and all its processes.

    Raises:
        InputError: there is none.
    """
    _backend().stop(name)


def healthy(endpoint: Endpoint) -> bool:
    """Whether the endpoint answers its health check (within 5 s)."""
    return _backend().healthy(endpoint)  # type: ignore[no-any-return]


def _backend() -> ModuleType:
    if settings.backend() == "kubernetes":
        from goldpath.serving.backends import kubernetes

        return kubernetes
    from goldpath.serving.backends import local

    return local
