"""The training loop inside a worker: TRL's SFTTrainer on sequences laid out in advance. Imported by the worker only."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from goldpath.core.errors import SpecError
from goldpath.core.files import write_json, write_text
from goldpath.training import modeling, packing
from goldpath.training.job import COMPLETE, Job, say
from goldpath.training.packing import Packed, Sequences
from goldpath.training.specs import TrainSpec


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that scores answer positions only on a CPU too, and takes its sequences in their order."""

    head: modeling.AnswerHead
    spec: TrainSpec

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood over the answer tokens of the whole optimizer step."""
        if self.args.device.type != "cpu" or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        sums = self.head.sums(model, inputs)
        if num_items_in_batch is None:
            return sums.nll / max(sums.tokens, 1)
        # Counted over all processes, whose gradients are averaged.
        return sums.nll / num_items_in_batch * self.accelerator.num_processes

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate's course over the steps; see `rate`."""
        spec = self.spec
        self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,
            lambda step: rate(step, spec.max_steps, spec.warmup_ratio, spec.schedule),
        )
        return self.lr_scheduler

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint needs no README."""


def rate(step: int, steps: int, warmup_ratio: float, schedule: str) -> float:
    """The share of `learning_rate` that `step` (from 0) uses: a linear rise, then constant, or falling towards 0.

    transformers' own schedules start at 0, which makes the first step idle: one in eight of a short trial.
    """
    warmup = math.ceil(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    past = (step - warmup) / max(1, steps - warmup)
    return {"constant": 1.0, "linear": 1 - past, "cosine": 0.5 * (1 + math.cos(math.pi * past))}[schedule]


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes one row of figures a step, scores the validation split, stops when asked, marks whole checkpoints."""

    def __init__(self, job: Job, sequences: Sequences, validation: list[Packed], collate: Any) -> None:
        self.job, self.sequences, self.validation, self.collate = job, sequences, validation, collate
        self.taken = len(sequences) // job.spec.max_steps
        """Sequences of a step, in all processes together."""
        self.head: modeling.AnswerHead | None = None
        self.trainable = 0
        self.stopped = False
        self._began = 0.0
        self._took = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the step's clock."""
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock; stop the training where the parent asks for it."""
        self._took = time.perf_counter() - self._began
        if _any(self.job.stop.exists()):
            self.stopped = control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **_: Any
    ) -> None:
        """Write the step's row.

        Raises:
            SpecError: the training diverged.
        """
        if not logs or "loss" not in logs:
            return
        step = int(state.global_step)
        row = {"step": float(step), **{name: float(logs[name]) for name in ("loss", "learning_rate", "grad_norm")
                                       if name in logs}}  # fmt: skip
        if not all(math.isfinite(value) for value in row.values()):
            spec = self.job.spec
            raise SpecError(
                f"the training diverged at step {step}: loss {row['loss']:g}, gradient {row.get('grad_norm', 0):g}",
                f"Give a lower learning_rate (it is {spec.learning_rate:g}) or a longer warm-up (warmup_ratio).",
            )
        tokens = self.sequences.tokens((step - 1) * self.taken, step * self.taken)
        row["tokens_per_second"] = round(tokens / max(self._took, 1e-9), 2)
        last = step >= self.job.spec.max_steps
        if not self.stopped and self.validation and (last or step % self.job.spec.evaluate_steps == 0):
            batch = args.per_device_train_batch_size
            row |= score(self.head, model, self.validation, self.collate, batch, autocast=args.bf16)
        if state.is_world_process_zero:
            with self.job.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            say("row", row)
            if self.job.on_row is not None:
                self.job.on_row(row)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint as whole: a killed process can leave half of one."""
        step, keep = int(state.global_step), self.job.on_checkpoint
        folder = self.job.checkpoints / f"checkpoint-{step}"
        if keep is not None:
            keep(folder)
            _any(False)  # wait for all processes: each keeps what it wrote
        if state.is_world_process_zero:
            write_json(folder / COMPLETE, {"step": step})
            if keep is not None:
                keep(folder)


