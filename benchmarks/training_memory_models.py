"""The combinations that `bench_training_memory.py` measures: model, method, sequence length, batch, checkpointing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

LLAMA = {"model_type": "llama", "tie_word_embeddings": True, "max_position_embeddings": 8192}
# From 15 to 350 million parameters, in the proportions of SmolLM2 and Qwen3.
M15 = {**LLAMA, "hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6,
       "num_key_value_heads": 6, "vocab_size": 32000}  # fmt: skip
M60 = {**LLAMA, "model_type": "qwen2", "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 14,
       "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 32000}  # fmt: skip
M135 = {**LLAMA, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152}  # fmt: skip
M200 = {**LLAMA, "model_type": "qwen3", "hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 18,
        "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 49152,
        "tie_word_embeddings": False}  # fmt: skip
M360 = {**LLAMA, "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
        "num_key_value_heads": 5, "vocab_size": 49152}  # fmt: skip
B1 = {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
      "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256}  # fmt: skip
B4 = {**LLAMA, "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
      "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}  # fmt: skip
B8 = {**LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False}  # fmt: skip


@dataclass(frozen=True)
class Combination:
    """One training."""

    name: str
    config: dict[str, Any]
    method: str
    precision: str
    sequence_length: int
    batch_size: int
    gradient_checkpointing: bool = False
    packing: bool = True
    gradient_accumulation: int = 1
    lora_rank: int = 16

    @property
    def spec(self) -> dict[str, Any]:
        """Fields of `TrainSpec`."""
        names = (
            "method",
            "precision",
            "sequence_length",
            "batch_size",
            "gradient_checkpointing",
            "packing",
            "gradient_accumulation",
            "lora_rank",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def label(self) -> str:
        """One line that names it."""
        more = [
            "checkpointing" if self.gradient_checkpointing else "",
            "" if self.packing else "unpacked",
            f"accumulation {self.gradient_accumulation}" if self.gradient_accumulation > 1 else "",
        ]
        shape = f"{self.method} {self.precision} {self.batch_size}x{self.sequence_length}"
        return " ".join(filter(None, [self.name, shape, *more]))

    def shape(self, device: str) -> Any:
        """As the planner takes it."""
        from goldpath.accelerators.training_shape import TrainingShape

        return TrainingShape(device=device, answer_share=1.0, **self.spec)

    def tiny(self) -> Combination:
        """The same with a model of two small layers."""
        small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 256}  # fmt: skip
        return replace(self, config={**self.config, **small}, sequence_length=64, batch_size=1)

    def sequences(self, count: int) -> list[Any]:
        """Token sequences of full length, two chats in each where they are packed; every token is an answer's."""
        from goldpath.training.packing import Packed

        ids = [2 + n % 200 for n in range(self.sequence_length)]
        half = self.sequence_length // 2
        lengths = [half, self.sequence_length - half] if self.packing else [self.sequence_length]
        return [Packed(ids=ids, labels=list(ids), lengths=lengths) for _ in range(count)]


SMALL = (
    Combination("15M", M15, "full", "fp32", 512, 8),
    Combination("15M", M15, "full", "fp32", 1024, 1, packing=False),
    Combination("60M", M60, "full", "fp32", 512, 2),
    Combination("60M", M60, "full", "bf16", 512, 2),
    Combination("60M", M60, "full", "fp32", 512, 2, gradient_checkpointing=True),
    Combination("60M", M60, "lora", "fp32", 512, 2, lora_rank=64),
    Combination("60M", M60, "lora", "bf16", 1024, 2, gradient_checkpointing=True),
    Combination("135M", M135, "lora", "bf16", 256, 4),
    Combination("135M", M135, "lora", "bf16", 512, 1),
    Combination("135M", M135, "full", "bf16", 128, 1, gradient_accumulation=2),
    Combination("135M", M135, "full", "fp32", 128, 1),
    Combination("200M", M200, "lora", "bf16", 256, 2),
    Combination("200M", M200, "full", "fp32", 128, 1, gradient_checkpointing=True),
    Combination("360M", M360, "lora", "bf16", 128, 2),
    Combination("360M", M360, "full", "fp32", 64, 1),
)
LARGE = (
    Combination("1.2B", B1, "full", "bf16", 2048, 2, gradient_checkpointing=True),
    Combination("1.2B", B1, "lora", "bf16", 2048, 4, gradient_checkpointing=True),
    Combination("4B", B4, "lora", "bf16", 1024, 1),
    Combination("1.2B", B1, "full", "bf16", 1024, 4),
    Combination("8B", B8, "lora", "bf16", 4096, 1, gradient_checkpointing=True),
    Combination("8B", B8, "full", "bf16", 2048, 1, gradient_checkpointing=True),
)
