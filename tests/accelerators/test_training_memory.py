"""Training memory against published figures, against PEFT, and against what autograd keeps of real models."""

from __future__ import annotations

import subprocess
import sys

import pytest

from goldpath.accelerators import linears, models, sharding
from goldpath.accelerators.architecture import Architecture, from_config
from goldpath.accelerators.serving_weights import weight_bytes
from goldpath.accelerators.training_memory import estimate, trainable_parameters
from goldpath.accelerators.training_shape import SHARDINGS, TrainingShape
from goldpath.core.errors import SpecError
from tests.accelerators.configs import CONFIGS

GB = 10**9
LLAMA_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


def architecture(kind: str) -> Architecture:
    return from_config({"model_type": kind, **CONFIGS[kind]}, kind)


def shape(**given) -> TrainingShape:
    return TrainingShape.parse(given)


def test_full_fine_tuning_with_adam_takes_16_bytes_a_parameter():
    """arXiv 1910.02054, section 3.1; LLaMA-7B has 6,738,415,616 parameters (arXiv 2302.13971)."""
    llama = from_config(LLAMA_7B, "llama-7b")
    assert llama.parameters == 6_738_415_616
    found = estimate(
        llama, shape(method="full", sequence_length=1, batch_size=1, gradient_checkpointing=True)
    )
    assert found.weights + found.gradients + found.optimizer == 16 * llama.parameters


def paper(parameters: int, gpus: int, stage: int) -> float:
    """Weight, gradient, and fp32 copy with two moments; a stage divides one more of them, from the last on."""
    parts = (2, 2, 12)
    return parameters * sum(size if at < 3 - stage else size / gpus for at, size in enumerate(parts))


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero_divides_as_its_paper_says(stage, gigabytes):
    """Figure 1 of arXiv 1910.02054: 7.5 billion parameters on 64 GPUs."""
    assert paper(7_500_000_000, 64, stage) / GB == pytest.approx(gigabytes, abs=0.05)


def test_a_zero_run_has_the_states_that_the_paper_divides():
    llama = from_config(LLAMA_7B, "llama-7b")
    for stage in (1, 2, 3):
        run = shape(method="full", gpus=8, sharding=f"zero{stage}")
        found = sharding.states(llama, run, llama.parameters)
        held = found.weights + found.gradients + found.optimizer
        assert held == pytest.approx(paper(llama.parameters, 8, stage), rel=1e-6)


def test_qlora_holds_half_a_byte_a_weight_and_its_constants():
    """arXiv 2305.14314, section 3: double quantisation leaves 0.127 bits of constants a parameter."""
    bits = sharding.nf4_bytes(2**30, 0) * 8 / 2**30
    assert bits == pytest.approx(4.127, abs=0.0005)
    llama = models.load("Llama-3.1-8B")
    held = estimate(llama, shape(method="qlora"))
    # Matrices of 6,979,321,856 weights in 4 bits; embeddings, output head and norms in 16.
    assert linears.linear_weights(llama) == 6_979_321_856
    assert held.weights == pytest.approx(6_979_321_856 * 4.127 / 8 + 2 * 1_050_939_392, rel=1e-4)


def test_lora_on_llama_2_7b_has_the_parameters_that_peft_prints():
    """`print_trainable_parameters` of rank 8 on every linear layer of LLaMA-7B: 19,988,480."""
    assert linears.adapter_parameters(from_config(LLAMA_7B, "llama-7b"), 8) == 19_988_480


@pytest.mark.parametrize("kind", CONFIGS)
def test_adapters_are_counted_as_peft_makes_them(kind):
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from goldpath.training import modeling
    from goldpath.training.specs import TrainSpec

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CONFIGS[kind]))
        wrapped = get_peft_model(model, modeling.lora(TrainSpec(lora_rank=8)))
    real = sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad)
    assert trainable_parameters(architecture(kind), shape(lora_rank=8)) == real


KEPT = [
    # A GPU has autocast for LoRA too; what autograd keeps under it is the same on a CPU.
    ("llama", "lora", "bf16", "cuda"),
    ("qwen3", "lora", "bf16", "cuda"),
    ("llama", "full", "fp32", True),
    ("llama", "full", "fp32", False),
    ("llama", "full", "bf16", True),
    ("llama", "lora", "fp32", True),
    ("llama", "lora", "bf16", True),
    ("qwen2", "lora", "bf16", False),
    ("qwen3", "full", "fp32", True),
    ("qwen3", "lora", "bf16", True),
    ("gemma3_text", "full", "fp32", True),
    ("phi3", "full", "fp32", True),
    ("gpt_neox", "full", "fp32", True),
]


