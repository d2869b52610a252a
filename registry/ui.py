"""MLflow's own page on the embedded store."""

from __future__ import annotations

import sys
from collections.abc import Callable

from goldpath.core import settings
from goldpath.core.errors import MachineError, StepError
from goldpath.core.ports import HOST, free_port
from goldpath.core.process import run_child
from goldpath.core.tracking_store import tracking_store


def serve_ui(port: int = 5000, *, stop: Callable[[], bool] | None = None) -> str:
    """Run MLflow's server on loopback until Ctrl-C, printing its address once it answers.

    Args:
        port: 0 takes any free one.
        stop: asked now and then; ends the server when it says True.

    Returns:
        The address that it had.

    Raises:
        MachineError: the port is taken; the database is damaged or locked.
        StepError: the server ended by itself.
    """
    chosen = _port(port)
    uri = tracking_store()
    url = f"http://{HOST}:{chosen}"
    last: list[str] = []

    def on_line(line: str) -> None:
        last[:] = [*last[-4:], line]
        if "Uvicorn running on" in line:  # after its start-up, when it listens
            print(f"MLflow is at {url} (Ctrl-C ends it)", flush=True)  # noqa: T201

    try:
        code = run_child(_command(uri, chosen), what="MLflow's server", on_line=on_line, stop=stop)
    except KeyboardInterrupt:
        return url
    if code > 0:
        raise StepError(
            f"MLflow's server ended with exit code {code}: {' '.join(last)[-300:]}",
            "Check the last lines above, then start it again.",
        )
    return url


def _command(uri: str, port: int) -> list[str]:
    options = {
        "--backend-store-uri": uri,
        "--default-artifact-root": settings.state("mlartifacts").as_uri(),
        "--artifacts-destination": settings.state("mlartifacts").as_uri(),
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
    }
    return [sys.executable, "-m", "mlflow", "server", *(part for pair in options.items() for part in pair)]


def _port(port: int) -> int:
    try:
        return free_port(port)
    except OverflowError:
        raise MachineError(f"{port} is not a port", "Choose one from 1 to 65535.") from None
    except OSError as error:
        raise MachineError(
            f"port {port} on {HOST} cannot be used ({error.strerror})",
            "Choose another with --port, or end the program that listens there.",
        ) from None
