"""`goldpath endpoints`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from goldpath.cli.printed import to_json

if TYPE_CHECKING:
    from goldpath.serving.results import Endpoint


@click.group("endpoints")
def command() -> None:
    """List and stop the models that are being served here."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """All endpoints on this machine and whether they answer."""
    from goldpath.cli.table import print_table
    from goldpath.serving import endpoints

    found = [(endpoint, endpoints.healthy(endpoint)) for endpoint in endpoints.list_endpoints()]
    if as_json:
        click.echo(to_json([{**one.model_dump(), "healthy": up} for one, up in found]))
        return
    if not found:
        click.echo("No endpoints. `goldpath run finetune` deploys one.")
        return
    rows = [(one.name, _model(one), one.url, "yes" if up else "no") for one, up in found]
    print_table(("NAME", "MODEL", "URL", "HEALTHY"), rows)


def _model(endpoint: Endpoint) -> str:
    """The model and its version; its digest where it was never registered."""
    version = f"v{endpoint.model_version}" if endpoint.model_version else endpoint.model_digest[:12]
    return f"{endpoint.model} {version}"


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def stop(names: tuple[str, ...]) -> None:
    """Stop endpoints by name."""
    from goldpath.serving import endpoints

    for name in names:
        endpoints.stop(name)
        click.echo(f"{name}: stopped.")
