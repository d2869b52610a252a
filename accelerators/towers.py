"""The tower for images beside a language model: held in memory, though text alone goes through the model.

transformers loads Gemma 3 with its SigLIP tower also for text (`AutoModelForCausalLM`), PEFT's `all-linear` puts
adapters into it, and none of these weights gets a gradient. Llama 4's tower is left out by that class. Others are not
known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from goldpath.core.spec import Result


class Tower(Result):
    """Weights of a tower with its projector."""

    parameters: int
    linears: tuple[tuple[int, int], ...]
    """Inputs and outputs of each linear layer: what LoRA adapts and 4 bits hold."""

    @property
    def linear_weights(self) -> int:
        """Elements of the linear layers' matrices."""
        return sum(inputs * outputs for inputs, outputs in self.linears)

    def adapter_parameters(self, rank: int) -> int:
        """Weights of LoRA's matrices in it."""
        return sum(rank * (inputs + outputs) for inputs, outputs in self.linears)


def of_config(config: Mapping[str, Any], hidden_size: int) -> Tower | None:
    """The tower of a config.json; None where there is none that is known.

    Args:
        config: the whole file.
        hidden_size: of the language model.
    """
    vision = config.get("vision_config")
    if config.get("model_type") != "gemma3" or not isinstance(vision, Mapping):
        return None
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size")
    sizes = [vision.get(name) for name in names]
    # A pooling head, SigLIP's default, is not counted here; Gemma's tower has none.
    if vision.get("vision_use_head", True) or not all(type(size) is int and size > 0 for size in sizes):
        return None
    hidden, width, layers, image, patch = (int(size or 0) for size in sizes)
    linears = ((hidden, hidden),) * 4 + ((hidden, width), (width, hidden))
    layer = sum(inputs * outputs + outputs for inputs, outputs in linears) + 4 * hidden  # two LayerNorms
    outside = 3 * patch * patch * hidden + hidden + (image // patch) ** 2 * hidden + 2 * hidden
    projector = hidden * hidden_size + hidden
    return Tower(parameters=layers * layer + outside + projector, linears=linears * layers)
