"""`goldpath pipelines`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from goldpath.cli.printed import to_json


@click.group("pipelines")
def command() -> None:
    """List pipelines, show their forms, compile them to YAML."""


@command.command("list")
def list_() -> None:
    """All pipelines."""
    from goldpath.pipelines import catalogue

    for name in catalogue.names():
        click.echo(f"{name:<12} {catalogue.load(name).description}")


@command.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(pipeline: str, as_json: bool) -> None:
    """The form of PIPELINE: every parameter, its default and what it means."""
    from goldpath.pipelines import catalogue

    fields = catalogue.form(pipeline)
    if as_json:
        click.echo(to_json([vars(field) for field in fields]))
        return
    for field in fields:
        click.echo(f"{field.name} ({field.kind}, default {json.dumps(field.default)})\n    {field.help}")


@command.command("compile")
@click.argument("pipeline")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. Default: PIPELINE.yaml.",
)
def compile_(pipeline: str, out: Path | None) -> None:
    """Compile PIPELINE to the YAML that Kubeflow takes, and print its digest."""
    from goldpath.pipelines import catalogue

    target = out or Path(f"{pipeline}.yaml")
    digest = catalogue.compile_pipeline(pipeline, target)
    click.echo(f"{target}  sha256:{digest}")
