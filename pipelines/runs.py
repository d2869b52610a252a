"""Runs on this machine: one folder each under `GOLDPATH_HOME/runs`, safe to delete.

::

    runs/finetune-1/
        run.json        name, pipeline, parameters, status, the worker's pid
        .lock           held by the command that drives the run
        pipeline.yaml   what runs
        events.jsonl    the journal: steps, progress, errors
        running-STEP    see `core.marks`; failed-STEP too
        results/        one JSON a step
        logs/           run.log and one log a step
        artifacts/      KFP's pipeline root
        report.html
"""

from __future__ import annotations

import fcntl
import itertools
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, PrivateAttr

from goldpath.core import settings
from goldpath.core.errors import GoldpathError, InputError, Interrupted, did_you_mean, from_os_error
from goldpath.core.files import read_json, write_json
from goldpath.core.process import is_same_process, kill_tree
from goldpath.core.resuming import resume_line
from goldpath.core.spec import NAME, NAME_SAID

Status = Literal["created", "running", "succeeded", "failed", "cancelled", "interrupted"]
CANCELLED = "cancelled"
"""Name of the file that says that somebody wanted the run to end."""
_WAIT_S = 5.0
_START_S = 10.0
"""Seconds that a cancel waits for the worker of a run that is about to start."""
_SHOWN = 5
_END_S = 25.0
"""Seconds that a worker whose command was killed may take to end with its steps: `core.process` gives them 20."""


class Run(BaseModel):
    """A run's record."""

    name: str
    pipeline: str
    parameters: dict[str, Any]
    status: Status = "created"
    created: str
    started: str = ""
    ended: str = ""
    pid: int = 0
    pid_started: float = 0.0
    pipeline_digest: str = ""
    command: str = ""
    error: dict[str, str] | None = None
    _held: FileLock | None = PrivateAttr(default=None)
    _store: BinaryIO | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return settings.home() / "runs" / self.name

    @property
    def report(self) -> Path:
        """Where the report is, once there is one."""
        return self.folder / "report.html"

    def save(self) -> None:
        """Write the record."""
        write_json(self.folder / "run.json", self.model_dump())

    def result(self, step: str) -> dict[str, Any]:
        """What a step handed back; empty if it has not finished."""
        file = self.folder / "results" / f"{step}.json"
        return dict(read_json(file)["result"]) if file.exists() else {}

    def results(self) -> dict[str, Path]:
        """Step to result file, of the steps that have finished."""
        return {file.stem: file for file in sorted((self.folder / "results").glob("*.json"))}

    def alive(self) -> bool:
        """Whether its worker runs."""
        return bool(self.pid) and is_same_process(self.pid, self.pid_started)

    def busy(self) -> bool:
        """Whether somebody drives it: its worker runs, or is about to."""
        return self.alive() or self._locked()

    def hold(self) -> None:
        """Let nobody else drive or remove the run, until `release` or the end of this process.

        Raises:
            InputError: somebody else holds it.
            MachineError: the disk is full or read-only.
        """
        if self._held is not None:
            return
        held = FileLock(self.folder / ".lock", thread_local=False)
        try:
            # Whoever only asks whether the run is busy holds it for a moment.
            held.acquire(timeout=0 if self.alive() else _WAIT_S)
        except Timeout:
            raise self._running() from None
        except OSError as error:
            raise from_os_error(error, self.folder) from error
        self._held = held
        if not self._recorded():  # it was removed meanwhile
            shutil.rmtree(self.folder, ignore_errors=True)
            self.release()
            raise _unknown(self.name)
        if not self._worker_ended():
            self.release()
            raise self._running()
        self._share()

    def claim(self) -> bool:
        """Make the run's folder, hold it and write its record; False where the name is taken.

        A folder without a record, as a kill in the middle of this leaves it, is taken over.
        """
        self.folder.mkdir(exist_ok=True)
        held = FileLock(self.folder / ".lock", thread_local=False)
        try:
            held.acquire(timeout=0)
        except Timeout:
            return False
        if self._recorded():
            held.release()
            return False
        self._held = held
        try:
            self._share()
            self.save()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.release()
            raise
        return True

    def _recorded(self) -> bool:
        return (self.folder / "run.json").exists()

    def _share(self) -> None:
        """Keep `runs clean --store` away from what the run will read; waits for one that is at work."""
        self._store = store_lock().open("ab")
        fcntl.flock(self._store, fcntl.LOCK_SH)

    def _worker_ended(self) -> bool:
        """Whether no worker runs, waiting for one to end whose command was killed: it knows, and is about to."""
        until = time.monotonic() + _END_S
        while self.alive():
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def _running(self) -> InputError:
        return InputError(
            f"run {self.name!r} is running", f"Wait for it, or stop it: `goldpath runs cancel {self.name}`."
        )

    def release(self) -> None:
        """Undo `hold`."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._held is not None:
            self._held.release()
            self._held = None

    def _locked(self) -> bool:
        try:
            with (self.folder / ".lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not meet
        except BlockingIOError:
            return True
        except OSError:  # nobody has held it yet
            return False
        return False


def store_lock() -> Path:
    """The file that every held run locks for reading, and who removes what runs read for writing."""
    return settings.state() / ".store.lock"


def now() -> str:
    """The present moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def create(pipeline: str, parameters: dict[str, Any], name: str | None = None, command: str = "") -> Run:
    """Make the folder of a new run and hold it; the name is `<pipeline>-<number>` where none is given.

    Raises:
        InputError: the name is taken or is not a DNS label.
        MachineError: the disk is full or read-only.
    """
    check_name(name)
    root = settings.state("runs")
    for number in itertools.count(1):
        chosen = name or f"{pipeline}-{number}"
        run = Run(name=chosen, pipeline=pipeline, parameters=parameters, created=now(), command=command)
        try:
            if run.claim():
                return run
        except OSError as error:
            raise from_os_error(error, root / chosen) from error
        if name is not None:
            break
    raise _taken(chosen)


