"""Child processes that never outlive their reason: tree kills, death with the parent, detached servers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from goldpath.core.errors import Interrupted, MachineError, StepError

if TYPE_CHECKING:
    import psutil

_PR_SET_PDEATHSIG = 1
_GRACE_S = 10.0
_POLL_S = 0.25
_GONE_S = 0.02
_LIBC = ctypes.CDLL(
    None, use_errno=True
)  # loaded here: between fork and exec it could wait for a lock for ever


def die_with_parent(parent: int | None = None) -> None:
    """Ask for SIGTERM when the parent ends, however it ends (prctl on Linux, a watching thread elsewhere).

    Args:
        parent: its pid, where the caller knows it from before the fork; else whoever is the parent now.
    """
    parent = parent or os.getppid()
    prctl = getattr(_LIBC, "prctl", None)
    if prctl is None:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
        return
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGTERM)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def die_with_process(pid: int, started: float) -> None:
    """Ask for SIGTERM when another process ends, one that need not be our parent (a shell may stand between)."""

    def watch() -> None:
        while is_same_process(pid, started):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into `Interrupted`, so that `finally` blocks and context managers clean up.

    Outside the main thread, where Python handles no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted("stopped by SIGTERM", "Continue with `goldpath run --resume`.")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def kill_tree(pid: int, grace_s: float = _GRACE_S) -> None:
    """End a process and all its descendants: SIGTERM, then SIGKILL after `grace_s` seconds."""
    import psutil

    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    family = [*root.children(recursive=True), root]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    alive = _outlive(family, grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _outlive(alive, grace_s)


def _outlive(family: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still work after that time; a process that has ended is not waited for until its parent looks."""
    until = time.monotonic() + seconds
    while alive := [process for process in family if started_at(process.pid) and process.is_running()]:
        if time.monotonic() > until:
            break
        time.sleep(_GONE_S)
    return alive


def kill_children() -> None:
    """End every process that this one started, and theirs."""
    import psutil

    for child in psutil.Process().children():
        kill_tree(child.pid)


def run_child(
    command: Sequence[str],
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    on_line: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> int:
    """Run a child to its end, passing its output on; it dies with us, and takes its own children along.

    Args:
        command: program and arguments; no shell.
        what: its name in errors (`"training"`).
        env: variables added to ours.
        cwd: its working folder.
        on_line: called with each line of output (stdout and stderr together), as it comes.
        stop: asked about four times a second; when it says True the tree is ended.

    Returns:
        The exit code; -SIGTERM where `stop` ended it.

    Raises:
        StepError: the program cannot be started.
    """
    try:
        child = subprocess.Popen(
            list(command),
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509  (one system call before exec)
        )
    except OSError as error:
        raise StepError(
            f"{what} could not be started: {error}", "Check the installation: `make setup`."
        ) from error
    stopped = threading.Event()
    watcher = threading.Thread(target=_watch, args=(child, stop or (lambda: False), stopped), daemon=True)
    if stop is not None:
        watcher.start()
    try:
        for line in _lines(child):
            if on_line is not None:
                on_line(line)
        code = child.wait()
        if not stopped.is_set():
            return code
        watcher.join()  # until its descendants have ended too
        return -signal.SIGTERM
    finally:
        if child.poll() is None:
            kill_tree(child.pid)
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _lines(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """Lines of output until the child has ended, even if a process that it left behind still holds the pipe."""
    assert child.stdout is not None  # noqa: S101
    pipe, rest = child.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            ended = child.poll() is not None  # asked first: what it wrote before its end is read after it
            if selector.select(0 if ended else _POLL_S):
                piece = os.read(pipe, 65536)
                if not piece:
                    break
                *whole, rest = (rest + piece).split(b"\n")
                yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
            elif ended:
                break
    if rest:
        yield rest.decode(errors="replace")


def _watch(child: subprocess.Popen[bytes], stop: Callable[[], bool], stopped: threading.Event) -> None:
    while child.poll() is None:
        if stop():
            stopped.set()
            kill_tree(child.pid)
            return
        time.sleep(_POLL_S)


_DETACH = """
import os, sys
try:
    pid = os.fork()
except OSError as error:
    os.write(1, (error.strerror + "\\n").encode())
    os._exit(1)
if pid:
    os.write(1, b"%d\\n" % pid)
    os._exit(0)
os.setsid()
if not os.read(0, 1):
    os._exit(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A process between us and the detached one: it ends at once, so that the other is nobody's child. We cannot fork
ourselves, where threads may hold locks. The detached one begins when we know its pid; if we end before, so does it."""


def start_detached(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> int:
    """Start a process that outlives us, its output appended to `log`. Returns its pid.

    It has a session of its own and is not our descendant: who ends us with our tree leaves it alone. A command that
    cannot be run is told in the log alone.

    Raises:
        MachineError: the machine has no room for another process.
        OSError: the log cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            between = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _DETACH, *command],
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                bufsize=0,
            )
        except OSError as error:
            raise _no_process(error.strerror or str(error)) from error
    with between:
        assert between.stdin is not None  # noqa: S101
        assert between.stdout is not None  # noqa: S101
        said = between.stdout.readline().strip()
        if not said.isdigit():
            raise _no_process(said.decode(errors="replace") or "it was killed")
        pid = int(said)
        between.stdin.write(b"!")
    return pid


def _no_process(why: str) -> MachineError:
    return MachineError(
        f"no process can be started ({why[:1].lower()}{why[1:]})",
        "Close other programs, or raise the limits of processes and memory (`ulimit -u`, `ulimit -v`), then try again.",
    )


def started_at(pid: int) -> float | None:
    """When a live process started (seconds since the epoch), None if there is none; with the pid it names a process."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def is_same_process(pid: int, started: float) -> bool:
    """Whether `pid` still is the process that started at `started`."""
    now = started_at(pid)
    return now is not None and abs(now - started) < 1.0
