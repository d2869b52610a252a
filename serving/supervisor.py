"""Keeps one engine running behind one address: `python -m goldpath.serving.supervisor FOLDER`.

The folder is a generation of an endpoint. `plan.json` in it says what to run (see `backends.local`); `state.json`
says how it goes: `starting`, `ready`, `restarting`, `draining`, `failed`, `stopped`. The supervisor ends, and the
engine with it, when

- it gets SIGTERM;
- its folder or the endpoint's `endpoint.json` is removed, or names another generation (it then finishes the
  connections that are open);
- who deploys it ends before the deployment is done;
- the engine fails before it was ever ready, or crashes too often.

An engine that crashes, or says that it is not healthy, is started again after a pause that doubles each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from goldpath.core.errors import GoldpathError
from goldpath.core.files import read_json, write_json
from goldpath.core.ports import bind, free_port
from goldpath.core.process import die_with_parent, is_same_process, kill_tree, started_at
from goldpath.serving.forward import Forwarder, hand_out, take_over

HAND_OVER = "listener.sock"
"""In the generation's folder: where the next generation takes the listening socket over."""
_POLL_S = 0.25
_STRIKES = 3
_LONG_LIFE_S = 60.0
"""An engine that ran this long has proved itself: its crashes are counted anew."""
_MAX_PAUSE_S = 30.0
_DRAIN_S = 30.0
_LOG_BYTES = 5_000_000
_NOISE = re.compile(r"^(INFO|DEBUG)[: ]|^\s*(File |[\^~]+$)|%\||^Traceback|^\s*$|^During handling|^\[?W\d{4}")
_ERROR = re.compile(r"^(\w+\.)*\w*(Error|Exception|Killed)\b|^error\b|\bERROR\b", re.IGNORECASE)


def last_words(log: str) -> str:
    """The line of a log that says why: the last error, else the last line that is not chatter."""
    lines = [line.strip() for line in log.replace("\r", "\n").splitlines() if not _NOISE.search(line)]
    errors = [line for line in lines if _ERROR.search(line)]
    return (errors or lines or [""])[-1][:300]


class _EngineGoneError(Exception):
    """The engine ended or does not work; the text says how."""


