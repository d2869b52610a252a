"""Fine-tuning: one training as a child process, watched, resumed and explained; and kept by its content."""

from __future__ import annotations

import re
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from goldpath.core import settings, storage
from goldpath.core.digest import code_digest, digest_manifest, manifest, versions
from goldpath.core.errors import GoldpathError, MachineError, StepError, from_os_error
from goldpath.core.files import read_json, require_space, write_json
from goldpath.core.modelfiles import check_model_folder, count_parameters, weight_files
from goldpath.core.progress import Bar, progress
from goldpath.core.reuse import Reused, reuse
from goldpath.core.uris import local_path
from goldpath.training import frames, modeling
from goldpath.training.backends import local
from goldpath.training.job import Job, heard
from goldpath.training.results import TrainResult
from goldpath.training.specs import TrainSpec
from goldpath.training.tracking import Tracker, tracked

EXPERIMENT = "goldpath-fine-tune"
LIBRARIES = ("torch", "transformers", "accelerate", "trl", "peft")
"""They decide how a training ends, and so does our code:"""
_CODE = (
    *(f"training.{name}" for name in ("worker", "job", "loop", "modeling", "packing", "frames")),
    "core.hardware",
)
_LAST = re.compile(
    r"^(?:\[rank\d+\]: ?)?(?P<type>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)): (?P<text>.+)$"
)

OnMetrics = Callable[[dict[str, float]], bool]


def train_once(
    frame: Path,
    base: Path,
    spec: TrainSpec,
    out: Path,
    *,
    on_metrics: OnMetrics | None = None,
    save_model: bool = True,
) -> TrainResult:
    """Train once in a child process (`torchrun -m goldpath.training.worker`); fine-tuning and trials both come here.

    A training that was interrupted goes on from its last checkpoint in `out/checkpoints` and ends as it would have
    ended without the interruption. The child dies with this process.

    Args:
        frame: folder with train.parquet and validation.parquet (columns: `messages`).
        base: folder of the base model.
        spec: what to do.
        out: folder of the outputs: `metrics.jsonl`, `train.log`, and with `save_model` `model/` and `adapter/`.
        on_metrics: called here with the row of every step; True stops the training after its step.
        save_model: False makes a trial: figures only, no checkpoints, no model.

    Raises:
        InputError: bad data, model or hyperparameters; the training diverged.
        MachineError: disk full, out of memory, no GPU for QLoRA.
        StepError: anything else that ended the child.
    """
    began = time.monotonic()
    _preflight(frame, base, spec, out, save_model)
    job = Job(spec, frame, base, out, save_model)
    for stale in (job.stop, job.outcome):
        stale.unlink(missing_ok=True)
    asked = write_json(out / "spec.json", spec.model_dump(mode="json"))
    label = "Fine-tuning" if save_model else "Trial"
    try:
        begin = job.checkpoint if save_model else 0
        if begin:
            label += f" resumed from step {begin} of {spec.max_steps}"
        with (
            progress(label, spec.max_steps, "steps", begin) as bar,
            job.log.open("a", encoding="utf-8") as log,
        ):
            watch = _Watch(job, bar, log, on_metrics)
            code = local.launch(job, asked, watch.line)
    except OSError as error:  # the log cannot be written
        raise from_os_error(error, out) from error
    figures = _figures(job, code, watch.tail)
    if save_model:
        shutil.rmtree(job.checkpoints, ignore_errors=True)
    job.stop.unlink(missing_ok=True)
    return _result(job, figures, seconds=time.monotonic() - began)


def _result(job: Job, figures: dict[str, Any], seconds: float) -> TrainResult:
    curve = job.rows()
    return TrainResult(
        method=job.spec.method,
        parameters=count_parameters(job.out / "model" if job.save_model else job.base),
        train_loss=_mean_tail([row["loss"] for row in curve]),
        eval_loss=next((row["eval_loss"] for row in reversed(curve) if "eval_loss" in row), None),
        curve=curve,
        seconds=round(seconds, 2),
        hyperparameters=job.spec.work(),
        model_digest=digest_manifest(manifest(job.out / "model")) if job.save_model else "",
        **figures,
    )


def fine_tune(
    frame: str | Path, frame_digest: str, base: str | Path, base_digest: str, spec: TrainSpec
) -> Reused[TrainResult]:
    """Fine-tune, or hand back the model that the same data, base, spec and code made before.

    Checkpoints of an interrupted training stay in the slot, whatever ended it: the same call goes on from there.

    Args:
        frame: folder or URI with train.parquet and validation.parquet.
        frame_digest: its content digest.
        base: folder or URI of the base model.
        base_digest: its content digest.
        spec: what to do.

    Returns:
        The result; its path holds `model/`, `adapter/` and `metrics.jsonl`.

    Raises:
        GoldpathError: see `train_once`.
    """
    inputs = {
        "frame": frame_digest,
        "base": base_digest,
        "spec": spec.work(),
        "code": code_digest(*_CODE),
        "libraries": versions(*LIBRARIES),
    }

    def build(slot: Path) -> TrainResult:
        parameters = {
            **spec.work(),
            "frame_digest": frame_digest,
            "base_digest": base_digest,
        }
        with tracked(EXPERIMENT, "fine-tune", parameters, memory=slot / "mlflow.json") as tracker:
            if settings.backend() == "kubernetes":
                return _on_cluster(frame, base, spec, slot, tracker)
            here = local_path(str(frame)), local_path(str(base))
            return train_once(*here, spec, slot, on_metrics=_logging(tracker))

    done = reuse("fine-tune", inputs, TrainResult, build, keep_partial=True)
    if settings.backend() == "kubernetes":
        from goldpath.training.backends import kubernetes

        kubernetes.tidy(
            "fine-tune", done.key
        )  # where it is reused too: whoever made it may have been killed here
    return done


