"""A trial's measures on their way to Katib: printed for its StdOut collector, or pushed to its DB manager.

The message is small and its encoding by hand is shorter than generated code: Katib's own client asks for a protobuf
that cannot live beside kfp's.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from goldpath.core.errors import SpecError, StepError
from goldpath.training.launch import KATIB_VARIABLE

MEASURES = {"eval_loss": "eval_loss", "eval_token_accuracy": "eval_token_accuracy", "train_loss": "loss"}
"""Name of a metric in a search to its column in a training's rows."""
DB_MANAGER = "katib-db-manager.kubeflow:6789"
"""Where Katib's own manifests put it."""
_TRIAL = "KATIB_TRIAL_NAME"
"""Set by Katib's webhook in a trial's pods."""
_METHOD = "/api.v1.beta1.DBManager/ReportObservationLog"
_TIMEOUT_S, _TRIES = 10.0, 6


def db_manager() -> str:
    """`host:port` of Katib's DB manager: GOLDPATH_KATIB_DB, else where Katib's own manifests put it.

    Raises:
        SpecError: the setting is no such address.
    """
    given = os.environ.get(KATIB_VARIABLE, "").strip() or DB_MANAGER
    if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:[0-9]{1,5}", given):
        raise SpecError(f"{KATIB_VARIABLE} is {given!r}", f"Give host:port, such as {DB_MANAGER}.")
    return given


class Reporter:
    """Hands rows of figures on.

    Args:
        trial: name of the trial.
        address: `host:port` of the DB manager; empty prints the measures only.
        pause_s: before the second try at the end; doubled from then on.
    """

    def __init__(self, trial: str, address: str = "", pause_s: float = 1.0) -> None:
        self.trial, self.address, self.pause_s = trial, address, pause_s
        self._waiting: list[bytes] = []

    @classmethod
    def of_this_pod(cls) -> Reporter | None:
        """For the trial that this process belongs to; None outside a trial."""
        trial = os.environ.get(_TRIAL, "")
        return cls(trial, os.environ.get(KATIB_VARIABLE, "")) if trial else None

    def row(self, row: Mapping[str, float]) -> None:
        """Take a row. What cannot be delivered now is kept for the next time."""
        measures = {name: row[column] for name, column in MEASURES.items() if column in row}
        for name, value in measures.items():
            print(f"{name}={value!r}", flush=True)  # noqa: T201
        if self.address and measures:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            self._waiting += [_log(now, name, repr(float(value))) for name, value in measures.items()]
            self._deliver()

    def close(self) -> None:
        """Deliver what is left.

        Raises:
            StepError: the DB manager could not be reached: without its measures the trial is worth nothing.
        """
        problem, pause = "", self.pause_s
        for attempt in range(_TRIES):
            if attempt and problem:
                time.sleep(pause)
                pause *= 2
            problem = self._deliver()
            if not problem:
                return
        raise StepError(
            f"the measures of trial {self.trial} did not reach Katib's DB manager at {self.address} ({problem})",
            "Check the address, and that network policies let trials reach it.",
        )

    def _deliver(self) -> str:
        """Send all that waits; why that failed, empty where it did not."""
        if not self._waiting:
            return ""
        import grpc

        request = _field(1, self.trial.encode()) + _field(2, b"".join(self._waiting))
        try:
            with grpc.insecure_channel(self.address) as channel:
                channel.unary_unary(_METHOD)(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        self._waiting.clear()
        return ""


def _log(at: str, name: str, value: str) -> bytes:
    """One `MetricLog` as a member of an `ObservationLog`."""
    metric = _field(1, name.encode()) + _field(2, value.encode())
    return _field(1, _field(1, at.encode()) + _field(2, metric))


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    length, size = bytearray(), len(payload)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + payload
