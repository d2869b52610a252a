"""`goldpath doctor`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from goldpath.cli.printed import to_json

if TYPE_CHECKING:
    from goldpath.accelerators.cluster import ClusterReport
    from goldpath.core.checks.api import Api
    from goldpath.pipelines.doctor import Diagnosis

CANNOT_RUN = 1


@click.command("doctor")
@click.option(
    "--gpus", is_flag=True, help="Only which GPU requests the cluster can serve, and by which path."
)
@click.option(
    "--request",
    "requests",
    multiple=True,
    metavar="REQUEST",
    help="With --gpus: ask about this one; repeatable.",
)
@click.option(
    "-n",
    "--namespace",
    default="",
    help="Where pipelines run. Default: GOLDPATH_NAMESPACE, or the context's.",
)
@click.option(
    "--service-account", default="", metavar="NAME", help="Ask for its permissions instead of your own."
)
@click.option("--kubeconfig", type=click.Path(dir_okay=False), default="", help="Instead of KUBECONFIG.")
@click.option("--context", default="", help="Of the kubeconfig, instead of its current one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    gpus: bool,
    requests: tuple[str, ...],
    namespace: str,
    service_account: str,
    kubeconfig: str,
    context: str,
    as_json: bool,
) -> None:
    """Look at a cluster: can the golden path run there, and what is missing? Changes nothing.

    Exit code: 0 if it can run, 1 if something that it needs is missing or cannot be told, 2 for a mistake or where
    no cluster answers. With --gpus 0 or 2.

    \b
    goldpath doctor --namespace goldpath --service-account goldpath-pipeline
    goldpath doctor --gpus
    goldpath doctor --gpus --request 'mig:1g.10gb' --request 'mps:50%,10Gi'
    """
    if requests and not gpus:
        raise click.UsageError("--request belongs to --gpus: goldpath doctor --gpus --request REQUEST.")
    if gpus and (namespace or service_account):
        raise click.UsageError(
            "GPUs are the whole cluster's: leave away --gpus, or the namespace and account."
        )
    from goldpath.accelerators.requests import parse
    from goldpath.core.checks.api import connect
    from goldpath.core.errors import EXIT_CODE, MachineError

    for text in requests:
        parse(text)
    try:
        api = connect(kubeconfig, context)
        if gpus:
            _gpus(api, requests, as_json)
            return
        from goldpath.pipelines.doctor import diagnose

        found = diagnose(api, namespace, service_account)
    except MachineError as error:
        if not as_json:
            raise
        click.echo(to_json({"available": False, "error": error.message, "remedy": error.remedy}))
        sys.exit(EXIT_CODE)
    if as_json:
        click.echo(to_json({"available": True, **found.model_dump(mode="json")}))
    else:
        _show(found)
    if not found.can_run:
        sys.exit(CANNOT_RUN)


def _gpus(api: Api, requests: tuple[str, ...], as_json: bool) -> None:
    from goldpath.accelerators import cluster, reading

    told = cluster.report(*reading.read_from(api), wanted=requests)
    if as_json:
        click.echo(to_json({"available": True, **told.model_dump(mode="json")}))
    else:
        _show_gpus(told)


def _show(found: Diagnosis) -> None:
    from goldpath.cli.program import as_typed
    from goldpath.cli.table import print_table

    rows = [(one.name, one.state, "yes" if one.required else "", as_typed(one.note)) for one in found.checks]
    print_table(("CHECK", "STATE", "NEEDED", "NOTE"), rows)
    click.echo("")
    open_ = [one for one in found.checks if one.state != "ok" and one.required]
    if found.can_run:
        click.echo(f"The golden path can run in {found.namespace}.")
    else:
        click.echo(
            f"The golden path cannot run in {found.namespace} yet: {len(open_)} of the needed checks are not ok."
        )
    remedies: dict[str, list[str]] = {}
    for one in (*open_, *(one for one in found.checks if one.remedy and one not in open_)):
        remedies.setdefault(one.remedy, []).append(one.name)
    for remedy, names in remedies.items():
        click.echo(f"\n{', '.join(names)}:\n  {as_typed(remedy)}")


def _show_gpus(told: ClusterReport) -> None:
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
        first, *more = note.split("; ")  # a reason a line: together they are wider than any terminal
        rows.append((one.request, one.path or "no", count, first))
        rows += [("", "", "", reason) for reason in more]
    print_table(("REQUEST", "PATH", "DEVICES", "NOTE"), rows)