def _on_cluster(
    frame: str | Path, base: str | Path, spec: TrainSpec, slot: Path, tracker: Tracker
) -> TrainResult:
    """Train in a job of the cluster; frame and base are read there, not brought here."""
    from goldpath.training.backends import kubernetes

    began = time.monotonic()
    figures = kubernetes.train(uri(frame), uri(base), spec, slot)
    job = Job(spec, slot, slot, slot)
    for row in job.rows():
        tracker.log(row)
    return _result(job, figures, seconds=time.monotonic() - began)


def uri(place: str | Path) -> str:
    """Where the pods of a cluster find what a step has made: its URI, or that of its copy in the storage."""
    return str(place) if "://" in str(place) else storage.where(Path(place))


def _logging(tracker: Tracker) -> OnMetrics:
    def log(row: dict[str, float]) -> bool:
        tracker.log(row)
        return False

    return log


class _Watch:
    """Reads the child's output: rows go to the bar and to `on_metrics`, everything to the log."""

    def __init__(self, job: Job, bar: Bar, log: TextIO, on_metrics: OnMetrics | None) -> None:
        self.job, self.bar, self.log, self.on_metrics = job, bar, log, on_metrics
        self.tail: deque[str] = deque(maxlen=200)

    def line(self, text: str) -> None:
        said = heard(text)
        if said is None:
            self.tail.append(text)
            self.log.write(text + "\n")
            self.log.flush()
            return
        if said.pop("kind", "") != "row":
            return
        row = {key: float(value) for key, value in said.items()}
        shown: dict[str, Any] = {"loss": row["loss"], "tokens/s": round(row["tokens_per_second"])}
        if "eval_loss" in row:
            shown["validation loss"] = row["eval_loss"]
        self.bar.update(row["step"], **shown)
        if self.on_metrics is not None and self.on_metrics(row):
            self.job.stop.touch()


def _preflight(frame: Path, base: Path, spec: TrainSpec, out: Path, save_model: bool) -> None:
    """All that can be refused before a child is started."""
    check_model_folder(base)
    modeling.require_positions(base, spec)
    if spec.method == "qlora":
        modeling.require_quantization()
    for split in ("train", "validation"):
        frames.require_rows(frame / f"{split}.parquet")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, out) from error
    if save_model:
        weights = sum(file.stat().st_size for file in weight_files(base))
        # Full: three checkpoints of fp32 weights and two moments from weights in bf16, and the model.
        require_space(out, weights * (19 if spec.method == "full" else 2))


def _figures(job: Job, code: int, tail: deque[str]) -> dict[str, Any]:
    """The child's figures, or the reason why there are none.

    Raises:
        GoldpathError: the child failed.
    """
    outcome = read_json(job.outcome) if job.outcome.is_file() else {}
    if "error" in outcome:
        raise GoldpathError.from_dict(outcome["error"])
    if code == 0 and "figures" in outcome:
        return dict(outcome["figures"])
    raise reason(code, list(tail), job.log)


def reason(code: int, tail: list[str], log: Path) -> GoldpathError:
    """Why a child ended that could not say so itself, from its exit code and its last lines."""
    text = "\n".join(tail)
    if re.search("No space left on device|^error: the disk is full", text, re.MULTILINE):
        return from_os_error(OSError(28, "No space left on device"), log.parent)
    if code == -9 or re.search(r"exitcode\s*:\s*-9\b|Signal 9 \(SIGKILL\)", text):
        return MachineError(
            "training was killed (SIGKILL), most often because the machine ran out of memory",
            "Give a smaller batch_size or sequence_length, or free memory, and run it again: it goes on from its "
            "last checkpoint.",
        )
    said = [line for line in tail if line.startswith("error: ")]
    if said:
        return StepError(said[-1].removeprefix("error: "))
    raised = [
        found for line in tail if (found := _LAST.match(line.strip())) and "ChildFailedError" not in line
    ]
    if raised:
        return StepError(
            f"training failed: {raised[-1]['type']}: {raised[-1]['text'][:300]}",
            f"The whole output is in {log}.",
        )
    return StepError(f"training ended with exit code {code}", f"Its output is in {log}.")


def _mean_tail(losses: list[float], share: float = 0.1) -> float:
    """Mean over the last tenth of the steps: the loss of one step is mostly noise of its batch."""
    last = losses[-max(1, round(len(losses) * share)) :]
    return sum(last) / len(last) if last else float("nan")
