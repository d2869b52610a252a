"""The peak memory of fine-tuning, before it starts.

Weights, gradients and Adam's two states follow from the parameters (16 bytes each in full: arXiv 1910.02054, section
3.1); LoRA has them for its adapters alone (arXiv 2106.09685); a QLoRA base takes half a byte a weight and its constants
(arXiv 2305.14314). Activations are counted in `activations` and walked through from the loss to the first layer, since
gradients appear while activations go: the peak is the worst moment of that walk, as in LLMem (arXiv 2404.10933).
"""

from __future__ import annotations

from goldpath.accelerators import activations, sharding
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.linears import adapter_parameters, linear_weights
from goldpath.accelerators.training_shape import TrainingMemory, TrainingShape

MIB = 1024**2
CUDA_CONTEXT = 600 * MIB
"""An allowance for CUDA's context with the kernels of PyTorch, cuBLAS and its workspace, on each GPU.

Some 300 MB where kernels are loaded as they are used, more than 1000 before CUDA 11.7 (pytorch/pytorch issue 107667).
Not measured here."""
CACHE_SHARE = 0.04
"""A guess at what PyTorch's caching allocator holds beyond the tensors: pieces too small to use again. Not measured."""
CPU_PROCESS = 560 * MIB
"""A training process on a CPU without its model: Python, PyTorch, transformers, TRL and the data. Measured
(`benchmarks/results/training_memory.json`)."""
CPU_SHARE = 0.01
_TILE = (4096, 32768)
"""Tokens and vocabulary of a tile of TRL's loss on a GPU (`trl.kernels.chunked_logprob`)."""


def estimate(architecture: Architecture, shape: TrainingShape) -> TrainingMemory:
    """The peak of one process.

    Args:
        architecture: of the model.
        shape: the run. With `gpus` and `sharding`, the figures are those of one GPU.

    Returns:
        Bytes by component at the worst moment, which is named.
    """
    trainable = trainable_parameters(architecture, shape)
    states = sharding.states(architecture, shape, trainable)
    moment, kept, logits, gradients = _worst(architecture, shape, states.gradients)
    tensors = (
        states.weights + states.adapters + states.optimizer + states.gathered + gradients + kept + logits
    )
    return TrainingMemory(
        weights=states.weights,
        adapters=states.adapters,
        gradients=gradients,
        optimizer=states.optimizer,
        activations=kept,
        logits=logits,
        gathered=states.gathered,
        framework=_framework(shape, tensors),
        peak=moment,
        trainable_parameters=trainable,
        assumed=_assumed(architecture),
    )


def trainable_parameters(architecture: Architecture, shape: TrainingShape) -> int:
    """Weights that are trained: all, or LoRA's."""
    return (
        architecture.parameters
        if shape.method == "full"
        else adapter_parameters(architecture, shape.lora_rank)
    )


def _worst(architecture: Architecture, shape: TrainingShape, whole: int) -> tuple[str, int, int, int]:
    """The moment of the peak with its activations, logits and gradients, bytes.

    `whole`: what all gradients take on one GPU.
    """
    kept = [_kept(architecture, shape, index) for index in range(len(architecture.layers))]
    outside = _outside(architecture, shape)
    forward, backward = _head(architecture, shape)
    per_weight = whole / max(1, trainable_parameters(architecture, shape))
    full = shape.method == "full"
    before = whole if shape.gradient_accumulation > 1 else 0
    head = architecture.vocab_size * architecture.hidden_size * per_weight if full else 0
    cache = _cast_cache(architecture, shape)
    moments = [
        ("loss", outside + sum(kept) + cache, forward, before),
        ("loss", outside + sum(kept), backward, before),
    ]
    done = head
    for index in reversed(range(len(architecture.layers))):
        layer = architecture.layers[index]
        again = activations.saved(architecture, layer, shape) if shape.gradient_checkpointing else 0
        worked = activations.working(architecture, layer, shape)
        live = outside // 2 + sum(kept[: index + 1]) + again + worked
        done += _layer_parameters(architecture, shape, index) * per_weight
        moments.append(("backward pass", live, 0, max(before, int(done))))
    if full and architecture.tied_embeddings:
        # The embedding's own gradient beside the one that the output head had left for it. On a CPU in fp32 that one is
        # a transposed view, so that the sum is a third tensor.
        views = 2 if shape.device == "cpu" and shape.precision == "fp32" else 1
        moments.append(("embedding gradient", int(head) * views, 0, whole))
    moments.append(("optimizer step", 0, 0, whole))
    return max(moments, key=lambda moment: moment[1] + moment[2] + moment[3])


