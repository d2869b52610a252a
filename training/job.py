"""What a worker is asked to do, the files it leaves, and the lines it says to whoever started it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldpath.core.files import read_json
from goldpath.training.specs import TrainSpec

COMPLETE = "goldpath.json"
"""Marks a whole checkpoint."""
_PREFIX = "goldpath-training "


@dataclass(frozen=True)
class Job:
    """One training: inputs, and the folder of its outputs."""

    spec: TrainSpec
    frame: Path
    """Folder with train.parquet and validation.parquet."""
    base: Path
    """Folder of the base model."""
    out: Path
    save_model: bool = True
    """False for a trial: figures only, no checkpoints."""
    on_row: Callable[[dict[str, float]], None] | None = None
    """Takes the row of each step, in the process that writes it."""
    on_checkpoint: Callable[[Path], None] | None = None
    """Takes the folder of each checkpoint, twice: in all processes before it is whole, then in the leader alone."""

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.out / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: the row of a step."""
        return self.out / "metrics.jsonl"

    @property
    def stop(self) -> Path:
        """A file that asks the worker to stop after its step."""
        return self.out / "stop"

    @property
    def outcome(self) -> Path:
        """The worker's last word: figures, or an error."""
        return self.out / "outcome.json"

    @property
    def log(self) -> Path:
        """All that the processes printed."""
        return self.out / "train.log"

    @property
    def world(self) -> int:
        """Processes of this training, as torchrun set them up."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def leader(self) -> bool:
        """Whether this is the process that writes."""
        return os.environ.get("RANK", "0") == "0"

    @property
    def checkpoint(self) -> int:
        """Step of the newest whole checkpoint, from which the training goes on; 0 where there is none."""
        whole = self.checkpoints.glob(f"checkpoint-*/{COMPLETE}")
        return max((int(read_json(mark)["step"]) for mark in whole), default=0)

    def rows(self) -> list[dict[str, float]]:
        """The rows of `metrics.jsonl`; a line that a killed process left unfinished is passed over."""
        if not self.metrics.is_file():
            return []
        found = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found


def say(kind: str, value: dict[str, Any]) -> None:
    """Print a line that the parent understands; in a pod it is in the log."""
    print(_PREFIX + json.dumps({"kind": kind, **value}), flush=True)  # noqa: T201


def heard(line: str) -> dict[str, Any] | None:
    """What a line of a worker's output says; None for any other line."""
    if not line.startswith(_PREFIX):
        return None
    try:
        found = json.loads(line.removeprefix(_PREFIX))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
