"""`goldpath doctor`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from goldpath.cli.printed import to_json

if TYPE_CHECKING:
    from goldpath.accelerators.cluster import ClusterReport


@click.command("doctor")
@click.option("--gpus", is_flag=True, help="Which GPU requests the cluster can serve, and by which path.")
@click.option(
    "--request", "requests", multiple=True, metavar="REQUEST", help="Ask about this one; repeatable."
)
@click.option("--kubeconfig", type=click.Path(dir_okay=False), default="", help="Instead of KUBECONFIG.")
@click.option("--context", default="", help="Of the kubeconfig, instead of its current one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(gpus: bool, requests: tuple[str, ...], kubeconfig: str, context: str, as_json: bool) -> None:
    """Look at a cluster and say what works there.

    \b
    goldpath doctor --gpus
    goldpath doctor --gpus --request 'mig:1g.10gb' --request 'mps:50%,10Gi'
    """
    if not gpus:
        raise click.UsageError("Say what to look at: goldpath doctor --gpus.")
    from goldpath.accelerators import cluster, reading
    from goldpath.accelerators.requests import parse
    from goldpath.core.errors import EXIT_CODE, MachineError

    for text in requests:
        parse(text)
    try:
        found = reading.read(kubeconfig, context)
    except MachineError as error:
        if not as_json:
            raise
        click.echo(to_json({"available": False, "error": error.message, "remedy": error.remedy}))
        sys.exit(EXIT_CODE)
    told = cluster.report(*found, wanted=requests)
    if as_json:
        click.echo(to_json({"available": True, **told.model_dump(mode="json")}))
    else:
        _show(told)


def _show(told: ClusterReport) -> None:
    from goldpath.cli.table import print_table

    names = ", ".join(told.cluster.paths) or "none"
    click.echo(f"{told.nodes} nodes with GPUs. Paths, the best first: {names}.")
    if told.cluster.products:
        click.echo(f"Products: {', '.join(told.cluster.products)}.")
    click.echo("")
    rows = []
    for one in told.services:
        count = "" if one.path is None else "unknown" if one.devices is None else str(one.devices)
        served = one.path is not None
        note = f"needs {one.note}" if served and one.note else one.note
        rows.append((one.request, one.path or "no", count, note))
    print_table(("REQUEST", "PATH", "DEVICES", "NOTE"), rows)
