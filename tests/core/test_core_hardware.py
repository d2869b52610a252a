"""What the machine computes well."""

from __future__ import annotations

import pytest
import torch

from goldpath.core import hardware


@pytest.mark.parametrize("able", ["avx512_bf16", "amx_bf16", "sve_bf16", "arm_bf16"])
def test_a_cpu_with_bf16_is_known_on_any_architecture(able: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, able: True})
    assert hardware.cpu_has_bf16()
    assert hardware.has_bf16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, able: False})
    assert not hardware.cpu_has_bf16()
    assert not hardware.has_bf16()


@pytest.mark.parametrize("gpu", [True, False])
def test_what_a_gpu_can_says_nothing_of_the_cpu(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: gpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not gpu})
    assert hardware.has_bf16() == gpu
    assert hardware.cpu_has_bf16() != gpu
