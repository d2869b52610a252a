"""One training process, as a TrainJob's pod runs it: `torchrun -m goldpath.training.worker --spec spec.json ...`.

All inputs are files or URIs. The figures and the reason of a failure go to `outcome.json` in the output folder;
progress goes to standard output, one JSON line a step.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from goldpath.core import environment, storage
from goldpath.core.errors import EXIT_CODE, GoldpathError, MachineError, SpecError, StepError, from_os_error
from goldpath.core.files import read_json, write_json
from goldpath.core.process import die_with_parent
from goldpath.core.uris import local_path
from goldpath.training.job import Job
from goldpath.training.katib import Reporter
from goldpath.training.mirror import Mirror, is_remote
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
    environment.settle()
    die_with_parent()
    if os.environ.get("WORLD_SIZE", "1") == "1":
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)  # one process needs no process group, and no wrapper around its model
    with tempfile.TemporaryDirectory(prefix="goldpath-") as scratch:
        mirror = _mirror(asked, Path(scratch)) if is_remote(asked.out) else None
        out = mirror.folder if mirror else local_path(asked.out)
        try:
            _work(asked, Path(scratch), out, mirror)
        except Exception as error:
            shown = explained(error)
            if isinstance(shown, StepError):
                traceback.print_exc()
            return _fail(shown, out, mirror)
    return 0


def _work(asked: argparse.Namespace, scratch: Path, out: Path, mirror: Mirror | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    spec = TrainSpec.parse(_values(asked.spec), _chosen(asked.set))
    if mirror and not asked.no_model:
        mirror.pull()
    reporter = Reporter.of_this_pod()
    job = Job(
        spec=spec,
        frame=_local(asked.frame, scratch / "frame"),
        base=_local(asked.base, scratch / "base"),
        out=out,
        save_model=not asked.no_model,
        on_row=reporter.row if reporter else None,
        on_checkpoint=mirror.keep if mirror else None,
    )
    from goldpath.training.loop import train

    figures = train(job)
    if job.leader:
        write_json(job.outcome, {"figures": figures})
        if reporter:
            reporter.close()
        if mirror:
            mirror.finish()


def _mirror(asked: argparse.Namespace, scratch: Path) -> Mirror:
    if asked.folder:
        return Mirror(asked.out, Path(asked.folder), lasting=True)
    return Mirror(asked.out, scratch / "out")


def _values(uri: str) -> Any:
    """The TrainSpec's fields, from a file or from a variable of the environment (`env:NAME`)."""
    if not uri.startswith("env:"):
        return read_json(local_path(uri))
    name = uri.removeprefix("env:")
    try:
        return json.loads(os.environ[name])
    except (KeyError, ValueError) as error:
        raise SpecError(f"the variable {name} holds no TrainSpec as JSON ({error})", "Set it.") from None


def _chosen(pairs: list[str]) -> dict[str, str]:
    """A trial's parameters: NAME=VALUE each."""
    if bad := [pair for pair in pairs if "=" not in pair]:
        raise SpecError(f"--set {bad[0]} is not NAME=VALUE", "Example: --set learning_rate=0.001.")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="goldpath.training.worker", description="Fine-tune one model.")
    parser.add_argument("--spec", required=True, help="JSON file of a TrainSpec, or env:NAME for a variable")
    parser.add_argument(
        "--set", action="append", default=[], help="NAME=VALUE: a field that wins over the spec"
    )
    parser.add_argument(
        "--frame", required=True, help="folder or URI with train.parquet and validation.parquet"
    )
    parser.add_argument("--base", required=True, help="folder or URI of the base model")
    parser.add_argument("--out", required=True, help="folder or URI for checkpoints, metrics and the model")
    parser.add_argument(
        "--folder", default="", help="where checkpoints stay that are not to go to the URI --out"
    )
    parser.add_argument("--no-model", action="store_true", help="figures only: no checkpoints, no model")
    return parser


def _local(uri: str, scratch: Path) -> Path:
    if "://" not in uri or uri.startswith("file://"):
        return local_path(uri)
    if storage.is_build(uri):
        return local_path(uri)  # whole, checked, and once for all processes of a node
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


def _fail(error: GoldpathError, out: Path, mirror: Mirror | None = None) -> int:
    print(f"error: {error.line()}", file=sys.stderr, flush=True)  # noqa: T201
    try:
        if os.environ.get("RANK", "0") == "0" or not (out / "outcome.json").exists():
            write_json(out / "outcome.json", {"error": error.to_dict()})
            if mirror:
                mirror.push("outcome.json")
    except GoldpathError:  # a full disk cannot hold the reason either: the parent reads it from our output
        pass
    return EXIT_CODE


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
