"""Plain reads of a Kubernetes API through the official client: a path in, a status and JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from goldpath.core.errors import MachineError
from goldpath.core.kubernetes.client import find

TIMEOUT = 10
"""Seconds until a server that says nothing counts as unreachable."""
PAGE = 500
REMEDY = "Set KUBECONFIG or give --kubeconfig FILE. Without a cluster, pipelines run on this machine."
Object = dict[str, Any]


class Answer(NamedTuple):
    """What the server said."""

    status: int
    body: Object
    """Empty where the status is no success."""
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked for."""
        return 200 <= self.status < 300

    def said(self) -> str:
        """The same in words."""
        return f"the API server answers {self.status} {self.reason}".strip()


class Api:
    """A connection. No request is repeated: who looks at a cluster can look again."""

    def __init__(self, client: Any, namespace: str = "") -> None:
        self._client = client
        self.where: str = client.configuration.host
        self.namespace = namespace
        """Of the kubeconfig's context, or of the pod that this runs in; empty where neither says."""

    def ask(
        self,
        path: str,
        body: Object | None = None,
        query: list[tuple[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """GET a path, or POST a body to it.

        Raises:
            MachineError: nothing answers there, or what answers is no Kubernetes API.
        """
        import urllib3
        from kubernetes import client

        try:
            found, status, _ = self._client.call_api(
                path,
                "GET" if body is None else "POST",
                body=body,
                query_params=query or [],
                header_params={"Accept": "application/json", **(headers or {})},
                auth_settings=["BearerToken"],
                response_type="object",
                _request_timeout=TIMEOUT,
            )
        except client.ApiException as error:
            if not error.status:  # TLS that fails
                raise self._unreachable(str(error.reason)) from None
            return Answer(error.status, {}, str(error.reason))
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._unreachable(str(getattr(error, "reason", error))) from None
        if not isinstance(found, dict):
            raise MachineError(f"what answers at {self.where} is no Kubernetes API", REMEDY)
        return Answer(status, found)

    def items(self, path: str) -> tuple[Answer, list[Object]]:
        """All objects of one kind, page by page; none, with the answer that says why, where it is refused."""
        found: list[Object] = []
        token = ""
        while True:
            query = [("limit", PAGE)] + ([("continue", token)] if token else [])
            answer = self.ask(path, query=query)
            if not answer.ok:
                return answer, []
            found += answer.body.get("items") or []
            token = answer.body.get("metadata", {}).get("continue", "")
            if not token:
                return answer, found

    def _unreachable(self, reason: str) -> MachineError:
        return MachineError(
            f"no Kubernetes cluster answers at {self.where} ({reason[:120]})",
            f"Check that it runs and that this machine reaches it. {REMEDY}",
        )


def connect(kubeconfig: str = "", context: str = "") -> Api:
    """The cluster of the kubeconfig, or of the pod that this runs in. Nothing is asked yet.

    Raises:
        MachineError: no cluster is configured, or the kubeconfig cannot be used.
    """
    from kubernetes import client

    found = find(kubeconfig, context, REMEDY)
    return Api(client.ApiClient(found.configuration), found.namespace)
