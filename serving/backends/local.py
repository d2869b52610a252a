"""Endpoints on this machine: a detached supervisor for each, its state under `GOLDPATH_HOME/endpoints/<name>/`.

::

    endpoints/<name>/
      endpoint.json        the endpoint, and which generation is live; without it there is no endpoint
      port                 the last port, asked for again next time
      last-failure.log     the engine's output of the last deployment that failed
      <generation>/        plan.json, state.json, engine.log and the engine's own files (see `serving.supervisor`)

A new model is a new generation: it is started beside the old one, takes over the address when it has given a first
real completion, and then the old one finishes its open connections and ends. Until that moment nothing changes for
clients, so a deployment that fails or is interrupted leaves the old model in service.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import urllib.request
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from goldpath.core.digest import digest_json, digest_manifest, manifest
from goldpath.core.errors import InputError, MachineError, StepError, did_you_mean, from_os_error
from goldpath.core.files import read_json, write_json, write_text
from goldpath.core.locks import locked
from goldpath.core.modelfiles import check_model_folder
from goldpath.core.ports import holder, is_free
from goldpath.core.process import is_same_process, kill_tree, start_detached, started_at
from goldpath.core.progress import progress
from goldpath.core.settings import state
from goldpath.core.spec import NAME
from goldpath.core.uris import local_path
from goldpath.serving import engines
from goldpath.serving.results import Endpoint
from goldpath.serving.specs import ServeSpec
from goldpath.serving.supervisor import HAND_OVER, last_words

_LOCK = ".lock"
"""One deployment at a time, so that two of them cannot choose the same port. One endpoint has `.<name>.lock` besides,
so that it is not stopped while it is deployed, and others can be."""
_ENDED = ("dead", "failed")
_POLL_S = 0.2
_HANDOVER_S = 5.0
_STOP_S = 3.0
"""Seconds that a stop waits for a deployment of the same endpoint that is about to end."""
MAX_RESTARTS = 5
PAUSE_S = 0.5
"""Before the first restart; doubled each time."""
HEALTH_S = 2.0
"""Between health checks."""


def deploy(spec: ServeSpec) -> Endpoint:
    """See `endpoints.deploy`."""
    model = local_path(spec.model_uri).absolute()
    check_model_folder(model)
    digest = digest_manifest(manifest(model))
    root = state("endpoints")
    try:
        with locked(root / _LOCK, "endpoints"), locked(_own_lock(root, spec.name), "endpoints"):
            live = _live(root / spec.name)
            if live is not None and _adoptable(live, spec, digest):
                endpoint = Endpoint.model_validate(live["endpoint"])
                if spec.model_version not in ("", endpoint.model_version):  # registered since, or anew
                    endpoint = endpoint.model_copy(update={"model_version": spec.model_version})
                    record = {**live, "endpoint": endpoint.model_dump(mode="json")}
                    write_json(root / spec.name / "endpoint.json", record)
                return endpoint.model_copy(update={"adopted": True, "ready_seconds": 0.0})
            port = _port(root, spec, live)
            return _replace(root / spec.name, spec, model, digest, port, live)
    except OSError as error:
        raise from_os_error(error, root) from error


def list_endpoints() -> list[Endpoint]:
    """See `endpoints.list_endpoints`."""
    found = []
    root = state("endpoints")
    for folder in sorted(root.iterdir()):
        record = _record(folder)
        if record is None:
            continue
        endpoint = Endpoint.model_validate(record["endpoint"])
        status = _status(folder, record)
        found.append(endpoint.model_copy(update={"status": status}))
        if status in _ENDED:
            _clear(root, folder)
    return found


def get(name: str) -> Endpoint:
    """See `endpoints.get`."""
    found = list_endpoints()
    for endpoint in found:
        if endpoint.name == name:
            return endpoint
    names = [endpoint.name for endpoint in found]
    raise InputError(
        f"there is no endpoint {name!r}",
        f"{did_you_mean(name, names)}There are: {', '.join(names)}."
        if names
        else "Deploy one with `goldpath run`.",
    )


def stop(name: str) -> None:
    """See `endpoints.stop`."""
    root = state("endpoints")
    if not re.fullmatch(NAME, name):
        get(name)  # says which there are
    if not (root / name).exists():
        get(name)
    try:
        with FileLock(_own_lock(root, name)).acquire(timeout=_STOP_S):
            if _record(root / name) is None:
                get(name)
            _remove(root / name)
    except Timeout:
        raise InputError(
            f"endpoint {name!r} is being deployed",
            "Wait until it is up, or stop the run that deploys it: `goldpath runs list`, "
            "`goldpath runs cancel RUN`.",
        ) from None


def healthy(endpoint: Endpoint) -> bool:
    """See `endpoints.healthy`."""
    url = endpoint.url.removesuffix("/v1") + engines.get(endpoint.engine).health
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def check_port(spec: ServeSpec) -> None:
    """Look ahead: whether `deploy` could have the port that `spec` asks for, were it called now.

    Raises:
        MachineError: it is taken, and not by the endpoint itself.
    """
    if not spec.port:
        return
    root = state("endpoints")
    record = _record(root / spec.name)
    gone = record is None or _status(root / spec.name, record) in ("dead", "failed")
    _port(root, spec, None if gone else record)


def _replace(
    folder: Path, spec: ServeSpec, model: Path, digest: str, port: int, live: dict[str, Any] | None
) -> Endpoint:
    """Start a new generation, wait until it answers, make it the endpoint's, let the old one end."""
    generation = folder / f"g-{uuid.uuid4().hex[:8]}"
    began = time.monotonic()
    pid = 0
    try:
        generation.mkdir(parents=True)
        engines.get(spec.engine).prepare(spec, model, generation)
        write_json(generation / "plan.json", _plan(spec, model, generation, port, live))
        pid = start_detached(
            [sys.executable, "-m", "goldpath.serving.supervisor", str(generation)],
            log=generation / "supervisor.log",
            env={"GOLDPATH_EVENTS": "", "GOLDPATH_RUN_DIR": "", "GOLDPATH_RUN": ""},
        )
        report = _await_ready(spec, generation, pid)
        endpoint = Endpoint(
            name=spec.name,
            url=f"http://127.0.0.1:{report['port']}/v1",
            model=spec.model_name,
            model_version=spec.model_version,
            model_path=str(model),
            model_digest=digest,
            engine=spec.engine,
            pid=pid,
            pid_started=report["pid_started"],
            ready_seconds=round(time.monotonic() - began, 2),
            adopted=False,
            log=str(generation / "engine.log"),
        )
        record = {
            "generation": generation.name,
            "settings": _settings(spec),
            "endpoint": endpoint.model_dump(mode="json"),
        }
        write_text(folder / "port", f"{report['port']}\n")
        write_json(folder / "endpoint.json", record)  # from here on it is the endpoint
    except BaseException:  # Ctrl-C and SIGTERM too
        _give_up(folder, generation, pid)
        raise
    if live is not None:
        _hand_over(folder / str(live["generation"]))
    return endpoint


