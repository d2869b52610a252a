"""One training process, as a TrainJob's pod runs it: `torchrun -m goldpath.training.worker --spec spec.json ...`.

All inputs are files or URIs. The figures and the reason of a failure go to `outcome.json` in the output folder;
progress goes to standard output, one JSON line a step.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import tempfile
import traceback
from pathlib import Path

from goldpath.core.errors import EXIT_CODE, GoldpathError, MachineError, StepError, from_os_error
from goldpath.core.files import read_json, write_json
from goldpath.core.process import die_with_parent
from goldpath.core.uris import local_path
from goldpath.training.job import Job
from goldpath.training.specs import TrainSpec

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
"""A worker has all its inputs: it asks no hub, and its output is for figures."""


def main(arguments: list[str] | None = None) -> int:
    """Train; the exit code is 0, or 2 with the reason in `outcome.json`."""
    asked = _parser().parse_args(arguments)
    os.environ.update(QUIET)
    die_with_parent()
    if os.environ.get("WORLD_SIZE", "1") == "1":
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)  # one process needs no process group, and no wrapper around its model
    out = local_path(asked.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="goldpath-") as scratch:
            job = Job(
                spec=TrainSpec.parse(read_json(local_path(asked.spec))),
                frame=_local(asked.frame, Path(scratch) / "frame"),
                base=_local(asked.base, Path(scratch) / "base"),
                out=out,
                save_model=not asked.no_model,
            )
            from goldpath.training.loop import train

            figures = train(job)
            if job.leader:
                write_json(job.outcome, {"figures": figures})
    except Exception as error:
        shown = explained(error)
        if isinstance(shown, StepError):
            traceback.print_exc()
        return _fail(shown, out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="goldpath.training.worker", description="Fine-tune one model.")
    parser.add_argument("--spec", required=True, help="JSON file of a TrainSpec")
    parser.add_argument(
        "--frame", required=True, help="folder or URI with train.parquet and validation.parquet"
    )
    parser.add_argument("--base", required=True, help="folder or URI of the base model")
    parser.add_argument("--out", required=True, help="folder for checkpoints, metrics and the model")
    parser.add_argument("--no-model", action="store_true", help="figures only: no checkpoints, no model")
    return parser


def _local(uri: str, scratch: Path) -> Path:
    if "://" not in uri or uri.startswith("file://"):
        return local_path(uri)
    from goldpath.core.fetch import fetch

    os.environ.pop("HF_HUB_OFFLINE", None)  # this one input may lie on the hub
    fetch(uri, scratch)
    os.environ["HF_HUB_OFFLINE"] = "1"
    return scratch


def explained(error: BaseException) -> GoldpathError:
    """The error to show for whatever ended a training."""
    if isinstance(error, GoldpathError):
        return error
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return from_os_error(error)
    if "No space left on device" in text or "unexpected pos" in text:  # from Rust and C++ writers
        return from_os_error(OSError(errno.ENOSPC, "No space left on device"), "the checkpoint")
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return MachineError(
            "training ran out of memory",
            "Give a smaller batch_size or sequence_length, or switch gradient_checkpointing on.",
        )
    return StepError(
        f"training failed: {type(error).__name__}: {text[:300]}", "`goldpath runs logs` has the details."
    )


def _fail(error: GoldpathError, out: Path) -> int:
    print(f"error: {error.line()}", file=sys.stderr, flush=True)  # noqa: T201
    try:
        if os.environ.get("RANK", "0") == "0" or not (out / "outcome.json").exists():
            write_json(out / "outcome.json", {"error": error.to_dict()})
    except GoldpathError:  # a full disk cannot hold the reason either: the parent reads it from our output
        pass
    return EXIT_CODE


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
