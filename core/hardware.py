"""What this machine computes well."""

from __future__ import annotations


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware: AVX512-BF16 or AMX, SVE or NEON with BF16 on Arm."""
    import torch

    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "arm_bf16"))


def has_bf16() -> bool:
    """Whether this machine's GPU multiplies bf16 matrices in hardware, or its CPU where there is no GPU."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16()