def _give_up(folder: Path, generation: Path, pid: int) -> None:
    """Leave nothing but the log of a generation, unless it has become the endpoint's: then it stays in service."""
    record = _record(folder)
    if record is not None and record["generation"] == generation.name:
        return
    if pid:
        kill_tree(pid, 3)
    with suppress(OSError):
        (generation / "engine.log").replace(folder / "last-failure.log")
    shutil.rmtree(generation, ignore_errors=True)


def _plan(
    spec: ServeSpec, model: Path, generation: Path, port: int, live: dict[str, Any] | None
) -> dict[str, Any]:
    engine = engines.get(spec.engine)
    question = [{"role": "user", "content": "Say hello."}]
    same = live is not None and _port_of(live["endpoint"]["url"]) == port
    return {
        "port": port,
        "take_over": f"../{live['generation']}/{HAND_OVER}" if live and same else "",
        "command": engine.command(spec, model, generation, "{port}"),
        "environment": engine.environment(spec, generation),
        "health": engine.health,
        "warmup": {
            "path": "/v1/chat/completions",
            "body": {"model": spec.model_name, "messages": question, "max_tokens": 4, "temperature": 0},
        },
        "ready_seconds": spec.ready_seconds,
        "max_restarts": MAX_RESTARTS,
        "pause_s": PAUSE_S,
        "health_s": HEALTH_S,
        "owner": {"pid": os.getpid(), "started": started_at(os.getpid())},
    }


def _await_ready(spec: ServeSpec, generation: Path, pid: int) -> dict[str, Any]:
    """The supervisor's report that the engine gave a first completion; a bar shows the seconds."""
    began = time.monotonic()
    with progress(f"Starting {spec.name}", None, "s") as bar:
        while True:
            report = _report(generation)
            if report.get("status") == "ready":
                return report
            if report.get("status") == "failed" or started_at(pid) is None:
                raise StepError(
                    f"endpoint {spec.name} did not start: {report.get('error') or _supervisors_words(generation)}",
                    f"The whole log: {generation.parent / 'last-failure.log'}",
                )
            if time.monotonic() - began > spec.ready_seconds + 10:
                raise StepError(
                    f"endpoint {spec.name} was not ready after {spec.ready_seconds} s",
                    "Raise ready_seconds, or look at the log: " + str(generation.parent / "last-failure.log"),
                )
            bar.update(round(time.monotonic() - began, 1))
            time.sleep(_POLL_S)


