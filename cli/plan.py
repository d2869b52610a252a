"""`goldpath plan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from goldpath.cli.printed import to_json

if TYPE_CHECKING:
    from rich.console import Console

    from goldpath.accelerators.plan import Plan
    from goldpath.accelerators.serving_memory import ServingShape
    from goldpath.accelerators.training_shape import TrainingShape

_GIB = 2**30
_WIDTH = 150
_LONG = 20
"""Rows, from which on a table pushes what stands above it off the screen."""
_METHODS = ("lora", "full", "qlora")
_SHARDINGS = ("none", "zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op")
_WEIGHTS = ("auto", "bf16", "fp16", "fp32", "fp8", "int8", "int4", "nf4", "mxfp4")


@click.group("plan")
def command() -> None:
    """What a training or an endpoint needs, on which GPU it fits, and what would help where it does not.

    Read from the model's config.json alone. The table holds the GPUs of the catalogue and their MIG slices.
    """


def _common(function: Callable[..., None]) -> Callable[..., None]:
    """The options that both have."""
    options = (
        click.option(
            "--model", required=True, help="A known model's name, a path, or a URI with config.json."
        ),
        click.option(
            "--gpu",
            default="any",
            show_default=True,
            help="GPUs of the catalogue, with commas between, or any; A100 is both, A30:1g.6gb one MIG profile. "
            "GPU requests are read too: whole:T4*4, shared:L4.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command.command()
@_common
@click.option(
    "--method", type=click.Choice(_METHODS), default="lora", show_default=True, help="What is trained."
)
@click.option("--sequence-length", type=int, default=1024, show_default=True, help="Tokens in a sequence.")
@click.option("--batch-size", type=int, default=1, show_default=True, help="Sequences in a forward pass.")
@click.option(
    "--gradient-checkpointing/--no-gradient-checkpointing",
    default=False,
    show_default=True,
    help="Keep the layers' inputs only, and compute the rest again.",
)
@click.option("--packing/--no-packing", default=True, show_default=True, help="Several chats in a sequence.")
@click.option("--lora-rank", type=int, default=16, show_default=True, help="Rank of the adapters.")
@click.option("--gradient-accumulation", type=int, default=1, show_default=True, help="Passes in a step.")
@click.option(
    "--attention",
    type=click.Choice(("sdpa", "eager", "flash")),
    default="sdpa",
    show_default=True,
    help="Implementation; goldpath trains with sdpa.",
)
@click.option(
    "--dtype",
    type=click.Choice(("bf16", "fp32")),
    default="bf16",
    show_default=True,
    help="What matrices are multiplied in; a GPU that has no bf16 is planned for with fp32.",
)
@click.option("--gpus", type=int, default=1, show_default=True, help="GPUs that train together.")
@click.option(
    "--sharding", type=click.Choice(_SHARDINGS), default="none", show_default=True, help="What they divide."
)
@click.option("--margin", type=float, default=0.1, show_default=True, help="Share of a GPU that stays free.")
def train(model: str, gpu: str, as_json: bool, margin: float, **given: Any) -> None:
    """Plan a fine-tuning run."""
    from goldpath.accelerators import chosen, models, plan
    from goldpath.accelerators.training_shape import TrainingShape

    architecture = models.load(model)
    given["gpus"] = chosen.devices(gpu, "--gpus", given["gpus"])
    shape = TrainingShape.parse({"precision": given.pop("dtype"), **given})
    made = _with(plan.train(architecture, shape, gpu, margin), _training_note(shape))
    if as_json:
        _print_json(made, shape.model_dump(mode="json"))
        return
    devices = f", each of {shape.gpus} GPUs ({shape.sharding})" if shape.gpus > 1 else ""
    checkpointing = ", gradient checkpointing" if shape.gradient_checkpointing else ""
    _print(
        made,
        f"{shape.method}, {shape.batch_size} x {shape.sequence_length:,} tokens, {_precision(shape, made)}"
        f"{checkpointing}{devices}; {_count(made.trainable_parameters)} of {_count(made.parameters)} trained",
    )


@command.command()
@_common
@click.option("--context", type=int, default=8192, show_default=True, help="Tokens of a sequence.")
@click.option("--concurrency", type=int, default=1, show_default=True, help="Sequences at once.")
@click.option(
    "--dtype",
    type=click.Choice(_WEIGHTS),
    default="auto",
    show_default=True,
    help="Of the weights; auto: as published (quantization_config, else torch_dtype).",
)
@click.option("--kv-dtype", default="auto", show_default=True, help="Of the cache: auto, bf16, fp8, ...")
@click.option("--tp", type=int, default=1, show_default=True, help="GPUs that share each layer.")
@click.option(
    "--utilization", type=float, default=0.9, show_default=True, help="vLLM's gpu_memory_utilization."
)
@click.option("--margin", type=float, default=0.0, show_default=True, help="Share that stays free besides.")
def serve(model: str, gpu: str, as_json: bool, margin: float, tp: int, dtype: str, **given: Any) -> None:
    """Plan an endpoint that vLLM serves."""
    from goldpath.accelerators import chosen, models, plan
    from goldpath.accelerators.serving_memory import ServingShape

    architecture = models.load(model)
    weights = architecture.stored if dtype == "auto" else dtype
    tp = chosen.devices(gpu, "--tp", tp)
    shape = ServingShape.parse({"weights": weights, "tensor_parallel": tp, **given})
    made = _with(plan.serve(architecture, shape, gpu, margin), _serving_note(shape))
    if as_json:
        _print_json(made, shape.model_dump(mode="json"))
        return
    devices = f", each of {tp} GPUs" if tp > 1 else ""
    _print(
        made,
        f"{_count(made.parameters)} in {shape.weights}, {shape.concurrency:,} x {shape.context:,} tokens{devices}",
    )


def _precision(shape: TrainingShape, made: Plan) -> str:
    return (
        shape.precision
        if made.precision == shape.precision
        else f"{made.precision} (no {shape.precision} there)"
    )


def _with(made: Plan, note: str) -> Plan:
    """The plan with another note, which text and JSON show alike."""
    return made.model_copy(update={"notes": (*made.notes, note)}) if note else made


def _serving_note(shape: ServingShape) -> str:
    share = f"vLLM's share of the GPU is {shape.utilization:.0%} (gpu_memory_utilization)"
    return f"{share}: NEED is that of the whole GPU."


def _training_note(shape: TrainingShape) -> str:
    return (
        "" if shape.answer_share < 1 else "Every token counts as an answer's: fewer need less for the loss."
    )


def _print_json(made: Plan, shape: dict[str, Any]) -> None:
    click.echo(to_json({**made.model_dump(mode="json"), "shape": shape}))


def _print(made: Plan, what: str) -> None:
    from rich.console import Console
    from rich.markup import escape  # CEL in a request has brackets

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)  # a narrower terminal wraps; figures are never cut
    console.print(f"[bold]{made.model}[/]  {what}\n")
    parts = ", ".join(
        f"{name.replace('_', ' ')} {_size(size)}" for name, size in made.components.items() if size
    )
    at = f" at the {made.peak}" if made.peak else ""
    console.print(f"  Needs [bold]{_size(made.need)}[/]{at}: {parts}\n")
    style = "green" if made.cheapest else "red"
    verdict = f"  [{style}]{escape(made.verdict[0].upper() + made.verdict[1:])}.[/]"
    if len(made.rows) > _LONG:  # the answer stands where `head` and a scrolling reader look, too
        console.print(f"{verdict}\n")
    _print_rows(console, made)
    console.print(f"\n{verdict}")
    _print_alternatives(console, made)
    for text in made.notes:
        console.print(f"  Note: {escape(text.rstrip('.'))}.", style="dim")


def _print_alternatives(console: Console, made: Plan) -> None:
    if not made.alternatives:
        return
    console.print("\n  What would help:")
    fallen = any(one.precision == "fp32" for one in made.alternatives)
    needs = [_size(one.need) + (f" in {one.precision}" if fallen else "") for one in made.alternatives]
    width, wide = max(len(one.change) for one in made.alternatives), max(9, *map(len, needs))
    for one, need in zip(made.alternatives, needs, strict=True):
        where = f"fits {one.request}" if one.request else "fits nowhere either"
        console.print(f"    {one.change:<{width}}  needs {need:>{wide}}: {where}", markup=False)


def _print_rows(console: Console, made: Plan) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("REQUEST", no_wrap=True)
    columns = ["NEED GIB", "HAS", "LEFT"]
    if made.kind == "serve":
        columns += ["CACHE TOKENS", "LONGEST", "AT ONCE"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("FITS", no_wrap=True)
    table.add_column("WHY", no_wrap=True)
    for row in made.rows:
        sizes = [f"{size / _GIB:,.2f}" for size in (row.need, row.has, row.headroom)]
        if held := row.capacity:
            counts = (held.kv_tokens, held.longest_context, held.concurrent_sequences)
            sizes += [f"{count:,}" for count in counts]
        elif made.kind == "serve":  # vLLM would not start there
            sizes += ["-"] * 3
        mark = "[bold green]cheapest[/]" if row.request == made.cheapest else "yes" if row.fits else "no"
        table.add_row(escape(row.request), *sizes, mark, escape(row.why), style="" if row.fits else "dim")
    console.print(table)


def _size(size: int) -> str:
    return f"{size / _GIB:,.2f} GiB" if abs(size) >= _GIB // 10 else f"{size / 2**20:,.1f} MiB"


def _count(number: int) -> str:
    return f"{number / 1e9:,.2f} B" if number >= 1e9 else f"{number / 1e6:,.1f} M"
