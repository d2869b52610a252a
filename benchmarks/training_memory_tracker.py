"""torch's MemTracker over our training step, with fake tensors: the peak of a model that need not fit here.

MemTracker (torch.distributed._tools.mem_tracker) counts the bytes of every tensor that lives, by PyTorch's own
dispatch. It wants help in three places: LoRA's frozen weights take no gradient hooks, PEFT's moves of fake modules are
passed over, and the peaks of single modules, which take time that grows with their square, are left out. It adds the
two gradients of a tied embedding up in a third tensor, where real tensors in bf16 are added in place: so no combination
here has its peak there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from training_memory_models import Combination


def track(case: Combination, steps: int = 2) -> int:
    """Peak bytes of all tensors over a few optimizer steps, on a CPU."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from goldpath.training.modeling import AnswerHead

    autocast = case.method == "full" and case.precision == "bf16"
    with FakeTensorMode(allow_non_fake_inputs=True), _patched(packed=case.packing):
        model = _model(case)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        AnswerHead(model)
        size = (case.batch_size, case.sequence_length)
        ids, positions = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.long)
        tracker = _tracker()
        tracker.track_external(model, optimizer)
        with tracker:
            for _ in range(steps):
                tracker.reset_mod_stats()
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = _loss(model, ids, positions)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    snapshot = tracker.get_tracker_snapshot("peak")
    return sum(devices["Total"] for devices in snapshot.values())


def _model(case: Combination) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from goldpath.training import modeling
    from goldpath.training.specs import TrainSpec

    spec = TrainSpec(**case.spec)
    exact = spec.method == "full" or spec.precision == "fp32"
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**case.config),
        dtype=torch.float32 if exact else torch.bfloat16,
        attn_implementation="sdpa",
    )
    model.train()
    if spec.method == "lora":
        from peft import get_peft_model

        with mock.patch.object(torch.nn.Module, "to", lambda self, *_, **__: self):
            model = get_peft_model(model, modeling.lora(spec))
        if spec.gradient_checkpointing:
            model.enable_input_require_grads()
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def _loss(model: Any, ids: Any, positions: Any) -> Any:
    """As `AnswerHead.sums`, every token being an answer's: which are is data, and fake tensors have none."""
    import torch

    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits.float().flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, ids.flatten(), reduction="sum")
    logits.detach().argmax(-1)
    return loss / ids.numel()


def _tracker() -> Any:
    from torch.distributed._tools.mem_tracker import MemTracker

    class Tracker(MemTracker):
        def _update_peak_stats(self, peak_state: Any) -> None:
            modules, self.memory_tracking = self.memory_tracking, {}
            super()._update_peak_stats(peak_state)
            self.memory_tracking = modules

    return Tracker()


@contextlib.contextmanager
def _patched(packed: bool) -> Iterator[None]:
    import torch
    from transformers import masking_utils

    hook, after = torch.Tensor.register_hook, torch.Tensor.register_post_accumulate_grad_hook

    def hooked(self: Any, function: Any) -> Any:
        return hook(self, function) if self.requires_grad else mock.Mock()

    def hooked_after(self: Any, function: Any) -> Any:
        return after(self, function) if self.requires_grad else mock.Mock()

    # Whether positions start again inside a sequence is data too.
    numbers = torch.zeros_like if packed else lambda positions: None
    with (
        mock.patch.object(torch.Tensor, "register_hook", hooked),
        mock.patch.object(torch.Tensor, "register_post_accumulate_grad_hook", hooked_after),
        mock.patch.object(masking_utils, "find_packed_sequence_indices", numbers),
    ):
        yield
