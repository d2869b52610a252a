"""What a run's steps printed, printed again: once, or as it grows."""

from __future__ import annotations

import time
from pathlib import Path

import click

from goldpath.pipelines import runs

_POLL_S = 0.5


def print_logs(run: runs.Run, step: str | None, *, follow: bool) -> None:
    """Print all logs of a run, or the one of `step`; several are told apart by headers, as `tail -f` does.

    Args:
        run: whose logs.
        step: a log's name; None for all of them, those too that begin while we follow.
        follow: go on as they grow, until the run ends.
    """
    tail = _Tail(run.folder / "logs", step)
    while follow and runs.load(run.name).busy():
        tail.print_new()
        time.sleep(_POLL_S)
    tail.print_new(whole=True)


class _Tail:
    """Remembers what was printed."""

    def __init__(self, folder: Path, step: str | None) -> None:
        self._folder, self._step = folder, step
        self._printed: dict[Path, int] = {}
        self._source: Path | None = None

    def print_new(self, *, whole: bool = False) -> None:
        """Print the lines that are new, the log that changed first before the others; `whole`: unfinished ones too."""
        files = self._folder.glob(f"{self._step or '*'}.log")
        for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name)):
            with file.open("rb") as log:
                log.seek(self._printed.get(file, 0))
                for line in log:
                    if not (line.endswith(b"\n") or whole):
                        break  # its end comes later
                    self._head(file)
                    click.echo(line.rstrip(b"\n").decode(errors="replace"))
                    self._printed[file] = self._printed.get(file, 0) + len(line)

    def _head(self, file: Path) -> None:
        if self._step is None and file != self._source:
            click.echo(f"{chr(10) if self._source else ''}==> {file.stem} <==")
        self._source = file