class Supervisor:
    """One generation of an endpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan: dict[str, Any] = read_json(folder / "plan.json")
        self.log = folder / "engine.log"
        listener = take_over(self.plan["take_over"]) if self.plan["take_over"] else None
        self.forwarder = Forwarder(listener or bind(int(self.plan["port"])))
        self.restarts = 0
        self.ready_seconds = 0.0
        self.engine: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Until stopped or failed; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        self._say("starting")
        self.desk = hand_out(self.forwarder.listener, HAND_OVER)
        keep = asyncio.create_task(self._keep())
        ends = {asyncio.create_task(self._stop.wait()), asyncio.create_task(self._watch()), keep}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if keep.done() and (failure := keep.exception()):
                self._say("failed", error=str(failure))
                return 1
            self._say("stopped")
            return 0
        finally:
            self._close()
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    def _close(self) -> None:
        if self.desk.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.desk)
            self.desk.close()
        self.forwarder.close()

    def _say(self, status: str, error: str = "") -> None:
        if not self.folder.exists():
            return  # removed: nobody to tell, and writing would make it anew
        with contextlib.suppress(GoldpathError):  # a full disk must not end the service
            write_json(
                self.folder / "state.json",
                {
                    "status": status,
                    "error": error,
                    "pid": os.getpid(),
                    "pid_started": started_at(os.getpid()),
                    "engine_pid": self.engine.pid if self.engine else None,
                    "port": self.forwarder.port,
                    "restarts": self.restarts,
                    "ready_seconds": round(self.ready_seconds, 2),
                },
            )

    async def _watch(self) -> None:
        """Returns when there is no reason to go on."""
        owner, committed = self.plan["owner"], False
        while self.folder.exists():
            current = _generation(self.folder.parent)
            if current == self.folder.name:
                committed = True
            elif committed:
                if current is not None:
                    await self._drain()
                return
            elif not is_same_process(owner["pid"], owner["started"]):
                return
            await asyncio.sleep(_POLL_S)

    async def _drain(self) -> None:
        self._close()
        self._say("draining")
        until = time.monotonic() + _DRAIN_S
        await asyncio.sleep(_POLL_S)  # what was taken a moment ago is not counted yet
        while self.forwarder.open and time.monotonic() < until:
            await asyncio.sleep(_POLL_S)

    async def _keep(self) -> None:
        """Start the engine, again after a crash; raises when it is hopeless."""
        crashes = 0
        while True:
            began = time.monotonic()
            try:
                await self._live()
            except _EngineGoneError as gone:
                why = last_words(self._tail()) or str(gone)
                never_ready = not self.ready_seconds
                if never_ready and not (crashes == 0 and "address already in use" in why.lower()):
                    raise _EngineGoneError(f"{gone}: {why}") from None
                crashes = 1 if time.monotonic() - began > _LONG_LIFE_S else crashes + 1
                if crashes > int(self.plan["max_restarts"]):
                    raise _EngineGoneError(f"{gone} {crashes} times in a row: {why}") from None
                self.restarts += 1
                self._say("restarting", error=why)
                await asyncio.sleep(min(float(self.plan["pause_s"]) * 2 ** (crashes - 1), _MAX_PAUSE_S))

    async def _live(self) -> None:
        """One life of the engine; raises at its end."""
        port, began = free_port(), time.monotonic()
        command = [part.replace("{port}", str(port)) for part in self.plan["command"]]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GOLDPATH_")}
        engine = await asyncio.create_subprocess_exec(
            *command,
            env={**environment, **self.plan["environment"]},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )
        self.engine = engine
        copying = asyncio.create_task(self._copy_log(engine))
        try:
            await self._until_ready(engine, port)
            self.ready_seconds = time.monotonic() - began
            self.forwarder.engine_port = port
            await self.forwarder.listen()
            self._say("ready")
            await self._until_unwell(engine, port)
        finally:
            self.forwarder.engine_port = None
            await asyncio.shield(asyncio.to_thread(kill_tree, engine.pid, 3.0))
            await asyncio.wait({copying}, timeout=2)
            copying.cancel()
            self.engine = None

    async def _until_ready(self, engine: asyncio.subprocess.Process, port: int) -> None:
        until = time.monotonic() + float(self.plan["ready_seconds"])
        warmup = self.plan["warmup"]
        while (left := until - time.monotonic()) > 0:
            _check_alive(engine)
            if await asyncio.to_thread(_ask, port, self.plan["health"], None, min(left, 5)) == 200:
                # The first completion allocates the KV cache and fixes the sampling: it belongs to the start.
                answer = asyncio.create_task(
                    asyncio.to_thread(_ask, port, warmup["path"], warmup["body"], left)
                )
                ended = asyncio.create_task(engine.wait())
                await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
                status = await answer
                _check_alive(engine)
                if status == 200:
                    return
                raise _EngineGoneError(f"the first completion failed with status {status}")
            await asyncio.sleep(_POLL_S)
        raise _EngineGoneError(f"not ready after {self.plan['ready_seconds']} s")

    async def _until_unwell(self, engine: asyncio.subprocess.Process, port: int) -> None:
        ended, strikes = asyncio.ensure_future(engine.wait()), 0
        while strikes < _STRIKES:
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes with the result.
            await asyncio.wait({ended}, timeout=float(self.plan["health_s"]))
            _check_alive(engine)
            status = await asyncio.to_thread(_ask, port, self.plan["health"], None, 10)
            strikes = 0 if status == 200 else strikes + 1
        raise _EngineGoneError("the engine is not healthy")

    async def _copy_log(self, engine: asyncio.subprocess.Process) -> None:
        """The engine's output, in a file that stays below twice `_LOG_BYTES` with its predecessor."""
        assert engine.stdout is not None  # noqa: S101
        while data := await engine.stdout.read(65_536):
            with contextlib.suppress(OSError):
                if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
                    self.log.replace(self.log.with_suffix(".log.1"))
                with self.log.open("ab") as file:
                    file.write(data)

    def _tail(self) -> str:
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 20_000))
            return file.read().decode("utf-8", "replace")
        return ""


def _check_alive(engine: asyncio.subprocess.Process) -> None:
    code = engine.returncode
    if code is not None:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise _EngineGoneError(f"the engine {how}")


def _generation(endpoint: Path) -> str | None:
    """Which generation is the endpoint's; None where the endpoint is gone."""
    try:
        return str(json.loads((endpoint / "endpoint.json").read_text("utf-8"))["generation"])
    except (OSError, ValueError, KeyError):
        return None


def _ask(port: int, path: str, body: dict[str, Any] | None, timeout: float) -> int:
    """Status of one request to the engine; 0 where it did not answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=data, headers={"Content-Type": "application/json"}
    )
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except (OSError, ValueError):
        return 0


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> int:
    """Run the generation in the folder that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.stdout.write(f"{__doc__}\n")
        return 0 if len(sys.argv) == 2 else 2
    return asyncio.run(_main(Path(sys.argv[1])))


async def _main(folder: Path) -> int:
    try:
        os.chdir(folder)  # a Unix socket's path may have 107 characters: ours is relative
        supervisor = Supervisor(folder)
    except OSError as error:
        write_json(
            folder / "state.json",
            {"status": "failed", "error": f"cannot take the port: {error.strerror or error}"},
        )
        return 1
    return await supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
