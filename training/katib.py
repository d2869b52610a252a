"""A trial's measures: printed for Katib's StdOut collector, or pushed to its DB manager; all of them in the storage.

The message is small and its encoding by hand is shorter than generated code: Katib's own client asks for a protobuf
that cannot live beside kfp's.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from goldpath.core import storage
from goldpath.core.errors import GoldpathError, SpecError, StepError
from goldpath.training.launch import CURVES_VARIABLE, KATIB_VARIABLE

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
        curves: URI of the folder for whole curves; empty keeps none.
        pause_s: before the second try at the end; doubled from then on.
    """

    def __init__(self, trial: str, address: str = "", curves: str = "", pause_s: float = 1.0) -> None:
        self.trial, self.address, self.curves, self.pause_s = trial, address, curves, pause_s
        self._waiting: list[bytes] = []
        self._rows: list[dict[str, float]] = []

    @classmethod
    def of_this_pod(cls) -> Reporter | None:
        """For the trial that this process belongs to; None outside a trial."""
        trial = os.environ.get(_TRIAL, "")
        address, curves = os.environ.get(KATIB_VARIABLE, ""), os.environ.get(CURVES_VARIABLE, "")
        return cls(trial, address, curves) if trial else None

    def row(self, row: Mapping[str, float]) -> None:
        """Take a row. What cannot be delivered now is kept for the next time."""
        measures = {name: row[column] for name, column in MEASURES.items() if column in row}
        for name, value in measures.items():
            print(f"{name}={value!r}", flush=True)  # noqa: T201
        if self.address and measures:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            self._waiting += [_log(now, name, repr(float(value))) for name, value in measures.items()]
            self._deliver()
        self._rows.append({"step": row.get("step", 0), **measures})
        if self.curves and "eval_loss" in measures:  # now: Katib may end the trial at any moment
            with suppress(GoldpathError):  # a picture less
                storage.write(json.dumps(self._rows).encode(), f"{self.curves}/{self.trial}.json")

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


def curve(folder: str, trial: str, measure: str) -> list[tuple[int, float]]:
    """All that a trial has measured, as far as it could leave it in the storage.

    Args:
        folder: URI of the curves.
        trial: its name.
        measure: name of a metric in the search.

    Returns:
        Steps and values; a step that was measured twice counts once.
    """
    try:
        rows = json.loads(storage.read(f"{folder}/{trial}.json") or b"[]")
        return sorted({int(row["step"]): float(row[measure]) for row in rows if measure in row}.items())
    except (GoldpathError, ValueError, KeyError, TypeError):
        return []


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
