"""What the memory of a training run depends on, besides the model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from goldpath.core.spec import Result, Spec

Sharding = Literal["none", "zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op"]
SHARDINGS: tuple[Sharding, ...] = ("none", "zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op")


class TrainingShape(Spec):
    """One process of a fine-tuning run, as `goldpath.training` runs it."""

    method: Literal["lora", "full", "qlora"] = "lora"
    sequence_length: Annotated[int, Field(ge=1, le=1_048_576)] = 256
    """Tokens in a (packed) sequence."""
    batch_size: Annotated[int, Field(ge=1, le=4_096)] = 4
    """Sequences in a forward pass of one process."""
    packing: bool = True
    """Several chats in a sequence: attention then needs a mask, which is kept for every layer."""
    gradient_checkpointing: bool = False
    """Keep each layer's input only, and compute the layer again in the backward pass (arXiv 1604.06174)."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=4_096)] = 1
    lora_rank: Annotated[int, Field(ge=1, le=1_024)] = 16
    precision: Literal["bf16", "fp32"] = "bf16"
    """What matrices are multiplied in. Full fine-tuning keeps fp32 weights in both."""
    attention: Literal["sdpa", "eager", "flash"] = "sdpa"
    device: Literal["cuda", "cpu"] = "cuda"
    answer_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the tokens that are predicted: logits are made of those only. 1 cannot be too little."""
    gpus: Annotated[int, Field(ge=1, le=65_536)] = 1
    sharding: Sharding = "none"
    """What is divided among the GPUs. ZeRO (arXiv 1910.02054): 1 optimizer states, 2 gradients too, 3 weights too;
    `fsdp`: FULL_SHARD, as ZeRO-3; `fsdp-grad-op`: SHARD_GRAD_OP, weights gathered from forward to backward."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sharding != "none" and self.gpus == 1:
            raise ValueError(
                f"sharding is {self.sharding} over 1 GPU: give gpus of 2 or more, or sharding none"
            )
        if self.sharding != "none" and self.device == "cpu":
            raise ValueError(f"sharding is {self.sharding} on a CPU: it needs GPUs")
        if self.method == "qlora" and self.precision == "fp32":
            raise ValueError("method qlora computes in bf16, precision is fp32")
        return self

    @property
    def tokens(self) -> int:
        """Tokens in a forward pass."""
        return self.sequence_length * self.batch_size

    @property
    def answers(self) -> int:
        """Tokens that are predicted."""
        return max(1, round(self.tokens * self.answer_share))

    @property
    def masked(self) -> bool:
        """Whether attention gets a mask: packed sequences, or padded ones of different lengths."""
        return self.packing or self.batch_size > 1

    @property
    def compute_bytes(self) -> int:
        """Bytes of an element that a linear layer puts out."""
        return 2 if self.precision == "bf16" else 4

    @property
    def stored_bytes(self) -> int:
        """Bytes of an element of the weights that are held, and so of the residual stream.

        fp32 for full fine-tuning, where an update is lost in bf16; FSDP and ZeRO compute on a bf16 copy.
        """
        full = self.method == "full" and self.sharding == "none"
        return 4 if full or self.precision == "fp32" else 2

    @property
    def autocast(self) -> bool:
        """Whether weights are cast to bf16 as they are used, and the copies kept for the backward pass."""
        return self.method == "full" and self.precision == "bf16" and self.sharding == "none"

    @property
    def adapter_bytes(self) -> int:
        """Bytes of an adapter's weight: fp32, but bf16 on a 4-bit base (TRL follows the paper, arXiv 2305.14314)."""
        return 2 if self.method == "qlora" else 4

    @property
    def adapter_input_bytes(self) -> int:
        """Bytes of an element that an adapter reads: autocast, which a CPU run of LoRA has not, makes it bf16."""
        return 4 if self.precision == "fp32" or self.device == "cpu" else 2

    @property
    def copies_adapter_inputs(self) -> bool:
        """Whether each adapter keeps an input of its own: PEFT casts it to the adapter's type first."""
        return self.method == "lora" and self.precision == "bf16"


class TrainingMemory(Result):
    """The peak of one process, by what holds it; bytes."""

    weights: int
    """Of the model, as they are stored between steps (the share of one GPU)."""
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    """What autograd keeps for the backward pass, and what the present layer needs."""
    logits: int
    """Projection onto the vocabulary, and the loss."""
    gathered: int
    """Weights and gradients that sharding has whole for a moment."""
    framework: int
    """CUDA context and libraries, and what the allocator cannot use; on a CPU the process without its tensors."""
    peak: str
    """The moment at which all of it is needed: `loss`, `backward pass`, `embedding gradient` or `optimizer step`."""
    trainable_parameters: int
    assumed: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All components."""
        return sum(self.components.values())

    @property
    def tensors(self) -> int:
        """What PyTorch's allocator hands out (`torch.cuda.max_memory_allocated`)."""
        return self.total - self.framework

    @property
    def components(self) -> dict[str, int]:
        """The components by name, in the order of a stacked bar."""
        names = (
            "weights",
            "adapters",
            "gradients",
            "optimizer",
            "activations",
            "logits",
            "gathered",
            "framework",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def largest(self) -> str:
        """The component that takes most."""
        return max(self.components, key=lambda name: self.components[name])
