"""`goldpath runs`."""

from __future__ import annotations

import json

import click

from goldpath.core.errors import InputError


@click.group("runs")
def command() -> None:
    """List, show, cancel and clean runs; read their logs."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """All runs on this machine, oldest first."""
    from rich.console import Console
    from rich.table import Table

    from goldpath.cli.summary import as_dict, seconds
    from goldpath.core import settings
    from goldpath.pipelines import runs

    found = runs.all_runs()
    if as_json:
        click.echo(json.dumps([as_dict(run) for run in found], indent=2))
        return
    if not found:
        click.echo(f"No runs under {settings.home()}. Start one with `goldpath run finetune`.")
        return
    table = Table(box=None, header_style="bold")
    for column in ("RUN", "STATUS", "STARTED", "TIME", "MODEL", "LOSS DROP"):
        table.add_column(column)
    for run in found:
        version, judged = run.result("register_model"), run.result("evaluate")
        table.add_row(
            run.name,
            run.status,
            run.started.replace("+00:00", "Z"),
            f"{seconds(run):.0f} s" if run.ended else "",
            f"{version['name']} v{version['version']}" if version else "",
            f"{judged['loss_drop']:.1%}" if judged else "",
        )
    Console(highlight=False).print(table)


@command.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(run: str, as_json: bool) -> None:
    """One run: its parameters, steps and outcome."""
    from goldpath.cli.summary import as_dict
    from goldpath.core.files import read_json
    from goldpath.pipelines import runs

    found = runs.load(run)
    steps = sorted((read_json(file) for file in found.results().values()), key=lambda step: step["started"])
    if as_json:
        brief = [{key: step[key] for key in ("step", "started", "seconds", "reused")} for step in steps]
        click.echo(json.dumps({**as_dict(found), "parameters": found.parameters, "steps": brief}, indent=2))
        return
    click.echo(f"{found.name}: {found.pipeline}, {found.status}")
    click.echo(f"  folder   {found.folder}")
    for key, value in found.parameters.items():
        click.echo(f"  {key} = {value}")
    for step in steps:
        click.echo(f"  {step['seconds']:>7.1f} s  {step['step']}{' (reused)' if step['reused'] else ''}")
    if found.error:
        click.echo(f"  error: {found.error['message']}. {found.error['remedy']}")


@command.command()
@click.argument("run")
@click.argument("step", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on as the logs grow, until the run ends.")
def logs(run: str, step: str | None, follow: bool) -> None:
    """What the steps of a run printed; of one STEP where it is named."""
    from goldpath.cli.logs import print_logs
    from goldpath.pipelines import runs

    found = runs.load(run)
    known = sorted(file.stem for file in (found.folder / "logs").glob("*.log"))
    if step and step not in known:
        raise InputError(
            f"run {run!r} has no log of {step!r}",
            f"Logs: {', '.join(known)}." if known else "It has not begun.",
        )
    print_logs(found, step, follow=follow)


@command.command()
@click.argument("run")
def cancel(run: str) -> None:
    """Stop a run with all its processes; `goldpath run --resume` goes on with it later."""
    from goldpath.pipelines import runs

    runs.cancel(runs.load(run))
    click.echo(f"{run}: cancelled. Continue with `goldpath run --resume {run}`.")


@command.command()
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option("--all", "every", is_flag=True, help="Every run that is not running.")
@click.option(
    "--store", is_flag=True, help="Work kept for reuse and feature stores as well: later runs start afresh."
)
def clean(names: tuple[str, ...], every: bool, store: bool) -> None:
    """Delete runs. Registered models, the model cache and endpoints stay."""
    from goldpath.pipelines import runs
    from goldpath.pipelines.clean import clean_store

    if not names and not every and not store:
        raise InputError("which runs?", "Name them, or use `goldpath runs clean --all`.")
    chosen = (
        [run for run in runs.all_runs() if not run.busy()] if every else [runs.load(name) for name in names]
    )
    for run in chosen:
        runs.remove(run)
    click.echo(f"{len(chosen)} run{'' if len(chosen) == 1 else 's'} removed.")
    if store:
        freed, kept = clean_store()
        left = f" {kept} in use left alone." if kept else ""
        click.echo(f"{freed / 1e6:,.0f} MB of kept work removed.{left}")
