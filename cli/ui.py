"""`goldpath ui`."""

from __future__ import annotations

import click


@click.command("ui")
@click.option(
    "--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port on 127.0.0.1."
)
def command(port: int) -> None:
    """Open MLflow's page on experiments, models and pipelines; Ctrl-C ends it."""
    from goldpath.registry.ui import serve_ui

    serve_ui(port)