def _layer_parameters(architecture: Architecture, shape: TrainingShape, index: int) -> int:
    if shape.method == "full":
        return architecture.layers[index].parameters
    return adapter_parameters(architecture, shape.lora_rank) // max(1, len(architecture.layers))


def _kept(architecture: Architecture, shape: TrainingShape, index: int) -> int:
    if shape.gradient_checkpointing:
        return shape.tokens * architecture.hidden_size * shape.stored_bytes
    return activations.saved(architecture, architecture.layers[index], shape)


def _outside(architecture: Architecture, shape: TrainingShape) -> int:
    """Bytes kept outside the layers: ids, the last norm and its input, rotary tables, the boolean mask."""
    dim = max((layer.head_dim for layer in architecture.layers), default=0)
    rotary = 2 * dim * shape.stored_bytes
    mask = shape.sequence_length if shape.masked and shape.attention != "flash" else 0
    last = 2 * architecture.hidden_size * shape.stored_bytes if shape.gradient_checkpointing else 0
    return shape.tokens * (activations.norm(architecture, shape) + rotary + mask + last + 5 * 8)


def _head(architecture: Architecture, shape: TrainingShape) -> tuple[int, int]:
    """Bytes for logits and loss at the end of the forward pass, and at the beginning of the backward pass.

    On a CPU our `AnswerHead` projects the answers: logits in fp32, their log-softmax, then the gradients of both. On a
    GPU TRL 1.16 goes through tiles, and keeps the answers' hidden states and the gradient of the head in fp32.
    """
    answers, vocab, hidden = shape.answers, architecture.vocab_size, architecture.hidden_size
    size, full = shape.compute_bytes, shape.method == "full"
    chosen = answers * hidden * shape.stored_bytes if full else 0
    copy = vocab * hidden * 2 + answers * hidden * 2 if shape.autocast else 0
    if shape.device == "cuda":
        tile = min(answers, _TILE[0]) * min(vocab, _TILE[1]) * size
        cast = min(vocab, _TILE[1]) * hidden * size if size < shape.stored_bytes else 0
        gradient = answers * hidden * 4 + (vocab * hidden * 4 if full else 0)
        return chosen + tile + cast, chosen + tile + cast + gradient
    logits = answers * vocab
    return chosen + copy + logits * 8, chosen + copy + logits * 12


def _cast_cache(architecture: Architecture, shape: TrainingShape) -> int:
    """bf16 copies of the weights that autocast keeps until the forward pass ends, where autograd does not."""
    return 2 * linear_weights(architecture) if shape.autocast and shape.gradient_checkpointing else 0


def _framework(shape: TrainingShape, tensors: int) -> int:
    if shape.device == "cpu":
        return CPU_PROCESS + int(tensors * CPU_SHARE)
    return CUDA_CONTEXT + int(tensors * CACHE_SHARE)


def _assumed(architecture: Architecture) -> tuple[str, ...]:
    notes = list(architecture.assumed)
    if architecture.quantization:
        notes.append(f"published in {architecture.quantization}; trained as loaded in 16 bits")
    if any(layer.state for layer in architecture.layers):
        notes.append("activations of Mamba and linear-attention layers are a rough count")
    if any(layer.experts for layer in architecture.layers):
        notes.append("activations of experts assume that tokens are spread evenly")
    return tuple(notes)
