"""Ports on the loopback address."""

from __future__ import annotations

import errno

import pytest

from goldpath.core.ports import bind, free_port


def test_a_free_port_can_be_bound_and_a_held_one_cannot() -> None:
    port = free_port()
    with bind(port) as held:
        assert held.getsockname() == ("127.0.0.1", port)
        held.listen()
        with pytest.raises(OSError, match="in use") as caught:
            free_port(port)
        assert caught.value.errno == errno.EADDRINUSE
    assert free_port(port) == port
