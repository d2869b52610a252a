"""`goldpath chat`."""

from __future__ import annotations

import sys
import threading

import click

from goldpath.core.errors import InputError


@click.command("chat")
@click.argument("endpoint", required=False)
@click.option("-m", "--message", help="Ask this one thing and end.")
@click.option(
    "--max-tokens", default=256, show_default=True, type=click.IntRange(1, 8192), help="Length of an answer."
)
def command(endpoint: str | None, message: str | None, max_tokens: int) -> None:
    """Talk to ENDPOINT (the only one that runs, if it is not named). Ctrl-D or an empty line ends it."""
    from goldpath.serving import endpoints
    from goldpath.serving.chat import stream_chat

    if message is not None and not message.strip():
        raise InputError("the message is empty", 'Say something: `goldpath chat -m "What is a Pod?"`.')
    if endpoint:
        live = endpoints.get(endpoint)
    else:
        running = [one for one in endpoints.list_endpoints() if endpoints.healthy(one)]
        if not running:
            raise InputError("no endpoint is running", "Deploy one with `goldpath run finetune`.")
        if len(running) > 1:
            raise InputError(
                "several endpoints are running", f"Name one: {', '.join(one.name for one in running)}."
            )
        live = running[0]
    history: list[dict[str, str]] = []
    while True:
        asked = message if message is not None else _ask(live.name)
        if not asked:
            return
        history.append({"role": "user", "content": asked})
        answer = ""
        cut = threading.Event()
        for piece in stream_chat(live, history, max_tokens, cut.set):
            answer += piece
            click.echo(piece, nl=False)
            sys.stdout.flush()
        click.echo()
        if cut.is_set():
            click.echo(f"(cut after {max_tokens} tokens; --max-tokens takes more)", err=True)
        history.append({"role": "assistant", "content": answer})
        if message is not None:
            return


def _ask(name: str) -> str:
    try:
        return input(f"{name}> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
