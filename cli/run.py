"""`goldpath run`."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

import click

from goldpath.core.errors import GoldpathError, InputError, Interrupted


@click.command("run")
@click.argument("pipeline", required=False)
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value of the pipeline's form; repeat it.",
)
@click.option("-n", "--name", help="What to call the run. Default: the pipeline's name and a number.")
@click.option("--resume", metavar="RUN", help="Go on with a run: finished steps are not redone.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on standard output.")
def command(
    pipeline: str | None, params: tuple[str, ...], name: str | None, resume: str | None, as_json: bool
) -> None:
    """Run PIPELINE on this machine, from the same compiled YAML that Kubeflow runs.

    \b
    goldpath run finetune
    goldpath run finetune -p dataset=chats.jsonl -p max_steps=100 -p name=support-bot
    goldpath run --resume finetune-3

    `goldpath pipelines show finetune` lists the form.
    """
    from goldpath.cli.printed import to_json
    from goldpath.cli.summary import as_dict, print_summary, resumable
    from goldpath.core.resuming import resume_line
    from goldpath.pipelines import launch
    from goldpath.reporting.live import watching

    if resume:
        if pipeline or params or name:
            raise InputError("--resume takes no pipeline, -p or --name", f"Type `{resume_line(resume)}`.")
        run = launch.resume(resume)
    else:
        if not pipeline:
            raise InputError(
                "which pipeline?", "Type `goldpath run finetune`; `goldpath pipelines list` shows all."
            )
        run = launch.prepare(pipeline, parse(params), name, shlex.join(["goldpath", *sys.argv[1:]]))
    click.echo(f"run {run.name}, in {run.folder}", err=True)
    try:
        with watching() as watch:
            done = launch.execute(run, watch)
    except KeyboardInterrupt:
        raise Interrupted(
            f"run {run.name} was stopped by Ctrl-C", f"Continue with `{resume_line(run.name)}`."
        ) from None
    except GoldpathError as error:
        if as_json:
            status = "cancelled" if isinstance(error, Interrupted) else "failed"
            told = {
                "run": run.name,
                "status": status,
                "error": error.to_dict(),
                "resume": resume_line(run.name),
            }
            click.echo(to_json(told))
        raise resumable(error, run.name) from None
    if as_json:
        click.echo(to_json(as_dict(done)))
    else:
        print_summary(done)


def parse(params: tuple[str, ...]) -> dict[str, Any]:
    """`NAME=VALUE` pairs; `a.b=value` sets a field of the dict `a`.

    Raises:
        InputError: one that is not of that form, or is given twice.
    """
    values: dict[str, Any] = {}
    for pair in params:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"-p {pair!r} is not NAME=VALUE", "Type it like `-p dataset=chats.jsonl`.")
        head, *tail = key.split(".")
        if not tail:
            if key in values:
                raise InputError(f"-p {key} is given twice", "Give it once.")
            values[key] = value
            continue
        place = values.setdefault(head, {})
        for part in tail[:-1]:
            place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise InputError(f"-p {key} does not fit beside -p {head}", "Give the one or the other.")
        place[tail[-1]] = _value(value)
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
