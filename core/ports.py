"""TCP ports on the loopback address."""

from __future__ import annotations

import socket
from contextlib import suppress

HOST = "127.0.0.1"


def bind(port: int) -> socket.socket:
    """A socket bound to 127.0.0.1:`port` (0: any free one), not listening.

    Raises:
        OSError: EADDRINUSE, the port is taken.
        OverflowError: it is no port.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock


def free_port(port: int = 0) -> int:
    """`port`, or with 0 any, that nobody held a moment ago.

    Raises:
        OSError: EADDRINUSE, the port is taken.
        OverflowError: it is no port.
    """
    with bind(port) as sock:
        return int(sock.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could have the port now."""
    try:
        with bind(port) as sock:
            sock.listen()
            return True
    except OSError:
        return False


def holder(port: int) -> str:
    """` by nginx (pid 123)`: the program that listens there; empty where the system does not tell."""
    import psutil

    with suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                return f" by {psutil.Process(one.pid).name()} (pid {one.pid})"
    return ""
