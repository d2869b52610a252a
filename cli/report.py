"""`goldpath report`."""

from __future__ import annotations

import click

from goldpath.core.errors import InputError


@click.command("report")
@click.argument("run", required=False)
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
def command(run: str | None, open_: bool) -> None:
    """Print where RUN's report is (the newest run's if none is named)."""
    from goldpath.pipelines import runs
    from goldpath.reporting.run import report_of_folder

    found = runs.load(run) if run else runs.latest()
    if found.status != "succeeded" or not found.report.exists():
        if found.busy():
            raise InputError(
                f"run {found.name!r} is running", f"Follow it: `goldpath runs logs -f {found.name}`."
            )
        # A run that failed has a page too: what it got to, and why it ended; an earlier try may have left another.
        report_of_folder(found.folder)
    click.echo(str(found.report))
    if open_:
        import webbrowser

        webbrowser.open(found.report.as_uri())
