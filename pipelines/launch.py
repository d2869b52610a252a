"""Starting and following runs on this machine."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from goldpath.core import marks
from goldpath.core.errors import (
    GoldpathError,
    InputError,
    MachineError,
    StepError,
    did_you_mean,
    from_os_error,
)
from goldpath.core.progress import parse_event
from goldpath.core.resuming import resume_line
from goldpath.pipelines import runs
from goldpath.pipelines.catalogue import FormField, compile_pipeline, form
from goldpath.pipelines.worker import STOPPED

Event = dict[str, Any]
Watcher = Callable[[Event], None]
_POLL_S = 0.2


def parameters_for(pipeline: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The form's values, strings cast to the form's types.

    Raises:
        InputError: an unknown parameter, or a value of the wrong type.
    """
    fields = {field.name: field for field in form(pipeline)}
    for name in given:
        if name not in fields:
            raise InputError(
                f"{pipeline} has no parameter {name!r}",
                f"{did_you_mean(name, fields)}Parameters: {', '.join(fields)}.",
            )
    return {name: _cast(fields[name], value) for name, value in given.items()}


def _cast(field: FormField, value: Any) -> Any:
    if field.kind == "string":
        return str(value)
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        parsed = None
    if field.kind == "integer" and isinstance(parsed, float) and parsed.is_integer():
        parsed = int(parsed)
    if field.kind == "number" and isinstance(parsed, int) and not isinstance(parsed, bool):
        parsed = float(parsed)
    wanted = {"integer": int, "number": float, "struct": dict, "list": list, "boolean": bool}[field.kind]
    right = isinstance(parsed, wanted) and not (wanted is int and isinstance(parsed, bool))
    if not right or (wanted is float and not math.isfinite(parsed)):
        example = {"struct": ', such as {"fine_tune": {"sequence_length": 512}}'}.get(field.kind, "")
        raise InputError(
            f"{field.name} is {value!r}, which is not {_ARTICLES[field.kind]}",
            f"Give {_ARTICLES[field.kind]}{example}.",
        )
    return parsed


_ARTICLES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "struct": "a JSON object",
    "list": "a JSON list",
}


def prepare(pipeline: str, given: Mapping[str, Any], name: str | None = None, command: str = "") -> runs.Run:
    """Check everything that can be checked now, then make the run's folder with its compiled YAML."""
    from goldpath.pipelines.preflight import check

    runs.check_name(name)
    parameters = parameters_for(pipeline, given)
    check(pipeline, {field.name: field.default for field in form(pipeline)} | parameters)
    run = runs.create(pipeline, parameters, name, command)
    try:
        run.pipeline_digest = compile_pipeline(pipeline, run.folder / "pipeline.yaml")
        run.save()
    except BaseException:
        runs.remove(run)
        raise
    return run


def resume(name: str) -> runs.Run:
    """A run to go on with: the same YAML and parameters; finished work is found by its content.

    Raises:
        InputError: it is running, or has succeeded.
    """
    run = runs.load(name)
    if run.status == "succeeded":
        raise InputError(f"run {name!r} has succeeded", f"See it: `goldpath report {name}`.")
    run.hold()
    try:
        if not (run.folder / "pipeline.yaml").exists():
            run.pipeline_digest = compile_pipeline(run.pipeline, run.folder / "pipeline.yaml")
            run.save()
    except BaseException:
        run.release()
        raise
    return run


def execute(run: runs.Run, watch: Watcher) -> runs.Run:
    """Run it in a worker process and hand every event to `watch` until it ends; Ctrl-C ends the worker too.

    Raises:
        GoldpathError: what made the run fail.
    """
    run.hold()
    try:
        worker = _drive(run, watch)
        after = runs.load(run.name)
        begun = after.pid == worker.pid  # else the record is of an earlier try
        if begun and after.status != "succeeded" and (run.folder / runs.CANCELLED).exists():
            raise runs.cancelled(run)  # who cancels it may not have written that down yet
        if begun and after.status == "succeeded":
            return after
        if begun and after.error:
            raise GoldpathError.from_dict(after.error)
        raise _unrecorded(after, worker.returncode)
    finally:
        run.release()


def _drive(run: runs.Run, watch: Watcher) -> subprocess.Popen[bytes]:
    """Start the worker and watch it to its end."""
    log, journal = run.folder / "logs" / "run.log", run.folder / "events.jsonl"
    begin = _size(journal)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "goldpath.pipelines.worker", run.name, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the tree in order
            )
    except OSError as error:
        raise from_os_error(error, log) from error
    try:
        for event in follow(journal, begin, lambda: worker.poll() is None):
            watch(event)
        worker.wait()
    except BaseException:
        runs.stop(run, worker.pid)
        raise
    return worker


def _unrecorded(run: runs.Run, code: int) -> GoldpathError:
    """Why a run ended whose worker did not write that down: it was killed, or the disk is full."""
    interrupted = StepError(
        f"run {run.name!r} was interrupted",
        f"Continue with `{resume_line(run.name)}`; log: {run.folder / 'logs' / 'run.log'}.",
    )
    stopped = (run.folder / runs.CANCELLED).exists()  # where we did it ourselves, the code may be lost
    if stopped or code < 0 or code == STOPPED:
        return interrupted
    failure = marks.first_failure(run.folder)
    error = failure.error if failure else None
    run.status, run.ended = "failed", runs.now()
    run.error = failure.to_dict() if failure else interrupted.to_dict()
    try:
        run.save()
    except MachineError as full:
        return error or full
    return error or interrupted


def follow(file: Path, begin: int, alive: Callable[[], bool]) -> Iterator[Event]:
    """Events as they are appended to `file` after byte `begin`, until `alive` says no and all is read.

    A line that a full disk or a kill has cut off is passed over.
    """
    import time

    position, rest = begin, b""
    while True:
        last = not alive()
        if file.exists():
            with file.open("rb") as source:
                source.seek(position)
                data = source.read()
            position += len(data)
            *lines, rest = (rest + data).split(b"\n")
            yield from filter(None, map(parse_event, lines))
        if last:
            return
        time.sleep(_POLL_S)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
