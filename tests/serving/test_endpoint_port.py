"""What is known about a port before anything is deployed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from goldpath.core.errors import MachineError
from goldpath.serving import endpoints
from goldpath.serving.backends import local
from goldpath.serving.specs import ServeSpec
from tests.serving.conftest import FakeEngine


def test_a_taken_port_is_refused_except_to_the_endpoint_that_has_it(fake: FakeEngine, tiny: Path) -> None:
    live = endpoints.deploy(ServeSpec(name="one", model_uri=str(tiny)))
    port = int(live.url.rsplit(":", 1)[1].removesuffix("/v1"))
    local.check_port(ServeSpec(name="one", model_uri="/", port=port))
    says = f"port {port} is taken by the endpoint 'one'.*overrides.deploy.port.*`goldpath endpoints stop one`"
    with pytest.raises(MachineError, match=says):
        local.check_port(ServeSpec(name="two", model_uri="/", port=port))
    endpoints.stop("one")
    local.check_port(ServeSpec(name="two", model_uri="/", port=port))


def test_a_port_that_another_program_has_is_refused(home: Path) -> None:
    local.check_port(ServeSpec(name="one", model_uri="/"))
    assert not home.exists(), "where no port is asked for, nothing is looked at"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {port} is taken.*overrides.deploy.port; 0 takes any"):
            local.check_port(ServeSpec(name="one", model_uri="/", port=port))
