"""`goldpath runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from goldpath.cli.printed import to_json
from goldpath.core.errors import InputError

if TYPE_CHECKING:
    from goldpath.pipelines.runs import Run


@click.group("runs")
def command() -> None:
    """List, show, cancel and clean runs; read their logs."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """All runs on this machine, oldest first."""
    from goldpath.cli.summary import as_dict
    from goldpath.cli.table import print_table
    from goldpath.core import settings
    from goldpath.pipelines import runs

    found = runs.all_runs()
    if as_json:
        click.echo(to_json([as_dict(run) for run in found]))
        return
    if not found:
        click.echo(f"No runs under {settings.home()}. Start one with `goldpath run finetune`.")
        return
    print_table(("RUN", "STATUS", "STARTED (UTC)", "TIME", "MODEL", "LOSS"), [_row(run) for run in found])


def _row(run: Run) -> tuple[str, ...]:
    from goldpath.cli.summary import seconds
    from goldpath.reporting.numbers import duration

    version, judged = run.result("register_model"), run.result("evaluate")
    return (
        run.name,
        run.status,
        run.started[:16].replace("T", " "),
        duration(seconds(run)) if run.ended else "",
        f"{version['name']} v{version['version']}" if version else "",
        f"{-judged['loss_drop']:+.1%}" if judged else "",
    )


@command.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(run: str, as_json: bool) -> None:
    """One run: its parameters, steps and outcome, and how to go on with it."""
    from goldpath.cli.show import as_dict, print_run
    from goldpath.pipelines import runs

    found = runs.load(run)
    if as_json:
        click.echo(to_json(as_dict(found)))
    else:
        print_run(found)


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
    from goldpath.cli.program import as_typed
    from goldpath.pipelines import runs

    runs.cancel(runs.load(run))
    click.echo(as_typed(f"{run}: cancelled. Continue with `goldpath run --resume {run}`."))


@command.command()
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option("--all", "every", is_flag=True, help="Every run that is not running.")
@click.option(
    "--store", is_flag=True, help="Work kept for reuse and feature stores as well: later runs start afresh."
)
def clean(names: tuple[str, ...], every: bool, store: bool) -> None:
    """Delete runs: their folders under runs/ with logs and reports.

    What they made stays, in the folder of all state (.goldpath, or GOLDPATH_HOME):

    \b
    endpoints                      until goldpath endpoints stop NAME
    work kept for reuse            until goldpath runs clean --store
    the model cache, models/       can be deleted; models are fetched again
    registered models, mlartifacts/ and mlflow.db
                                   only with the whole folder (make clean-state)
    """
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