def check_name(name: str | None) -> None:
    """Refuse a name that is taken or is not a DNS label; None stands for one that will be made.

    Raises:
        InputError: it cannot be used.
    """
    if name is None:
        return
    if not re.fullmatch(NAME, name):
        raise InputError(
            f"{name!r} cannot be the name of a run",
            f"Use {NAME_SAID}.",
        )
    if (settings.home() / "runs" / name / "run.json").exists():
        raise _taken(name)


def _taken(name: str) -> InputError:
    return InputError(
        f"there already is a run {name!r}",
        f"Choose another name, go on with it (`{resume_line(name)}`), "
        f"or remove it (`goldpath runs clean {name}`).",
    )


def load(name: str) -> Run:
    """A run by its name, its status as things are: a run that says running and has no process was interrupted.

    Raises:
        InputError: there is no such run.
    """
    file = settings.home() / "runs" / name / "run.json"
    if not re.fullmatch(NAME, name) or not file.exists():
        raise _unknown(name)
    run = Run.model_validate(read_json(file))
    if run.status in ("created", "running") and not run.busy():
        run.status = "interrupted"
    return run


def _unknown(name: str) -> InputError:
    return InputError(f"there is no run {name!r} under {settings.home()}", _instead_of(name))


def _instead_of(name: str) -> str:
    """What to do where there is no run of that name."""
    known = [run.name for run in all_runs()]
    if not known:
        return "Start one with `goldpath run finetune`."
    more = len(known) - _SHOWN
    rest = f" and {more} older (`goldpath runs list`)" if more > 0 else ""
    return f"{did_you_mean(name, known)}Runs: {', '.join(known[-_SHOWN:])}{rest}."


def all_runs() -> list[Run]:
    """All runs, oldest first; a folder without a readable record is left out."""
    found = []
    for file in (settings.home() / "runs").glob("*/run.json"):
        try:
            found.append(load(file.parent.name))
        except (GoldpathError, ValueError):
            continue
    return sorted(found, key=lambda run: (run.created, run.name))


def latest() -> Run:
    """The newest run.

    Raises:
        InputError: there is none.
    """
    runs = all_runs()
    if not runs:
        raise InputError(
            f"there are no runs under {settings.home()}", "Start one with `goldpath run finetune`."
        )
    return runs[-1]


def cancel(run: Run) -> None:
    """Stop a run with all its processes; one that is about to start as soon as its worker runs.

    Raises:
        InputError: it is not running, or its worker does not come.
    """
    until = time.monotonic() + _START_S
    while not run.alive():
        if not run.busy():
            raise InputError(
                f"run {run.name!r} is not running ({run.status})", "`goldpath runs list` shows all runs."
            )
        if time.monotonic() > until:
            raise InputError(
                f"run {run.name!r} is starting and cannot be cancelled yet", "Try again in a moment."
            )
        time.sleep(0.1)
        run = load(run.name)
    stop(run, run.pid)


def stop(run: Run, worker: int) -> None:
    """End the run's worker with all that it started, and note that it was wanted."""
    marker = run.folder / CANCELLED
    marker.touch()  # the worker may still live to see a step fail: this tells it why
    kill_tree(worker)
    after = load(run.name)
    if after.status != "succeeded":
        after.status, after.ended = "cancelled", now()
        after.error = cancelled(run).to_dict()
        after.save()


def cancelled(run: Run) -> Interrupted:
    """What is told of a run that somebody wanted to end."""
    return Interrupted(f"run {run.name!r} was cancelled", f"Continue with `{resume_line(run.name)}`.")


def remove(run: Run) -> None:
    """Delete a run's folder. Models, data and endpoints that it made are kept elsewhere and stay.

    Raises:
        InputError: it is running.
    """
    run.hold()
    try:
        shutil.rmtree(run.folder)
    finally:
        run.release()