def score(
    head: Any, model: Any, sequences: Sequence[Packed], collate: Any, batch: int, autocast: bool = False
) -> dict[str, float]:
    """Validation loss (nats a token) and token accuracy over `sequences`, shared among the processes.

    All of them take the same number of passes, in which sharded weights are gathered together.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    was_training = model.training
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64)
    model.eval()
    try:
        for begin in range(0, len(sequences), world * batch):
            at = begin + rank * batch
            mine = sequences[at : at + batch]
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                found = head.sums(model, {k: v.to(device) for k, v in collate(mine or sequences[:1]).items()})
            if mine:
                sums += torch.tensor([float(found.nll), found.correct, found.tokens], dtype=torch.float64)
    finally:
        model.train(was_training)
    if world > 1:
        sums = sums.to(device if device.type != "mps" else "cpu")
        dist.all_reduce(sums)
    nll, correct, tokens = (float(value) for value in sums)
    return {"eval_loss": nll / max(tokens, 1), "eval_token_accuracy": correct / max(tokens, 1)}


def train(job: Job) -> dict[str, Any]:
    """Run a job to its end: from its last whole checkpoint if there is one.

    Returns:
        The figures of `TrainResult`, without what only the parent knows.

    Raises:
        GoldpathError: bad data, model or hyperparameters; the training diverged.
    """
    spec = job.spec
    tokenizer = modeling.load_tokenizer(job.base)
    sequences, validation = _sequences(job, tokenizer)
    collate = packing.collator(tokenizer.pad_token_id)
    recorder = Recorder(job, sequences, validation, collate)
    trainer = _trainer(job, modeling.load_model(job.base, spec), tokenizer, sequences, collate, recorder)
    checkpoint, resumed = _last_checkpoint(job), job.checkpoint
    if job.leader:
        _truncate(job, resumed)
    say("status", {"status": "training", "resumed_from": resumed})
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if job.save_model:
        save(job, trainer, tokenizer)
    done = int(trainer.state.global_step)
    return {
        "steps": done,
        "tokens": sequences.tokens(0, done * recorder.taken),
        "trainable_parameters": recorder.trainable,
        "resumed_from": resumed,
        "stopped": recorder.stopped,
        "precision": modeling.precision(spec.precision),
        "peak_memory_bytes": peak_memory(),
        "peak_gpu_bytes": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0,
    }


def _sequences(job: Job, tokenizer: Any) -> tuple[Sequences, list[Packed]]:
    """The training's sequences in their order, and the held-out ones."""
    spec = job.spec
    how: dict[str, Any] = {
        "length": spec.sequence_length,
        "packing": spec.packing,
        "answer_only": spec.answer_only_loss,
    }
    count = spec.max_steps * spec.batch_size * spec.gradient_accumulation * job.world
    return (
        packing.training_sequences(
            job.frame / "train.parquet", tokenizer, count=count, seed=spec.seed, **how
        ),
        packing.validation_sequences(
            job.frame / "validation.parquet", tokenizer, rows=spec.validation_rows, **how
        ),
    )


def _trainer(
    job: Job, model: Any, tokenizer: Any, sequences: Sequences, collate: Any, recorder: Recorder
) -> AnswerTrainer:
    spec = job.spec
    modeling.require_deepspeed()
    cuda = torch.cuda.is_available()
    autocast = modeling.precision(spec.precision) == "bf16" and (cuda or spec.method == "full")
    arguments = SFTConfig(
        output_dir=str(job.checkpoints),
        max_steps=spec.max_steps,
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        activation_checkpointing=spec.gradient_checkpointing,
        bf16=autocast,
        use_cpu=not cuda,
        seed=spec.seed,
        data_seed=spec.seed,
        train_sampling_strategy="sequential",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if job.save_model else "no",
        save_steps=spec.checkpoint_steps,
        save_total_limit=2,
        # The Trainer's controller says where progress goes: it shows in the TrainJob's status.trainerStatus.
        report_to="kubeflow" if "KUBEFLOW_TRAINER_SERVER_URL" in os.environ else "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        ddp_find_unused_parameters=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = AnswerTrainer(
        model=model,
        args=arguments,
        data_collator=collate,
        # TRL takes nothing but its own kind of data set and looks at the first row; Trainer takes any.
        train_dataset=Dataset.from_list([asdict(sequences[0])]),
        processing_class=tokenizer,
        peft_config=modeling.lora(spec),
        callbacks=[recorder],
    )
    modeling.require_shared(trainer)
    trainer.spec, trainer.train_dataset = spec, sequences
    recorder.trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    trainer.head = recorder.head = modeling.AnswerHead(trainer.model)
    return trainer


def _last_checkpoint(job: Job) -> Path | None:
    """The newest whole checkpoint; torn ones are removed."""
    for folder in job.checkpoints.glob("checkpoint-*"):
        if job.leader and not (folder / COMPLETE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
    return job.checkpoints / f"checkpoint-{job.checkpoint}" if job.checkpoint else None


def _truncate(job: Job, step: int) -> None:
    """Keep the rows up to the checkpoint: later ones are made again."""
    kept = [row for row in job.rows() if row["step"] <= step]
    write_text(job.metrics, "".join(json.dumps(row) + "\n" for row in kept))


def save(job: Job, trainer: AnswerTrainer, tokenizer: Any) -> None:
    """Write `adapter/` (not for full fine-tuning) and `model/`: merged bf16 safetensors, tokenizer, configuration.

    The leader writes; sharded weights take all processes to gather.
    """
    method, adapter, folder = job.spec.method, job.out / "adapter", job.out / "model"
    weights = modeling.gathered(trainer)
    if not job.leader:
        return
    say("status", {"status": "saving"})
    model = trainer.accelerator.unwrap_model(trainer.model)
    if method != "full":
        model.save_pretrained(adapter, state_dict=weights)
        (adapter / "README.md").unlink(missing_ok=True)
    merged = modeling.merge(model, weights, job.base, job.spec, adapter)
    merged.config.use_cache = True
    merged.save_pretrained(folder, safe_serialization=True)
    modeling.save_tokenizer(tokenizer, folder)


def peak_memory() -> int:
    """Peak bytes: resident memory of this process, and allocated GPU memory on top."""
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(resident + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0))


def _any(mine: bool) -> bool:
    """Whether any process says so: all must stop at the same step."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return mine
    said = torch.tensor([int(mine)], device="cuda" if torch.cuda.is_available() else "cpu")
    dist.all_reduce(said, op=dist.ReduceOp.MAX)
    return bool(said.item())
