"""`goldpath endpoints`."""

from __future__ import annotations

import json

import click


@click.group("endpoints")
def command() -> None:
    """List and stop the models that are being served here."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """All endpoints on this machine and whether they answer."""
    from rich.console import Console
    from rich.table import Table

    from goldpath.serving import endpoints

    found = [(endpoint, endpoints.healthy(endpoint)) for endpoint in endpoints.list_endpoints()]
    if as_json:
        click.echo(json.dumps([{**one.model_dump(), "healthy": up} for one, up in found], indent=2))
        return
    if not found:
        click.echo("No endpoints. `goldpath run finetune` deploys one.")
        return
    table = Table(box=None, header_style="bold")
    for column in ("NAME", "URL", "ENGINE", "MODEL", "HEALTHY"):
        table.add_column(column)
    for endpoint, up in found:
        table.add_row(
            endpoint.name, endpoint.url, endpoint.engine, endpoint.model_digest[:12], "yes" if up else "no"
        )
    Console(highlight=False, soft_wrap=True).print(table)


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def stop(names: tuple[str, ...]) -> None:
    """Stop endpoints by name."""
    from goldpath.serving import endpoints

    for name in names:
        endpoints.stop(name)
        click.echo(f"{name}: stopped.")
