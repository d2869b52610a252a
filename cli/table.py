"""Plain tables: columns aligned, nothing cut or folded, whatever the width of the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import click

_GAP = "  "


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below a bold header."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for number, row in enumerate((header, *rows)):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.secho(_GAP.join(cells).rstrip(), bold=number == 0)
