"""`goldpath kv-cache`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from goldpath.cli.printed import to_json

if TYPE_CHECKING:
    from rich.console import Console

    from goldpath.accelerators.kv_cache import KvCache, LayerGroup
    from goldpath.accelerators.kv_offload import Offload

_KINDS = {
    "full": "all tokens",
    "sliding": "window of",
    "chunked": "chunk of",
    "mla": "all tokens, latent",
    "state": "a state",
    "none": "nothing",
}
_GIB = 2**30


@click.command("kv-cache")
@click.option("--model", help="A known model's name, a path, or a URI with config.json (hf://, s3://, ...).")
@click.option("--tokens", type=int, default=8192, show_default=True, help="Tokens of a sequence.")
@click.option(
    "--dtype", default="auto", show_default=True, help="fp32, bf16, fp16, fp8, int8, int4; auto: the model's."
)
@click.option("--tp", type=int, default=1, show_default=True, help="GPUs that share each layer.")
@click.option("--sequences", type=int, default=1, show_default=True, help="Sequences at once.")
@click.option(
    "--formula",
    type=click.Choice(["architecture", "naive"]),
    default="architecture",
    show_default=True,
    help="naive: the popular calculator's, beside what is needed.",
)
@click.option("--reuse-tokens", type=int, help="Size LMCache for so many reusable tokens.")
@click.option("--chunk-size", type=int, default=256, show_default=True, help="LMCache's tokens a chunk.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--list", "as_list", is_flag=True, help="List the known models.")
def command(
    model: str | None,
    tokens: int,
    dtype: str,
    tp: int,
    sequences: int,
    formula: str,
    reuse_tokens: int | None,
    chunk_size: int,
    as_json: bool,
    as_list: bool,
) -> None:
    """How many bytes a model's KV cache takes on a GPU, exactly.

    Read from the model's config.json alone: grouped heads, latent attention, sliding windows and states are counted
    as what they are.
    """
    from goldpath.accelerators import kv_cache, kv_offload, models

    if as_list:
        _list(as_json)
        return
    if model is None:
        raise click.UsageError("Give --model, or --list for the names that are known.")
    architecture = models.load(model)
    needed = kv_cache.kv_cache(architecture, tokens, dtype, tp, sequences)
    shown, exact = needed, None
    if formula == "naive":
        shown, exact = kv_cache.kv_cache(architecture, tokens, dtype, tp, sequences, "naive"), needed
    reuse = (
        None
        if reuse_tokens is None
        else kv_offload.offload(architecture, reuse_tokens, dtype, tp, chunk_size)
    )
    if as_json:
        click.echo(to_json(_as_json(shown, exact, reuse)))
    else:
        _print(shown, exact, reuse)


def _as_json(shown: KvCache, exact: KvCache | None, reuse: Offload | None) -> dict[str, Any]:
    values = shown.model_dump(mode="json")
    if exact is not None:
        values["architecture"] = exact.model_dump(mode="json")
        values["factor"] = round(shown.bytes_total / exact.bytes_total, 4)
    if reuse is not None:
        values["lmcache"] = reuse.model_dump(mode="json")
    return values


def _list(as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from goldpath.accelerators import models

    found = models.known()
    if as_json:
        rows = [
            {"name": name, "source": models.source(name), "parameters": one.parameters}
            for name, one in found.items()
        ]
        click.echo(to_json(rows))
        return
    table = Table(box=None, header_style="bold")
    table.add_column("MODEL")
    for column in ("WEIGHTS", "LAYERS", "HEADS", "KV HEADS"):
        table.add_column(column, justify="right")
    for name, one in found.items():
        shared = sorted({layer.kv_heads for layer in one.layers if layer.kv_heads})
        heads = ", ".join("1 (MLA)" if one.layers[0].kind == "mla" else str(count) for count in shared)
        table.add_row(
            name,
            f"{one.parameters / 1e9:,.2f} B",
            str(len(one.layers)),
            str(one.attention_heads or "-"),
            heads or "-",
        )
    Console(highlight=False, soft_wrap=True).print(table)


def _print(shown: KvCache, exact: KvCache | None, reuse: Offload | None) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    needed = exact or shown
    where = f"{needed.dtype}, {needed.tokens:,} tokens"
    where += f" x {needed.sequences:,} sequences" if needed.sequences > 1 else ""
    where += f", per GPU of {needed.tensor_parallel}" if needed.tensor_parallel > 1 else ""
    console.print(f"[bold]{needed.model}[/]  {where}\n")
    if exact is not None:
        _print_naive(console, shown, exact)
    else:
        console.print(f"  [bold]{_gib(needed.bytes_total)}[/]\n")
    _print_groups(console, needed)
    if reuse is not None:
        _print_reuse(console, reuse)
    for note in needed.notes:
        console.print(f"  Note: {note}.", style="dim")


def _print_naive(console: Console, naive: KvCache, exact: KvCache) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("FORMULA")
    table.add_column("PER TOKEN", justify="right")
    table.add_column("TOTAL", justify="right")
    table.add_row("naive", f"{naive.bytes_per_token:,} B", f"{naive.bytes_total / _GIB:.4f} GB")
    table.add_row(
        "architecture", f"{exact.bytes_per_token:,} B", f"[bold]{exact.bytes_total / _GIB:.4f} GB[/]"
    )
    console.print(table)
    factor = naive.bytes_total / exact.bytes_total
    console.print(
        f"\n  The naive formula, 2 x layers x hidden_size x bytes x tokens, is [bold]{factor:,.2f} times[/] what the "
        "model needs.\n  A GB is 2^30 bytes here, as in the calculator.\n"
    )


def _print_groups(console: Console, needed: KvCache) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("LAYERS", justify="right")
    table.add_column("KEEP", no_wrap=True)
    for column in ("TOKENS", "PER TOKEN", "STATE", "A SEQUENCE"):
        table.add_column(column, justify="right", no_wrap=True)
    for group in needed.groups:
        table.add_row(*_group_row(group))
    console.print(table)
    console.print(
        f"\n  {needed.bytes_per_token:,} bytes a token and {needed.bytes_constant:,} bytes a sequence; "
        f"{needed.bytes_total:,} bytes in all.\n"
    )


def _group_row(group: LayerGroup) -> tuple[str, ...]:
    what = _KINDS[group.kind]
    if group.window:
        what += f" {group.window:,}"
    if group.kind != "state" and group.state_bytes:
        what += ", a state"
    return (
        str(group.layers),
        what,
        f"{group.tokens:,}" if group.tokens else "-",
        f"{group.bytes_per_token:,} B" if group.bytes_per_token else "-",
        _size(group.state_bytes) if group.state_bytes else "-",
        _size(group.bytes_total) if group.bytes_total else "-",
    )


def _print_reuse(console: Console, reuse: Offload) -> None:
    console.print(
        f"  [bold]LMCache[/] for {reuse.tokens:,} reusable tokens ({reuse.chunks:,} chunks of "
        f"{reuse.chunk_size}): [bold]{_gib(reuse.total_bytes)}[/] on CPU or disk\n"
    )
    worker = " (each of the workers)" if reuse.tensor_parallel > 1 else ""
    console.print(
        f"    in the engine     chunk_size: {reuse.chunk_size}, max_local_cpu_size: {reuse.max_local_cpu_size}, "
        f"max_local_disk_size: {reuse.max_local_disk_size}{worker}"
    )
    console.print(
        f"    multi-process     lmcache server --chunk-size {reuse.chunk_size} --l1-size-gb {reuse.l1_size_gb}\n"
    )


def _gib(size: int) -> str:
    return f"{size / _GIB:,.4f} GiB"


def _size(size: int) -> str:
    return _gib(size) if size >= _GIB // 10 else f"{size / 2**20:,.2f} MiB"