@pytest.mark.parametrize(("kind", "method", "precision", "packed"), KEPT)
def test_what_autograd_keeps_of_a_layer_is_counted_to_the_byte(kind, method, precision, packed):
    from goldpath.accelerators import activations

    length, batch = 64, 2
    device, packed = ("cuda", True) if packed == "cuda" else ("cpu", packed)
    run = shape(
        method=method,
        precision=precision,
        sequence_length=length,
        batch_size=batch,
        device=device,
        packing=packed,
    )
    real = kept_by_a_layer(kind, run, packed)
    if not packed:
        run = run.model_copy(update={"batch_size": 1, "sequence_length": length, "packing": False})
    model = architecture(kind)
    counted = activations.saved(model, model.layers[1], run)
    assert counted == pytest.approx(real, rel=0.01 if kind == "phi3" else 0.002)


def kept_by_a_layer(kind: str, run: TrainingShape, packed: bool) -> int:
    """Bytes of the tensors that autograd saves in the second layer of a real model, each storage once."""
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from goldpath.training import modeling
    from goldpath.training.specs import TrainSpec

    fp32 = run.method == "full" or run.precision == "fp32"
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **CONFIGS[kind]),
        dtype=torch.float32 if fp32 else torch.bfloat16,
        attn_implementation="sdpa",
    ).train()
    if run.method == "lora":
        model = get_peft_model(model, modeling.lora(TrainSpec(lora_rank=run.lora_rank)))
    weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    inside: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: inside.append(name))
        module.register_forward_hook(lambda *_: [inside.pop(), None][1])
    kept: dict[int, tuple[torch.Tensor, bool]] = {}

    def pack(tensor):
        key = tensor.untyped_storage()._cdata
        if key not in weights:
            kept.setdefault(key, (tensor, bool(inside) and "layers.1" in inside[-1]))
        return tensor

    rows = run.batch_size if packed else 1
    ids = torch.randint(3, 500, (rows, run.sequence_length))
    places = torch.arange(run.sequence_length).repeat(rows, 1)
    if packed:
        places[:, run.sequence_length // 2 :] -= run.sequence_length // 2
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=run.autocast or run.device == "cuda"),
    ):
        model(input_ids=ids, position_ids=places, use_cache=False).logits.sum()
    return sum(tensor.untyped_storage().nbytes() for tensor, mine in kept.values() if mine)


def total(**given) -> int:
    return estimate(
        models.load("Llama-3.2-1B"), shape(**{"sequence_length": 2048, "batch_size": 2, **given})
    ).total


def test_what_saves_memory_saves_it():
    assert total(method="full") > total(method="lora") > total(method="qlora")
    assert total(gradient_checkpointing=True) < total() / 2
    assert total(sequence_length=1024) < total(sequence_length=2048)
    assert total(attention="flash") < total(attention="sdpa") < total(attention="eager")
    assert total(packing=False, batch_size=1) < total(packing=True, batch_size=1)
    assert total(answer_share=0.1, device="cpu") < total(device="cpu")
    one = total(method="full", gradient_accumulation=1)
    assert total(method="full", gradient_accumulation=4) >= one


