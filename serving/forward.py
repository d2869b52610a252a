"""The endpoint's address: connections to it are passed on to the engine's private port.

The address outlives the engine, so a crash and restart, or a new model, does not change it. Bytes are passed as they
are; while there is no engine the answer is 503, which clients try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

_UNAVAILABLE = b'{"error": {"message": "the engine is restarting, try again", "type": "unavailable"}}'


class Forwarder:
    """Listens on 127.0.0.1 and connects to `engine_port`."""

    def __init__(self, port: int) -> None:
        self.engine_port: int | None = None
        self.open = 0
        """Connections at this moment."""
        self._server: asyncio.Server | None = None
        self._socket = bind(port, share=True)
        self.port: int = self._socket.getsockname()[1]

    async def listen(self) -> None:
        """Start to take connections; once is enough."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=self._socket)

    def close(self) -> None:
        """Take no new connections; open ones go on."""
        if self._server is not None:
            self._server.close()
        self._socket.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side went away
        finally:
            self.open -= 1
            with contextlib.suppress(OSError):
                writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await self._connect()
        if upstream_reader is None or upstream is None:
            await _refuse(reader, writer)
            return
        back = asyncio.create_task(_pump(upstream_reader, writer))
        try:
            await _pump(reader, upstream)
            await back
        finally:
            back.cancel()
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


def bind(port: int, *, share: bool = False) -> socket.socket:
    """A socket bound to 127.0.0.1:`port` (0: any free one), not listening.

    With `share`, another socket of this user that shares too may hold the same port: that is how a new generation
    of an endpoint takes over the address from the old one without a gap.

    Raises:
        OSError: EADDRINUSE, the port is taken.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def free_port() -> int:
    """A port that nobody held a moment ago."""
    with bind(0) as sock:
        return int(sock.getsockname()[1])
