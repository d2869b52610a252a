"""A training's outputs at a URI: what a pod leaves there, another pod goes on from.

Checkpoints go there as they are made, and are whole once their mark is there, which comes last. Each process has a
folder of its own and sends what it wrote, so that no disk is shared.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from goldpath.core import storage
from goldpath.core.errors import GoldpathError, MachineError
from goldpath.core.fetch import fetch
from goldpath.training.job import COMPLETE

_KEPT = 2
"""Whole checkpoints that stay, as on a disk."""
_MARK = re.compile(rf"checkpoints/checkpoint-(\d+)/{re.escape(COMPLETE)}")


def is_remote(uri: str) -> bool:
    """Whether a URI names something that is not a path of this machine."""
    return "://" in uri and not uri.startswith("file://")


class Mirror:
    """The folder `folder`, kept at `uri`.

    Args:
        uri: where the outputs go.
        folder: where they are made.
        lasting: whether the folder outlives the pod (a claim): checkpoints then stay there, and are not sent.

    Raises:
        MachineError: (all methods) the store cannot be reached, or refuses.
    """

    def __init__(self, uri: str, folder: Path, lasting: bool = False) -> None:
        self.uri, self.folder, self.lasting = uri.rstrip("/"), folder, lasting

    def pull(self) -> None:
        """Bring the newest whole checkpoint here, and the rows up to it."""
        if self.lasting:
            return
        with self._told():
            if steps := self._whole():
                wanted = (f"checkpoints/checkpoint-{steps[-1]}/", "metrics.jsonl")
                fetch(
                    self.uri,
                    self.folder,
                    label="Bringing the checkpoint",
                    select=lambda names: [name for name in names if name.startswith(wanted)],
                )

    def keep(self, checkpoint: Path) -> None:
        """Send a checkpoint's files; in the process that marks it whole, the mark, and remove those that are old."""
        if self.lasting:
            return
        with self._told():
            at = f"checkpoints/{checkpoint.name}"
            if not (checkpoint / COMPLETE).is_file():
                self._send(at)
                return
            self._send("metrics.jsonl")
            self._send(f"{at}/{COMPLETE}")
            for step in self._whole()[:-_KEPT]:
                old = f"{self.uri}/checkpoints/checkpoint-{step}"
                storage.remove(f"{old}/{COMPLETE}")  # first: a checkpoint without its mark is none
                storage.remove(old)

    def finish(self) -> None:
        """Send everything but checkpoints, `outcome.json` last; then the checkpoints have served."""
        with self._told():
            for name in ("adapter", "model", "metrics.jsonl", "outcome.json"):
                self._send(name)
            if self.lasting:
                shutil.rmtree(self.folder, ignore_errors=True)
            else:
                storage.remove(f"{self.uri}/checkpoints")

    def push(self, name: str) -> None:
        """Send one file."""
        with self._told():
            self._send(name)

    def _send(self, name: str) -> None:
        """A file, or all files of a folder; nothing where there is none."""
        place = self.folder / name
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                storage.put_file(file, f"{self.uri}/{file.relative_to(self.folder).as_posix()}")

    def _whole(self) -> list[int]:
        """Steps of the whole checkpoints, in their order."""
        return sorted(int(found[1]) for name in storage.listed(self.uri) if (found := _MARK.fullmatch(name)))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A pod's storage is named by its job, not by a setting: say so."""
        try:
            yield
        except GoldpathError as error:
            raise MachineError(
                f"the outputs cannot be kept at {self.uri}: {error.message}",
                "Check the URI, and the credentials in the secret.",
            ) from error
