"""Single requests, by the official client, tried again where that helps.

`ApiClient.call_api` serves native and custom kinds alike by their path. The library's own dynamic client would read
every group of the cluster first and keep a cache on disk, which a pod with a read-only root does not have.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from goldpath.core.errors import MachineError
from goldpath.core.kubernetes.client import Connection
from goldpath.core.kubernetes.errors import Answer, explain, passes
from goldpath.core.kubernetes.refs import Object
from goldpath.core.kubernetes.retry import Retry, Transient

CONNECT_S, READ_S = 10, 30
Query = Sequence[tuple[str, str]]
MERGE = "application/merge-patch+json"


class Api:
    """Requests to one API server."""

    def __init__(self, connection: Connection, retry: Retry) -> None:
        self.connection, self.retry = connection, retry
        self._answered = False

    def call(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        query: Query = (),
        body: Any = None,
        content: str = "application/json",
        limit_s: float | None = None,
    ) -> Object:
        """One request, tried again on 429, 5xx, timeouts and dropped connections.

        Args:
            method: of HTTP.
            path: from `/api` or `/apis` on.
            doing: the request in words, for errors.
            query: names and values.
            body: sent as JSON.
            content: its type.
            limit_s: seconds after which to give up; the retry's own by default.

        Raises:
            ClusterError: the server refuses it.
            MachineError: no server answers.
        """
        found = self.retry.run(
            lambda: self.once(method, path, doing, query, body, content), self._limit(limit_s)
        )
        return found if isinstance(found, dict) else {}

    def text(self, path: str, doing: str, query: Query = (), limit_s: float | None = None) -> str:
        """What a path holds as text (logs). Errors as in `call`."""

        def read() -> str:
            response = self._send("GET", path, doing, query)
            return str(self._reading(doing, lambda: response.data.decode(errors="replace")))

        return self.retry.run(read, self._limit(limit_s))

    def once(
        self,
        method: str,
        path: str,
        doing: str,
        query: Query,
        body: Any = None,
        content: str = "application/json",
    ) -> Any:
        """One try; `Transient` where another may pass."""
        response = self._send(method, path, doing, query, body, content)
        data = self._reading(doing, lambda: response.data)
        try:
            return json.loads(data) if data else {}
        except ValueError:
            raise MachineError(
                f"cannot {doing}: what answers at {self.connection.host} is no Kubernetes API server",
                "Check the address in KUBECONFIG.",
            ) from None

    def events(self, path: str, doing: str, query: Query, quiet_s: float) -> Iterator[Object]:
        """The lines of a watch until it closes; `Transient` where the connection breaks.

        Args:
            path: of the kind.
            doing: the request in words, for errors.
            query: names and values.
            quiet_s: seconds without a byte after which the connection counts as lost.
        """
        response = self._send("GET", path, doing, query, read_s=quiet_s)
        try:
            lines = iter(response)
            while line := self._reading(doing, lambda: next(lines, b"")):
                try:
                    event = json.loads(line)
                except ValueError:  # cut off in the middle
                    return
                yield event
        finally:
            response.close()
            response.release_conn()

    def _limit(self, asked: float | None) -> float | None:
        return asked if self._answered or asked is not None else self.retry.first_limit_s

    def _send(
        self,
        method: str,
        path: str,
        doing: str,
        query: Query,
        body: Any = None,
        content: str = "application/json",
        *,
        read_s: float = READ_S,
    ) -> Any:
        from kubernetes import client

        if query:
            path = f"{path}?{urllib.parse.urlencode(list(query))}"
        try:
            response = self._reading(
                doing,
                lambda: self.connection.api.call_api(
                    path,
                    method,
                    header_params={"Accept": "application/json", "Content-Type": content},
                    body=body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                    _return_http_data_only=True,
                    _request_timeout=(CONNECT_S, read_s),
                ),
            )
        except client.ApiException as error:
            raise self._refused(error, doing) from None
        self._answered = True
        return response

    def _refused(self, error: Any, doing: str) -> Exception:
        if not error.status:  # the client's word for a certificate that does not fit
            return MachineError(
                f"cannot {doing}: no secure connection to {self.connection.host} ({str(error.reason)[:160]})",
                "Check the certificate authority in KUBECONFIG.",
            )
        self._answered = True
        answer = Answer.parse(error.status, error.reason or "", error.body)
        said = explain(answer, doing, self.connection.host)
        if error.status in (408, 429) or error.status >= 500 or passes(answer):
            return Transient(said, _seconds((error.headers or {}).get("Retry-After")))
        return said

    def _reading(self, doing: str, read: Any) -> Any:
        """Do it; a connection that breaks meanwhile is `Transient`."""
        import urllib3

        try:
            return read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = str(getattr(error, "reason", "") or error)[:160]
            raise Transient(
                MachineError(
                    f"cannot {doing}: no API server answers at {self.connection.host} ({reason})",
                    "Check that the cluster runs and that this machine reaches it.",
                )
            ) from None


def _seconds(header: str | None) -> float:
    """Retry-After in seconds; its other form, a date, is not used by API servers."""
    return min(60.0, float(header)) if header and header.isdigit() else 0.0
