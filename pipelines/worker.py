"""The process that runs a compiled pipeline on this machine: `python -m goldpath.pipelines.worker RUN`.

Whoever starts it holds the run (`Run.hold`). Its exit code is 0, 2 for a run that failed, or 143 where
it was stopped from outside and others write the record.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from contextlib import suppress
from types import FrameType

from goldpath.core import marks, settings
from goldpath.core.errors import EXIT_CODE, GoldpathError, MachineError, StepError, from_os_error
from goldpath.core.process import die_with_parent, kill_children, kill_tree, started_at
from goldpath.core.progress import emit
from goldpath.pipelines import runs
from goldpath.reporting.run import report_of_folder

STOPPED = 128 + signal.SIGTERM
"""Exit code of a worker that was stopped from outside."""


def environment(run: runs.Run) -> dict[str, str]:
    """What every process of the run finds in its environment."""
    folder = run.folder
    return {
        "GOLDPATH_HOME": str(settings.home()),
        "GOLDPATH_RUN": run.name,
        "GOLDPATH_RUN_DIR": str(folder),
        "GOLDPATH_EVENTS": str(folder / "events.jsonl"),
        "GOLDPATH_PIPELINE": str(folder / "pipeline.yaml"),
        "GOLDPATH_BACKEND": "local",
        "GOLDPATH_WORKER": f"{run.pid}:{run.pid_started}",
        "PYTHONUNBUFFERED": "1",
    }


def main(name: str) -> int:
    """Run the pipeline to its end. Returns the exit code."""
    die_with_parent()
    signal.signal(signal.SIGTERM, _stop)
    try:
        run = runs.load(name)
        _begin(run)
        error = _outcome(run)
        run.status, run.error = ("failed", error) if error else ("succeeded", None)
        run.ended = runs.now()
        run.save()
        with suppress(MachineError):  # it is in the record
            if run.status == "succeeded" and run.report.exists():
                report_of_folder(run.folder)  # the report's own step could not know when the run ends
            emit("run-ended", status=run.status, error=run.error)
    except (GoldpathError, OSError) as error:  # the disk is full: who started us looks for the reason, too
        shown = from_os_error(error) if isinstance(error, OSError) else error
        with suppress(OSError):
            print(f"error: {shown.line()}", file=sys.stderr, flush=True)  # noqa: T201
        return EXIT_CODE
    return 0 if run.status == "succeeded" else EXIT_CODE


def _begin(run: runs.Run) -> None:
    """Take the run over: its record, its journal and our environment."""
    for pid in marks.survivors(
        run.folder
    ):  # the last worker was killed, and its steps are about to follow it
        kill_tree(pid)  # else what they write on their way out would read as ours
    marks.clear(run.folder)
    (run.folder / runs.CANCELLED).unlink(missing_ok=True)
    run.status, run.started, run.ended, run.error = "running", runs.now(), "", None
    run.pid, run.pid_started = os.getpid(), started_at(os.getpid()) or time.time()
    run.save()
    os.environ.update(environment(run))
    emit("run-started")


def _outcome(run: runs.Run) -> dict[str, str] | None:
    """Run it; what made it fail, as its record keeps it."""
    try:
        _execute(run)
    except Exception as error:
        if (run.folder / runs.CANCELLED).exists():
            os._exit(STOPPED)
        return _reason(run, error)
    return None


def _execute(run: runs.Run) -> None:
    """Hand the compiled YAML to kfp.local; every step is a child process in our environment."""
    warnings.filterwarnings("ignore", message=".*custom or non-Python base image.*")
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp.*")
    from kfp import components, local

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(run.folder / "artifacts"),
        workspace_root=str(run.folder / "workspace"),
    )
    pipeline = components.load_component_from_file(str(run.folder / "pipeline.yaml"))
    pipeline(**run.parameters)


def _reason(run: runs.Run, error: Exception) -> dict[str, str]:
    """What the step that failed said; KFP itself only knows that one did."""
    failure = marks.first_failure(run.folder)
    if failure is None:
        if isinstance(error, OSError):
            return from_os_error(error).to_dict()
        told = StepError(f"the run failed: {error}", f"`goldpath runs logs {run.name}` has the details.")
        return told.to_dict()
    if failure.killed_after is not None:
        with suppress(MachineError):
            emit(
                "step-failed", step=failure.step, error=failure.error.to_dict(), seconds=failure.killed_after
            )
    return failure.to_dict()


def _stop(number: int, frame: FrameType | None) -> None:
    """On SIGTERM: take every descendant along, and leave at once (kfp's threads wait for children)."""
    kill_children()
    os._exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
