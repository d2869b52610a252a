"""The serving steps ask for no more than `deploy/base` grants."""

from __future__ import annotations

import pytest

from goldpath.core.checks.needs import CLUSTER_WIDE, NAMESPACED
from goldpath.core.errors import StepError
from goldpath.serving import endpoints, model_cache
from goldpath.serving.specs import CacheSpec
from tests.kube import Server
from tests.serving.cluster.conftest import Keep
from tests.serving.cluster.played import KServe
from tests.serving.cluster.test_cluster_endpoints import spec

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def asked(server: Server) -> set[tuple[str, str]]:
    """Plural and verb of each request for objects; discovery is everybody's."""
    found = set()
    for method, path, _ in server.requests:
        pieces = path.partition("?")[0].strip("/").split("/")
        pieces = pieces[2:] if pieces[0] == "api" else pieces[3:]
        if pieces[:1] == ["namespaces"]:
            pieces = pieces[2:]
        if pieces:
            verb = VERBS.get(method) or ("get" if len(pieces) > 1 else "list")
            found.add(("/".join([pieces[0], *pieces[2:]]), verb))
    return found


def test_the_role_of_the_pipelines_is_enough(server: Server, kserve: KServe, keep: Keep) -> None:
    old, new = keep("old"), keep("new")
    model_cache.warm(CacheSpec.from_form(uri=old[0], model_digest=old[1], overrides={}))
    scaled = {"cluster": {"max_replicas": 2}}
    endpoints.deploy(spec(old, scaled))
    endpoints.deploy(spec(new, scaled))
    kserve.starts = "load"
    endpoints.stop("bot")
    with pytest.raises(StepError, match="no such layer"):
        endpoints.deploy(spec(old, scaled))
    granted = {(use.plural, verb) for use in (*NAMESPACED, *CLUSTER_WIDE) for verb in use.verbs}
    needed = asked(server)
    assert {("inferenceservices", "update"), ("localmodelnamespacecaches", "create")} <= needed
    assert needed <= granted
