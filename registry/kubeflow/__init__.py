"""Kubeflow's Model Registry in place of MLflow's: `GOLDPATH_MODEL_REGISTRY` names its server.

::

    registered model  NAME, owner goldpath         kind, champion = the version that is served
    version           12 digits of the content     lineage, metric.*, parameter.*, status, last_verdict, bytes;
                                                   LIVE, or ARCHIVED where it was rejected
    model artifact    NAME                         uri in the storage, the run that made it

A version's name comes from its content, so two pods that register the same model meet in one version. The champion is
one property of the registered model: one write moves it, and there are never two. A person takes its standing away by
archiving the version.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from goldpath.core.errors import SpecError

ADDRESS = "GOLDPATH_MODEL_REGISTRY"


def address() -> str:
    """The registry's server; empty where MLflow registers.

    Raises:
        SpecError: it is no address.
    """
    given = os.environ.get(ADDRESS, "").strip().rstrip("/")
    if not given:
        return ""
    try:
        parts = urlsplit(given)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.path or parts.query)
        whole = whole and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole:
        raise SpecError(
            f"{ADDRESS} is {given!r}",
            "Give http://HOST:PORT or https://HOST (in a cluster often "
            "http://model-registry-service.kubeflow.svc:8080).",
        )
    return given
