"""Models in memory: precision, loading, adapters, and the loss over answer tokens alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldpath.core.errors import MachineError, ModelError, SpecError, StepError
from goldpath.core.hardware import has_bf16
from goldpath.core.modelfiles import positions, read_config
from goldpath.training.packing import IGNORED, require_template
from goldpath.training.specs import TrainSpec


def precision(asked: str) -> str:
    """`bf16` or `fp32`: what was asked for, `auto` being bf16 where the hardware has it."""
    return asked if asked != "auto" else "bf16" if has_bf16() else "fp32"


def require_positions(base: Path, spec: TrainSpec) -> None:
    """Refuse sequences that are longer than the model can place.

    Raises:
        SpecError: sequence_length is above the model's positions.
    """
    most = positions(base)
    if most is not None and spec.sequence_length > most:
        kind = read_config(base).get("model_type", "the model")
        raise SpecError(
            f"sequence_length is {spec.sequence_length} and {kind} at {base} has {most} positions",
            f"Give a sequence_length of at most {most}.",
        )


def require_quantization() -> None:
    """Refuse QLoRA where it cannot work.

    Raises:
        MachineError: no CUDA GPU, or bitsandbytes is not installed.
    """
    import importlib.util

    import torch

    if not torch.cuda.is_available():
        raise MachineError(
            "method qlora needs a CUDA GPU and this machine has none",
            "Use method lora, or a machine with a GPU.",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MachineError(
            "method qlora needs the package bitsandbytes", "Install bitsandbytes, or use method lora."
        )


def require_deepspeed() -> None:
    """Refuse ZeRO-3 without DeepSpeed.

    Raises:
        MachineError: it is not installed.
    """
    import importlib.util

    if _asked("DEEPSPEED") and importlib.util.find_spec("deepspeed") is None:
        raise MachineError(
            "sharding zero3 needs the package deepspeed",
            "Use sharding fsdp, or an image that has it (deploy/images/README.md).",
        )


def require_shared(trainer: Any) -> None:
    """Refuse a training that accelerate would not share out: it passes the setting over in silence.

    Raises:
        MachineError: no GPUs.
    """
    if (_asked("FSDP") or _asked("DEEPSPEED")) and not _shared(trainer):
        raise MachineError(
            "the training's sharding needs GPUs: accelerate shares out nothing among processors",
            "Give each process a GPU, or use sharding none.",
        )


def _asked(what: str) -> bool:
    """Whether `training.manifests.sharding` has said so in this environment."""
    return os.environ.get(f"ACCELERATE_USE_{what}") == "true"


def _shared(trainer: Any) -> bool:
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def load_tokenizer(folder: Path) -> Any:
    """The model's fast tokenizer, with a chat template and a padding token.

    Raises:
        ModelError: it is missing, damaged or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise _unloadable(folder, "tokenizer", error) from error
    require_template(tokenizer, str(folder))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer without what transformers notes of the machine: equal content has equal digests."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    for key in ("local_files_only", "is_local", "name_or_path"):
        described.pop(key, None)
    file.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(folder: Path, spec: TrainSpec) -> Any:
    """The model, ready to be trained by `spec.method`.

    A frozen base is held in the training precision. Full fine-tuning keeps fp32 weights and computes under autocast.

    Raises:
        ModelError: transformers cannot load it.
        MachineError: QLoRA without a GPU.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options: dict[str, Any] = {"dtype": _dtype(spec)}
    if spec.method == "qlora":
        require_quantization()
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return _load(AutoModelForCausalLM, folder, **options)


def _load(kind: Any, folder: Path, **options: Any) -> Any:
    try:
        return kind.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, attn_implementation="sdpa", **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise _unloadable(folder, "model", error) from error


def _unloadable(folder: Path, what: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())
    return ModelError(
        f"transformers cannot load the {what} at {folder} ({type(error).__name__}: {reason[:200]})",
        "Give a causal language model that transformers knows, saved by `save_pretrained`.",
    )


def lora(spec: TrainSpec) -> Any:
    """PEFT's LoRA on every linear layer (https://arxiv.org/abs/2106.09685); None for full fine-tuning."""
    if spec.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules="all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )


def gathered(trainer: Any) -> dict[str, Any] | None:
    """All weights of a sharded model, in memory and in the leader alone; None where each process has a whole copy."""
    if _shared(trainer):
        return dict(trainer.accelerator.get_state_dict(trainer.model_wrapped) or {})
    return None


def merge(trained: Any, weights: dict[str, Any] | None, base: Path, spec: TrainSpec, adapter: Path) -> Any:
    """The trained model with its adapter's updates added to the base weights, in bf16.

    Args:
        trained: the model after its training.
        weights: what was `gathered` of it.
        base: folder of the base model, which is loaded again where `trained` is in 4 bits (its weights are rounded)
            or sharded.
        spec: of the training.
        adapter: folder of the saved adapter.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # else ZeRO-3 would share out what is loaded here, too
    if spec.method == "qlora" or weights is not None:
        dtype = torch.bfloat16 if spec.method == "qlora" else _dtype(spec)
        whole = _load(AutoModelForCausalLM, base, dtype=dtype)
        trained = (
            _filled(whole, weights) if spec.method == "full" else PeftModel.from_pretrained(whole, adapter)
        )
    merged = trained if spec.method == "full" else trained.merge_and_unload(safe_merge=True)
    return merged.to(torch.bfloat16)


def _filled(model: Any, weights: dict[str, Any] | None) -> Any:
    """The model with other weights; those that are tied may be there once."""
    missing, unknown = model.load_state_dict(weights, strict=False)
    if unknown or set(missing) - set(model.all_tied_weights_keys):
        raise StepError(f"the sharded model has other weights than its base: {[*missing, *unknown][:3]}")
    return model


def _dtype(spec: TrainSpec) -> Any:
    """In which the base's weights are held; full fine-tuning keeps fp32, for an update of 1e-5 is lost in bf16."""
    import torch

    exact = spec.method == "full" or precision(spec.precision) == "fp32"
    return torch.float32 if exact else torch.bfloat16


@dataclass(frozen=True)
class Sums:
    """Sums over answer tokens: divide by `tokens` for means."""

    nll: Any
    """Negative log-likelihood, nats (a scalar tensor with its graph)."""
    correct: int
    """Tokens that were the model's first choice."""
    tokens: int


class AnswerHead:
    """Projects onto the vocabulary only where an answer token is predicted.

    The projection holds a fifth of SmolLM2-135M's weights, and tokens of prompts need no loss. TRL does the same on
    GPUs and scores every position on a CPU; `benchmarks/bench_answer_head.py` compares the two.
    """

    def __init__(self, model: Any) -> None:
        self._keep: Any = None
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    def _select(self, module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self._keep is None else (inputs[0][self._keep],)

    def sums(self, model: Any, batch: dict[str, Any]) -> Sums:
        """Run the model (or its wrapper) on a batch of `packing.collator` and sum over its answer tokens."""
        import torch

        targets = torch.full_like(batch["labels"], IGNORED)
        targets[:, :-1] = batch["labels"][:, 1:]
        self._keep = targets != IGNORED
        try:
            logits = model(
                input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
            ).logits.float()
        finally:
            kept, self._keep = self._keep, None
        wanted = targets[kept]
        nll = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        return Sums(nll, int((logits.detach().argmax(-1) == wanted).sum()), int(wanted.numel()))