@pytest.mark.parametrize("kind", [kind for kind in SHARDINGS if kind != "none"])
def test_more_gpus_never_need_more_each(kind):
    sizes = [total(method="full", sharding=kind, gpus=n) for n in (2, 4, 8, 64)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


@pytest.mark.parametrize(("again", "sharding"), [(True, "fsdp"), (False, "fsdp-grad-op")])
def test_fsdp_holds_the_frozen_base_as_torch_does(again: bool, sharding: str) -> None:
    """Live bytes after the forward pass on one of two processes, by torch's own `fully_shard`, in shares of the base.

    Where weights are not sharded `again` after the forward pass, a process has its half and the whole.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FSDP, str(int(again))],
        capture_output=True,
        text=True,
        check=True,
    )
    measured = float(done.stdout)
    llama = models.load("Llama-3.1-8B")
    base = 2 * llama.parameters
    found = sharding_of(llama, shape(sharding=sharding, gpus=2))
    held = found.weights + (found.gathered if sharding == "fsdp-grad-op" else 0)
    assert held / base == pytest.approx(measured, abs=0.03)


def sharding_of(model: Architecture, run: TrainingShape) -> sharding.States:
    return sharding.states(model, run, trainable_parameters(model, run))


FSDP = """
import gc, sys, torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
mesh = init_device_mesh("cpu", (2,))

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = torch.nn.Linear(512, 512, bias=False).requires_grad_(False)
        self.a, self.b = torch.nn.Linear(512, 1, bias=False), torch.nn.Linear(1, 512, bias=False)

    def forward(self, x):
        return x + self.frozen(x) + self.b(self.a(x))

model = torch.nn.Sequential(*[Layer() for _ in range(16)])
for part in (*model, model):
    fully_shard(part, mesh=mesh, reshard_after_forward=sys.argv[1] == "1")
out = model(torch.randn(1, 512))
held = {}
for one in gc.get_objects():
    if type(one) in (torch.Tensor, torch.nn.Parameter) or hasattr(type(one), "_local_tensor"):
        tensor = getattr(one, "_local_tensor", one)
        held[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
print(sum(held.values()) / (16 * 512 * 512 * 4))
"""


def test_a_kept_share_of_the_base_counts():
    """Llama-3.1-70B on 2 GPUs with LoRA: 131.4 GiB gathered and half of that kept."""
    found = sharding_of(models.load("Llama-3.1-70B"), shape(sharding="fsdp-grad-op", gpus=2))
    assert found.weights / 2**30 == pytest.approx(65.7, abs=0.1)
    assert found.gathered / 2**30 == pytest.approx(131.4 + found.adapters * 2 / 2**30, abs=0.1)


@pytest.mark.parametrize(
    ("name", "gib"), [("gpt-oss-120b", 11.9), ("gpt-oss-20b", 2.99), ("Llama-3.1-8B", 1.08)]
)
def test_only_linear_layers_are_gathered_in_4_bits(name, gib):
    """Stacked experts, embeddings and norms stay in 16 bits."""
    found = sharding_of(models.load(name), shape(method="qlora", sharding="fsdp", gpus=4))
    assert found.gathered / 2**30 == pytest.approx(gib, rel=0.02)


def test_gpus_without_sharding_hold_everything_and_buckets_besides():
    assert total(method="full", gpus=4) > total(method="full")


def test_cudas_context_and_its_allocator_have_an_allowance():
    """A context takes some 300 MB with kernels loaded as they are used (pytorch/pytorch issue 107667)."""
    tiny = {"sequence_length": 8, "batch_size": 1}
    small, large = (estimate(models.load(name), shape(**tiny)) for name in ("SmolLM2-135M", "Llama-3.1-8B"))
    assert small.framework > 300 * 10**6
    # The allocator keeps what it cannot use again: a share of the tensors.
    assert large.framework - small.framework > 0.03 * (large.tensors - small.tensors)


def test_the_peak_moves_with_the_run():
    tiny = {"sequence_length": 8, "batch_size": 1, "method": "full"}
    small = estimate(models.load("Llama-3.2-1B"), shape(**tiny))
    assert small.peak == "embedding gradient"  # tied: the output head's gradient waits for the embedding's
    untied = estimate(models.load("Llama-3.1-8B"), shape(**tiny))
    assert untied.peak in ("optimizer step", "backward pass")
    assert estimate(models.load("Llama-3.2-1B"), shape(sequence_length=4096, device="cpu")).peak == "loss"


def test_what_is_only_roughly_known_is_said():
    assert estimate(architecture("llama"), shape()).assumed == ()
    assert any("experts" in note for note in estimate(architecture("mixtral"), shape()).assumed)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sharding": "zero3"}, "sharding is zero3 over 1 GPU"),
        ({"sharding": "fsdp", "gpus": 2, "device": "cpu"}, "needs GPUs"),
        ({"method": "qlora", "precision": "fp32"}, "computes in bf16"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"answer_share": 0}, "answer_share is 0"),
        ({"optimizer": "sgd"}, "optimizer is not a field"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(given, says):
    with pytest.raises(SpecError, match=says):
        shape(**given)


def test_a_tower_for_images_is_held_adapted_and_given_no_gradient():
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Gemma3Config

    text = {
        **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320, "sliding_window": 16},
    }
    vision = {
        **{"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4},
        **{"image_size": 28, "patch_size": 14, "vision_use_head": False},
    }
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    raw = {**config.to_dict(), "text_config": config.text_config.to_dict()}
    found = from_config({**raw, "vision_config": vision}, "gemma")
    model = AutoModelForCausalLM.from_config(config)
    assert found.parameters + found.tower.parameters == sum(p.numel() for p in model.parameters())
    peft = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    added = sum(p.numel() for name, p in peft.named_parameters() if "lora_" in name)
    needed = estimate(found, TrainingShape(lora_rank=4, batch_size=1, sequence_length=16))
    assert needed.adapters == 4 * added
    ids = torch.arange(16)[None]
    peft(input_ids=ids, position_ids=ids, use_cache=False).logits.sum().backward()
    learned = sum(p.numel() for p in peft.parameters() if p.grad is not None)
    assert needed.trainable_parameters == learned
    assert needed.optimizer == 8 * learned
    blind = found.model_copy(update={"tower": None})
    full = TrainingShape(method="full", batch_size=1, sequence_length=16)
    assert estimate(found, full).weights - estimate(blind, full).weights == 4 * found.tower.parameters
    assert weight_bytes(found, "int4") - weight_bytes(blind, "int4") == 2 * found.tower.parameters


def test_a_tower_that_is_not_known_is_said_not_to_count():
    text = {"model_type": "gemma3_text", **CONFIGS["gemma3_text"]}
    raw = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 48}}
    found = from_config(raw, "odd")
    assert found.tower is None
    assert "not counted" in found.assumed[0]
