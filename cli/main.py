"""The `goldpath` command: light to start; each command's code is imported when it is called."""

from __future__ import annotations

import importlib
import sys

import click

COMMANDS = {
    "run": ("goldpath.cli.run", "Run a pipeline on this machine, or go on with a run (--resume)."),
    "runs": ("goldpath.cli.runs", "List, show, cancel and clean runs; read their logs."),
    "report": ("goldpath.cli.report", "Show a run's report: its steps, curves, samples and lineage."),
    "endpoints": ("goldpath.cli.endpoints", "List and stop the models that are being served here."),
    "chat": ("goldpath.cli.chat", "Talk to the champion in the terminal."),
    "ui": ("goldpath.cli.ui", "Open MLflow's page on experiments, models and pipelines."),
    "plan": ("goldpath.cli.plan", "Say what a training or an endpoint needs, and on which GPU it fits."),
    "kv-cache": ("goldpath.cli.kv_cache", "Say how many bytes a model's KV cache takes; size LMCache."),
    "render": (
        "goldpath.cli.render",
        "Print the Kubernetes objects that a spec becomes, for review and GitOps.",
    ),
    "doctor": ("goldpath.cli.doctor", "Say whether a cluster can run the golden path, and what is missing."),
    "pipelines": ("goldpath.cli.pipelines", "List pipelines, show their forms, compile them to YAML."),
}


class Lazy(click.Group):
    """Knows its commands by name; imports one when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command where the name is unknown."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean `goldpath {near[0]}`?" if near else " See `goldpath --help`."
            raise click.UsageError(error.message.rstrip(".") + "." + hint, ctx) from None


EPILOG = """\b
Start here:
  goldpath run finetune                          the whole path, with the default data and model
  goldpath run finetune -p dataset=chats.jsonl   your own chats (JSONL, CSV or Parquet)
  goldpath report                                what came out of it
  goldpath chat                                  talk to it

State lives in .goldpath (or GOLDPATH_HOME) and is safe to delete."""


@click.group(
    cls=Lazy,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="goldpath")
def cli() -> None:
    """From your data to a model that is tuned, fine-tuned, judged, registered and served.

    The same pipelines run on this machine and, compiled to YAML, on Kubeflow.
    """


def main() -> None:
    """Entry point: a GoldpathError becomes one line and exit code 2."""
    from goldpath.cli.program import as_typed
    from goldpath.core.errors import EXIT_CODE, GoldpathError, from_os_error

    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:  # `goldpath`, `goldpath runs`: what is there?
        click.echo(error.format_message())
    except click.UsageError as error:
        # click lists the choices of an argument that is missing one below the other.
        click.echo(f"error: {' '.join(error.format_message().split())}", err=True)
        sys.exit(EXIT_CODE)
    except GoldpathError as error:
        click.echo(f"error: {as_typed(error.line())}", err=True)
        sys.exit(EXIT_CODE)
    except (KeyboardInterrupt, click.Abort):
        click.echo("error: interrupted.", err=True)
        sys.exit(EXIT_CODE)
    except BrokenPipeError:  # `goldpath runs list | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        click.echo(f"error: {as_typed(from_os_error(error).line())}", err=True)
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    main()
