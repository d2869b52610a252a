"""The process that runs a compiled pipeline on this machine: `python -m goldpath.pipelines.worker RUN`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from types import FrameType

from goldpath.core import settings
from goldpath.core.errors import EXIT_CODE, GoldpathError, StepError
from goldpath.core.process import die_with_parent, kill_children, started_at
from goldpath.core.progress import emit
from goldpath.pipelines import runs


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
    run = runs.load(name)
    held = runs.lock(run)
    signal.signal(signal.SIGTERM, _stop)
    for marker in (*run.folder.glob("failed-*"), run.folder / runs.CANCELLED):
        marker.unlink(missing_ok=True)
    run.status, run.started, run.ended, run.error = "running", runs.now(), "", None
    run.pid, run.pid_started = os.getpid(), started_at(os.getpid()) or time.time()
    run.save()
    os.environ.update(environment(run))
    emit("run-started")
    try:
        _execute(run)
        run.status = "succeeded"
    except Exception as error:
        if (run.folder / runs.CANCELLED).exists():
            os._exit(EXIT_CODE)  # who stopped us writes the record
        run.status, run.error = "failed", _reason(run, error).to_dict()
    run.ended = runs.now()
    run.save()
    emit("run-ended", status=run.status, error=run.error)
    held.release()
    return 0 if run.status == "succeeded" else EXIT_CODE


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


def _reason(run: runs.Run, error: Exception) -> GoldpathError:
    """What the step that failed said; KFP itself only knows that one did."""
    found: GoldpathError | None = None
    events = run.folder / "events.jsonl"
    begun = max((i for i, line in enumerate(_lines(events)) if '"run-started"' in line), default=0)
    for line in _lines(events)[begun:]:
        event = json.loads(line)
        if event["kind"] == "step-failed" and found is None:
            found = GoldpathError.from_dict(event["error"])
    return found or StepError(f"the run failed: {error}", f"`goldpath runs logs {run.name}` has the details.")


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _stop(number: int, frame: FrameType | None) -> None:
    """On SIGTERM: take every descendant along, and leave at once (kfp's threads wait for children)."""
    kill_children()
    os._exit(EXIT_CODE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
