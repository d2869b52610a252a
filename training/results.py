"""What training hands back."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ConfigDict, Field

from goldpath.core.spec import Result


class DataCard(Result):
    """Counts and identity of a prepared data set. Files: `documents.parquet` (see `training.datasets`)."""

    source: str
    rows_in: int
    dropped: dict[str, int]
    """Reason to count: exact_duplicate, near_duplicate, too_long, too_short, contaminated, ..."""
    rows_out: int
    splits: dict[str, int]
    """train, validation, test."""
    groups: dict[str, int]
    """Distinct groups (API objects) in each split; no group is in two."""
    pii: dict[str, int]
    """Redactions by kind."""
    words: dict[str, float]
    """Words in a chat: p50, p95, max."""
    digest: str
    """SHA-256 over the rows in order."""
    samples: list[dict[str, str]]
    """A few rows: question, answer, source, split."""
    source_digest: str = ""
    """SHA-256 over what the source is: the digests of its files, or the packages' versions."""


class Trial(Result):
    """One trial of a search."""

    number: int
    parameters: dict[str, float | int | str]
    objective: float | None
    """None where the trial failed or was stopped before its first measure."""
    status: str
    """succeeded, stopped (early), failed."""
    seconds: float
    curve: list[tuple[int, float]]
    """(step, objective) as the trial went."""
    error: str = ""
    """Why it failed."""


class SearchResult(Result):
    """All trials and the best."""

    objective: str
    goal: str
    algorithm: str
    best: Trial | None
    hyperparameters: dict[str, Any]
    """The full set to fine-tune with: the given ones, with the best trial's on top."""
    trials: list[Trial]


class TrainResult(Result):
    """A finished fine-tuning. Files: `model/` (merged safetensors), `adapter/` (LoRA), `metrics.jsonl`."""

    method: str
    steps: int
    tokens: int
    trainable_parameters: int
    parameters: int
    train_loss: float
    """Mean over the last tenth of the steps, `loss_steps` of them."""
    eval_loss: float | None
    """Loss on the validation split where it was last measured, nats per answer token."""
    curve: list[dict[str, float]]
    """Rows of `metrics.jsonl`: step, loss, learning_rate, tokens_per_second, eval_loss, ..."""
    stopped: bool = False
    """Whether `on_metrics` ended it early (a pruned trial)."""
    precision: str = ""
    """bf16 or fp32: what it was computed in."""
    resumed_from: int
    """Step of the checkpoint that training went on from; 0: from the start."""
    seconds: float
    peak_memory_bytes: int
    """Largest resident memory of the training process, plus GPU memory."""
    peak_gpu_bytes: int = 0
    """What PyTorch held of the GPU at most; 0 without one."""
    hyperparameters: dict[str, Any]
    model_digest: str
    """Digest of the files in `model/`."""

    @property
    def loss_steps(self) -> int:
        """Over how many steps at the end `train_loss` is the mean."""
        return max(1, round(self.steps * 0.1))


class BaseModelInfo(Result):
    """A base model on disk. Files: `model/` (safetensors, tokenizer, config)."""

    source: str
    digest: str
    parameters: int
    bytes: int
    architecture: str


class PlannedPlace(Result):
    """A training and one place for it; bytes."""

    place: str
    """`this machine`, `this container`, the name of a GPU of this machine, or a GPU request."""
    has: int
    """What a training can use there, the margin not taken off; 0: not known before it is granted."""
    need: int
    """Of all its processes there: on a GPU one, on this machine every trial that runs at once."""
    margin: float
    """Share of `has` that stays free."""
    fits: bool | None
    """None: not known before it is granted."""
    components: dict[str, int]
    """What `need` consists of (`accelerators.training_shape.TrainingMemory`)."""
    peak: str
    """The moment at which it is needed."""
    precision: str
    too_small: dict[str, str] = Field(default_factory=dict)
    """Cheaper requests, and why each does not do."""


class ResourcePlan(Result):
    """What a training needs, and where it goes."""

    asked: str
    """The GPU request of the form."""
    gpu: str
    """The request that the training gets; none on a machine without a GPU."""
    model: str
    trainable_parameters: int = 0
    shape: dict[str, Any] = Field(default_factory=dict)
    """Method, batch size and the like: the largest that the search may choose."""
    here: PlannedPlace | None = None
    """This machine; None on a cluster."""
    cluster: PlannedPlace | None = None
    """The GPU that it needs on a cluster; None where it needs more than any has."""
    helps: str = ""
    """Where it does not fit: what to change, with a value that fits."""
    unplanned: str = ""
    """Why nothing could be planned: the model's architecture is not known."""
    notes: tuple[str, ...] = ()


class Scores(Result):
    """One model's figures. Those that could not be computed are NaN."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    name: str
    """base, tuned or champion."""
    loss: float
    """Mean negative log-likelihood per answer token, nats."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float = math.nan
    """Negative log-likelihood in bits per UTF-8 byte of the answers: comparable between tokenizers."""
    token_accuracy: float
    """Share of answer tokens that are the most likely one given the true tokens before them."""
    overlap: float
    """ROUGE-L F1 of generated against reference answers, 0 to 1."""
    pii_leak_rate: float
    """Share of generated answers, to test questions and to planted prompts, that hold personal data."""
    refusal_rate: float
    """Share of planted instructions that the model did not follow."""
    tokens: int = 0
    """Answer tokens that were scored."""
    seconds: float = 0.0


class EvalResult(Result):
    """The judgement."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    scores: list[Scores]
    samples: list[dict[str, str]]
    """question, reference, source, and one answer per model name."""
    planted: list[dict[str, str]] = Field(default_factory=list)
    """Planted prompts: id, category, prompt, and per model name the answer (`base`) and verdict (`base_verdict`)."""
    loss_drop: float
    """(base - tuned) / base."""
    passed: bool
    checks: list[dict[str, Any]]
    """name, value, threshold, passed, text (a sentence), required (False: its threshold lets every measured value
    pass); one a threshold of the gate."""
    rows: int
    """Rows scored for the loss."""
    tokens: int
    """Answer tokens of the tuned model scored for the loss."""


class JobResult(Result):
    """A TrainJob of any kind that has succeeded."""

    name: str
    namespace: str
    runtime: str
    nodes: int
    seconds: float
    """That this step waited: less than the job took, where an earlier try had begun it."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """The last that its trainer reported to the Trainer (`status.trainerStatus`); most code reports none."""
