"""`goldpath render`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

KINDS = (
    "trainjob",
    "pytorchjob",
    "experiment",
    "model-cache",
    "inference-service",
    "llm-inference-service",
    "gpu-claim",
    "all",
)


@click.command("render")
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@click.option("-f", "--file", "file", required=True, help="The spec (YAML); - reads standard input.")
@click.option(
    "-o",
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write one file for each object into this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (a List; with -o one object a file).")
def command(kind: str, file: str, folder: Path | None, as_json: bool) -> None:
    """Print the Kubernetes objects that a spec becomes, for review and for GitOps.

    KIND is trainjob, pytorchjob, experiment, model-cache, inference-service, llm-inference-service, gpu-claim or
    all: all that the spec has sections for. No cluster is asked; the same spec gives the same bytes.

    \b
      goldpath render all -f deploy/examples/whole-path.yaml
      goldpath render gpu-claim -f spec.yaml | kubectl apply -f -
    """
    from goldpath.cli.printed import to_json
    from goldpath.pipelines import manifests

    text, name = _text(file)
    objects = manifests.render(text, name, kind)
    if folder:
        to_text = (lambda item: to_json(item) + "\n") if as_json else manifests.to_yaml
        for path in manifests.write(objects, folder, to_text, "json" if as_json else "yaml"):
            click.echo(path)
    elif as_json:
        click.echo(to_json({"apiVersion": "v1", "kind": "List", "items": objects}))
    else:
        click.echo("---\n".join(manifests.to_yaml(item) for item in objects), nl=False)


def _text(file: str) -> tuple[str, str]:
    """The text of the spec, and what to call it in errors."""
    from goldpath.core.errors import InputError

    name = "standard input" if file == "-" else file
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode(), name
    except UnicodeDecodeError:
        raise InputError(f"{name} is no text in UTF-8", "Give a spec in YAML.") from None
    except OSError as error:
        raise InputError(f"cannot read {name} ({error.strerror})", "Check the path.") from None
