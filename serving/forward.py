"""The endpoint's address: connections to it are passed on to the engine's private port.

The address outlives the engine, so a crash and restart, or a new model, does not change it. Bytes are passed as they
are; while there is no engine the answer is 503, which clients try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

_UNAVAILABLE = b'{"error": {"message": "the engine is restarting, try again", "type": "unavailable"}}'


class Forwarder:
    """Takes connections from `listener`, a bound socket, and passes them on to `engine_port`."""

    def __init__(self, listener: socket.socket) -> None:
        self.engine_port: int | None = None
        self._tasks: set[asyncio.Task[None] | None] = set()
        """One for each connection: asyncio itself forgets those whose client has ended its side."""
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Start to take connections; once is enough."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=self.listener)

    def close(self) -> None:
        """Take no new connections; open ones go on."""
        if self._server is not None:
            self._server.close()
        self.listener.close()

    @property
    def open(self) -> int:
        """Connections at this moment."""
        return len(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side went away
        finally:
            with contextlib.suppress(OSError):
                writer.close()
                await writer.wait_closed()  # what is not sent yet counts as open
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await self._connect()
        if upstream_reader is None or upstream is None:
            await _refuse(reader, writer)
            return
        forth = asyncio.create_task(_pump(reader, upstream))
        back = asyncio.create_task(_pump(upstream_reader, writer))
        try:
            # A client may end its side and wait for the rest; where the engine has ended there is no rest.
            await asyncio.wait((forth, back), return_when=asyncio.FIRST_COMPLETED)
            if not back.done():
                await forth
            await back
        finally:
            forth.cancel()
            back.cancel()
            await asyncio.gather(forth, back, return_exceptions=True)
            upstream.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | tuple[None, None]:
        if self.engine_port is not None:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", self.engine_port)
        return None, None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.TimeoutError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout=2)
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 2\r\n"
        f"Content-Length: {len(_UNAVAILABLE)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + _UNAVAILABLE)
    await writer.drain()


def hand_out(listener: socket.socket, path: str) -> socket.socket:
    """Give `listener` to whoever connects to the Unix socket `path`, from the running event loop.

    A new generation takes the very socket of the old one, with the connections that wait in it: so none is lost,
    as it would be where two sockets shared the port. Only our user may connect.
    """
    desk = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    desk.bind(path)
    Path(path).chmod(0o600)
    desk.listen()
    desk.setblocking(False)

    def give() -> None:
        with contextlib.suppress(OSError), desk.accept()[0] as taker:
            socket.send_fds(taker, [b"1"], [listener.fileno()])

    asyncio.get_running_loop().add_reader(desk, give)
    return desk


def take_over(path: str) -> socket.socket | None:
    """The listener that is handed out at `path`; None where nobody does any more."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as desk:
        desk.settimeout(5)
        desk.connect(path)
        _, handles, _, _ = socket.recv_fds(desk, 1, 1)
        if handles:
            return socket.socket(fileno=handles[0])
    return None