def _supervisors_words(generation: Path) -> str:
    with suppress(OSError):
        return last_words((generation / "supervisor.log").read_text("utf-8", "replace"))
    return "the supervisor ended"


def _hand_over(old: Path) -> None:
    """Wait until the old generation takes no more connections; end it where it does not notice."""
    until = time.monotonic() + _HANDOVER_S
    report = _report(old)
    while time.monotonic() < until and _alive(report):
        if _report(old).get("status") in ("draining", "stopped"):
            return
        time.sleep(_POLL_S)
    _end(report)


def _report(generation: Path) -> dict[str, Any]:
    with suppress(MachineError):
        found = read_json(generation / "state.json")
        return found if isinstance(found, dict) else {}
    return {}


def _record(folder: Path) -> dict[str, Any] | None:
    """What `endpoint.json` says; None where there is no endpoint."""
    with suppress(MachineError, KeyError, TypeError, ValueError):
        record = read_json(folder / "endpoint.json")
        Endpoint.model_validate(record["endpoint"])
        return dict(record)
    return None


def _status(folder: Path, record: dict[str, Any]) -> str:
    report = _report(folder / str(record["generation"]))
    if report.get("status") == "failed":
        return "failed"
    endpoint = record["endpoint"]
    if not is_same_process(endpoint["pid"], endpoint["pid_started"]):
        return "dead"
    return str(report.get("status", "dead"))


def _live(folder: Path) -> dict[str, Any] | None:
    """The endpoint's record if its supervisor runs; the remains of dead generations are cleared away."""
    record = _record(folder)
    if record is not None and _status(folder, record) in _ENDED:
        _remove(folder)
        record = None
    for generation in folder.glob("g-*"):
        report = _report(generation)
        if not _alive(report) and (record is None or record["generation"] != generation.name):
            shutil.rmtree(generation, ignore_errors=True)
    return record


def _adoptable(live: dict[str, Any], spec: ServeSpec, digest: str) -> bool:
    endpoint = Endpoint.model_validate(live["endpoint"])
    same = endpoint.model_digest == digest and live["settings"] == _settings(spec)
    return same and spec.port in (0, _port_of(endpoint.url)) and healthy(endpoint)


def _settings(spec: ServeSpec) -> str:
    elsewhere = {"model_uri", "model_version", "model_digest", "port", "ready_seconds", "cluster"}
    return digest_json(spec.model_dump(exclude=elsewhere))


def _port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].removesuffix("/v1"))


def _port(root: Path, spec: ServeSpec, live: dict[str, Any] | None) -> int:
    """The port to advertise; 0 lets the supervisor take any free one.

    Raises:
        MachineError: the port that was asked for is taken.
    """
    held = _port_of(live["endpoint"]["url"]) if live else 0
    wanted = spec.port or held
    if wanted and wanted == held:
        return wanted
    if wanted:
        if not is_free(wanted):
            raise _taken(root, wanted)
        return wanted
    with suppress(OSError, ValueError):
        last = int((root / spec.name / "port").read_text())
        return last if is_free(last) else 0
    return 0


def _taken(root: Path, port: int) -> MachineError:
    """Who has the port, and how to get one."""
    other = "Choose another (overrides.deploy.port; 0 takes any free one)"
    for folder in root.iterdir():
        record = _record(folder)
        if record and _port_of(record["endpoint"]["url"]) == port and _status(folder, record) not in _ENDED:
            return MachineError(
                f"port {port} is taken by the endpoint {folder.name!r}",
                f"{other}, or stop that one: `goldpath endpoints stop {folder.name}`.",
            )
    return MachineError(f"port {port} is taken{holder(port)}", f"{other}, or stop that process.")


def _own_lock(root: Path, name: str) -> Path:
    return root / f".{name}.lock"


def _clear(root: Path, folder: Path) -> None:
    """Remove an endpoint that ended; not while anything is deployed, which may be its next generation."""
    with suppress(Timeout), FileLock(root / _LOCK).acquire(timeout=0):
        record = _record(folder)  # read again: a deployment may have ended just now
        if record is not None and _status(folder, record) in _ENDED:
            _remove(folder)


def _remove(folder: Path) -> None:
    """End every generation of the endpoint and forget it; its last port stays noted."""
    reports = [_report(generation) for generation in folder.glob("g-*")]
    (folder / "endpoint.json").unlink(missing_ok=True)
    for report in reports:
        _end(report)
    for generation in folder.glob("g-*"):
        shutil.rmtree(generation, ignore_errors=True)


def _alive(report: dict[str, Any]) -> bool:
    return bool(report.get("pid")) and is_same_process(report["pid"], report["pid_started"])


def _end(report: dict[str, Any]) -> None:
    if _alive(report):
        kill_tree(report["pid"], 5)
