"""The frame around every pipeline step: who we are, progress, errors without a traceback, the step's result file."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from goldpath.core.errors import EXIT_CODE, GoldpathError, Interrupted, StepError, from_os_error
from goldpath.core.files import write_json
from goldpath.core.process import die_with_parent, sigterm_raises
from goldpath.core.progress import emit
from goldpath.core.reuse import R, Reused
from goldpath.core.spec import Result


class Step:
    """A running step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.time()
        self.reused = False

    def done(self, result_path: str, result: Result | Reused[R]) -> None:
        """Write the step's result: one JSON file `{step, started, seconds, reused, result}` that the report reads."""
        if isinstance(result, Reused):
            self.reused, value = result.reused, result.result
        else:
            value = result
        write_json(
            Path(result_path),
            {
                "step": self.name,
                "started": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="seconds"),
                "seconds": round(time.time() - self.began, 2),
                "reused": self.reused,
                "result": value.model_dump(mode="json"),
            },
        )


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Run a component's body: a GoldpathError ends the process with its one line and exit code 2."""
    os.environ["GOLDPATH_STEP"] = name
    if os.environ.get("GOLDPATH_EVENTS"):
        die_with_parent()
    running = Step(name)
    emit("step-started")
    try:
        with sigterm_raises():
            yield running
    except (Exception, KeyboardInterrupt) as error:
        shown = _explained(name, error)
        emit("step-failed", error=shown.to_dict(), seconds=round(time.time() - running.began, 2))
        if isinstance(shown, StepError) and shown is not error:
            raise  # ours to mend: keep the traceback in the log
        print(f"error: {shown.line()}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(EXIT_CODE)
    emit("step-finished", reused=running.reused, seconds=round(time.time() - running.began, 2))


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
