"""What a client sees of the address while the engine behind it goes."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import Callable

from goldpath.core.ports import bind
from goldpath.serving.forward import Forwarder

QUESTION = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def through(engine: socket.socket, ask: Callable[[int], bytes]) -> bytes:
    """What `ask` gets from the address of a forwarder before that engine."""

    async def forward() -> bytes:
        forwarder = Forwarder(bind(0))
        forwarder.engine_port = engine.getsockname()[1]
        await forwarder.listen()
        try:
            return await asyncio.to_thread(ask, forwarder.port)
        finally:
            forwarder.close()

    return asyncio.run(forward())


def test_a_request_ends_when_the_engine_is_killed_in_the_middle_of_it() -> None:
    """An engine that dies with unread bytes resets the connection; the client still waits for its answer."""
    engine = socket.create_server(("127.0.0.1", 0))

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(QUESTION)
            taken, _ = engine.accept()
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            taken.close()
            return client.recv(1)

    with engine:
        assert through(engine, ask) == b""


def test_a_client_that_has_said_all_still_gets_the_answer() -> None:
    engine = socket.create_server(("127.0.0.1", 0))

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(QUESTION)
            client.shutdown(socket.SHUT_WR)
            taken, _ = engine.accept()
            with taken:
                said = b""
                while data := taken.recv(100):
                    said += data
                gc.collect()
                taken.sendall(b"answer to " + said[:4])
            return b"".join(iter(lambda: client.recv(100), b""))

    with engine:
        assert through(engine, ask) == b"answer to POST"
