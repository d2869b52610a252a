"""A training's outputs at a URI: what a pod leaves there, another pod goes on from.

Checkpoints go there as they are made, and are whole once their mark is there, which comes last. Each process has a
folder of its own and sends what it wrote, so that no disk is shared.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from goldpath.core.errors import GoldpathError, MachineError
from goldpath.training.job import COMPLETE

_KEPT = 2
"""Whole checkpoints that stay, as on a disk."""
_STEP = re.compile(r"checkpoint-(\d+)$")


def is_remote(uri: str) -> bool:
    """Whether a URI names something that is not a path of this machine."""
    return "://" in uri and not uri.startswith("file://")


class Mirror:
    """The folder `folder`, kept at `uri`.

    Raises:
        MachineError: (all methods) the store cannot be reached, or refuses.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri.rstrip("/"), folder

    def pull(self) -> None:
        """Bring the newest whole checkpoint here, and the rows up to it."""
        with self._store() as (fs, root):
            steps = self._whole(fs, root)
            if not steps:
                return
            name = f"checkpoints/checkpoint-{steps[-1]}"
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            fs.get(f"{root}/{name}/", f"{self.folder / name}/", recursive=True)
            if fs.exists(f"{root}/metrics.jsonl"):
                fs.get_file(f"{root}/metrics.jsonl", str(self.folder / "metrics.jsonl"))

    def keep(self, checkpoint: Path) -> None:
        """Send a checkpoint's files; in the process that marks it whole, the mark, and remove those that are old."""
        with self._store() as (fs, root):
            at = f"{root}/checkpoints/{checkpoint.name}"
            mark = checkpoint / COMPLETE
            if not mark.is_file():
                self._send(fs, checkpoint, at)
                return
            self._send_file(fs, self.folder / "metrics.jsonl", f"{root}/metrics.jsonl")
            self._send_file(fs, mark, f"{at}/{COMPLETE}")
            for step in self._whole(fs, root)[:-_KEPT]:
                # The mark goes first: a checkpoint without it is none.
                fs.rm_file(f"{root}/checkpoints/checkpoint-{step}/{COMPLETE}")
                fs.rm(f"{root}/checkpoints/checkpoint-{step}", recursive=True)

    def finish(self) -> None:
        """Send everything but checkpoints, `outcome.json` last; then the checkpoints have served."""
        with self._store() as (fs, root):
            for part in ("adapter", "model"):
                if (self.folder / part).is_dir():
                    self._send(fs, self.folder / part, f"{root}/{part}")
            for name in ("metrics.jsonl", "outcome.json"):
                self._send_file(fs, self.folder / name, f"{root}/{name}")
            if fs.exists(f"{root}/checkpoints"):
                fs.rm(f"{root}/checkpoints", recursive=True)

    def push(self, name: str) -> None:
        """Send one file."""
        with self._store() as (fs, root):
            self._send_file(fs, self.folder / name, f"{root}/{name}")

    def _send(self, fs: Any, folder: Path, target: str) -> None:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self._send_file(fs, file, f"{target}/{file.relative_to(folder).as_posix()}")

    @staticmethod
    def _send_file(fs: Any, file: Path, target: str) -> None:
        if file.is_file():
            try:
                fs.put_file(str(file), target)
            except (
                FileNotFoundError
            ):  # a file system; object stores have no folders, and need no right to make any
                fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                fs.put_file(str(file), target)

    @staticmethod
    def _whole(fs: Any, root: str) -> list[int]:
        """Steps of the whole checkpoints, in their order."""
        fs.invalidate_cache()
        if not fs.exists(f"{root}/checkpoints"):
            return []
        names = [_STEP.search(path.rstrip("/")) for path in fs.ls(f"{root}/checkpoints", detail=False)]
        steps = sorted(int(name[1]) for name in names if name)
        return [step for step in steps if fs.exists(f"{root}/checkpoints/checkpoint-{step}/{COMPLETE}")]

    @contextlib.contextmanager
    def _store(self) -> Any:
        import fsspec

        try:
            fs, root = fsspec.core.url_to_fs(self.uri)
            yield fs, root.rstrip("/")
        except GoldpathError:
            raise
        except Exception as error:  # of whatever library the scheme has
            reason = " ".join(str(error).split())[:200]
            raise MachineError(
                f"the outputs cannot be kept at {self.uri} ({type(error).__name__}: {reason})",
                "Check the URI, and the credentials in the secret.",
            ) from error
