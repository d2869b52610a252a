"""The frame around every pipeline step: who we are, progress, errors without a traceback, the step's result file."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from goldpath.core import environment, marks, settings
from goldpath.core.errors import (
    EXIT_CODE,
    GoldpathError,
    Interrupted,
    MachineError,
    StepError,
    from_os_error,
)
from goldpath.core.files import write_json
from goldpath.core.process import die_with_process, is_same_process, kill_children, sigterm_raises
from goldpath.core.progress import emit
from goldpath.core.reuse import Reused
from goldpath.core.spec import Result


class Step:
    """A running step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.time()
        self.reused = False
        self.summary = ""
        self._took: float | None = None

    @property
    def seconds(self) -> float:
        """From its begin to its result (until now, where there is none yet): the same number wherever it is shown."""
        return self._took if self._took is not None else round(time.time() - self.began, 2)

    def done(self, result_path: str, result: Result | Reused[Any], summary: str) -> None:
        """Write the step's result: one JSON file `{step, started, seconds, reused, result}` that the report reads.

        Args:
            result_path: where KFP expects the artifact.
            result: what the library handed back.
            summary: what to tell the user, in a few words (`5,120 of 6,003 chats kept`).
        """
        value: Result
        if isinstance(result, Reused):
            self.reused, value = result.reused, result.result
        else:
            value = result
        self.summary, self._took = summary, self.seconds
        envelope = {
            "step": self.name,
            "started": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="milliseconds"),
            "seconds": self.seconds,
            "reused": self.reused,
            "result": value.model_dump(mode="json"),
        }
        write_json(Path(result_path), envelope)
        if run_dir := settings.run_dir():
            write_json(run_dir / "results" / f"{self.name}.json", envelope)


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Run a component's body: a GoldpathError ends the process with its one line and exit code 2."""
    os.environ["GOLDPATH_STEP"] = name
    environment.settle()
    running, run_dir = Step(name), settings.run_dir()
    try:
        if run_dir:
            _join_run(name, run_dir)
        emit("step-started")
        with sigterm_raises():
            yield running
        emit("step-finished", reused=running.reused, seconds=running.seconds, summary=running.summary)
    except (Exception, KeyboardInterrupt) as error:
        shown = _explained(name, error)
        ours = isinstance(shown, StepError) and shown is not error  # to mend: keep the traceback in the log
        if not ours:
            with suppress(OSError):  # the log may lie on the disk that is full
                print(f"error: {shown.line()}", file=sys.stderr, flush=True)  # noqa: T201
        kill_children()
        if run_dir:
            marks.fail(run_dir, name, shown)
        with suppress(MachineError):
            emit("step-failed", error=shown.to_dict(), seconds=running.seconds)
        if ours:
            raise
        sys.exit(EXIT_CODE)
    if run_dir:
        marks.end(run_dir, name)


def _join_run(name: str, run_dir: Path) -> None:
    """Die with the run, write to the step's own log, and do nothing where a step of the run has failed already."""
    worker, _, started = os.environ.get("GOLDPATH_WORKER", "").partition(":")
    if worker:
        if not is_same_process(int(worker), float(started)):
            sys.exit(EXIT_CODE)  # it was killed while we started; what stands here may be another's by now
        die_with_process(int(worker), float(started))  # kfp puts a shell between the worker and us
    if marks.lost(run_dir):
        sys.exit(EXIT_CODE)  # kfp.local goes on with independent steps; the run is lost already
    marks.begin(run_dir, name)
    log = run_dir / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _explained(name: str, error: BaseException) -> GoldpathError:
    if isinstance(error, GoldpathError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return from_os_error(error)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", "Continue with `goldpath run --resume`.")
    return StepError(
        f"{name} failed: {type(error).__name__}: {error}", "`goldpath runs logs` has the details."
    )
