"""MLflow tracking beside a training: never in its way.

Importing MLflow takes seconds and its store can be slow, so both happen in a thread of the parent, while the child
starts and trains; rows wait in a queue. A store that fails does not fail the training: the reason is told at the end.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from goldpath.core import settings
from goldpath.core.errors import GoldpathError, Interrupted
from goldpath.core.files import read_json, write_json
from goldpath.core.progress import emit

_END = object()
_WAIT_S, _KILLED_S = 60.0, 10.0
"""For what is still to be written; less where we were told to end."""
_GAP_S = 2.0
"""Rows are written together, this far apart: a row of its own costs SQLite several syncs."""


class Tracker:
    """One MLflow run. `log` takes rows at once; a thread writes them.

    Args:
        experiment: MLflow experiment, made if missing.
        name: the run's name; with `settings.run_id()` in front where there is one.
        parameters: logged as they are, once.
        tags: besides `goldpath.run` and `goldpath.step`.
        memory: a JSON file that remembers the MLflow run, so that a resumed training goes on in it.
    """

    def __init__(
        self,
        experiment: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        memory: Path | None = None,
    ) -> None:
        self.experiment, self.memory = experiment, memory
        self.name = "-".join(part for part in (settings.run_id(), name) if part)
        self.parameters, self.tags = dict(parameters), {**(tags or {}), "goldpath.run": settings.run_id()}
        self.mlflow_run_id = ""
        self.failure = ""
        self._rows: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._status = "FINISHED"

    def start(self) -> None:
        """Start writing, once. Call it after child processes were started: it imports in a thread of its own."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()

    def log(self, row: Mapping[str, float]) -> None:
        """Take a row of figures; `step` in it places them."""
        self.start()
        self._rows.put((dict(row), int(time.time() * 1000)))

    def finish(self, status: str = "FINISHED") -> None:
        """Write what is left and close the run with MLflow's `status` (FINISHED, FAILED, KILLED)."""
        self._status = status
        self.start()
        self._rows.put(_END)
        assert self._thread is not None  # noqa: S101
        self._thread.join(_KILLED_S if status == "KILLED" else _WAIT_S)
        if self.failure:
            emit("tracking-failed", error=self.failure)

    def _work(self) -> None:
        try:
            client = self._open()
            while self._write(client):
                time.sleep(0)
            client.set_terminated(self.mlflow_run_id, status=self._status)
        except Exception as error:  # whatever the store raises, training is worth more
            self.failure = (
                error.line() if isinstance(error, GoldpathError) else f"{type(error).__name__}: {error}"
            )

    def _open(self) -> Any:
        from goldpath.core.tracking_store import tracking_store

        uri = tracking_store()
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        client = MlflowClient(tracking_uri=uri)
        known = self._remembered(client)
        if known:
            self.mlflow_run_id = known
            client.update_run(known, status="RUNNING")
            return client
        found = client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._create_experiment(client)
        run = client.create_run(experiment, run_name=self.name)
        self.mlflow_run_id = run.info.run_id
        client.log_batch(
            self.mlflow_run_id,
            params=[Param(key, str(value)[:500]) for key, value in self.parameters.items()],
            tags=[RunTag(key, str(value)) for key, value in self.tags.items() if value],
        )
        if self.memory is not None:
            write_json(self.memory, {"run_id": self.mlflow_run_id, "uri": uri})
        return client

    def _create_experiment(self, client: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return client.create_experiment(self.experiment)
        except MlflowException:  # another process made it meanwhile
            return client.get_experiment_by_name(self.experiment).experiment_id

    def _remembered(self, client: Any) -> str:
        if self.memory is None or not self.memory.is_file():
            return ""
        try:
            found = str(read_json(self.memory)["run_id"])
            client.get_run(found)
        except Exception:  # of another store, or deleted there
            return ""
        return found

    def _write(self, client: Any) -> bool:
        """Write the rows of the next moments together; False at the end."""
        from mlflow.entities import Metric

        metrics: list[Any] = []
        until = time.monotonic() + _GAP_S
        more = True
        while more and (left := until - time.monotonic()) > 0:
            try:
                item = self._rows.get(timeout=left)
            except queue.Empty:
                break
            if item is _END:
                more = False
            else:
                row, at = item
                step = int(row.pop("step", 0))
                metrics += [Metric(key, float(value), at, step) for key, value in row.items()]
        for start in range(0, len(metrics), 900):  # MLflow takes at most 1,000 in a batch
            client.log_batch(self.mlflow_run_id, metrics=metrics[start : start + 900])
        return more


@contextmanager
def tracked(
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
    memory: Path | None = None,
) -> Iterator[Tracker]:
    """A `Tracker` around a block: finished with it, FAILED or KILLED where the block raises."""
    tracker = Tracker(experiment, name, parameters, tags, memory)
    try:
        yield tracker
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, Interrupted):
            tracker.finish("FAILED")
        else:
            tracker.finish("KILLED")
        raise
    tracker.finish()
