"""MIG profiles by GPU, as NVIDIA spells them.

Source: NVIDIA's MIG user guide and the default configuration of nvidia-mig-parted. Where NVIDIA writes ``1g.10gb+me``
(the slice that has the media engines), the names of Kubernetes resources cannot hold a ``+`` and have
``nvidia.com/mig-1g.10gb.me``: that spelling is ours too.
"""

from __future__ import annotations

import re

_A100_80 = ("1g.10gb", "1g.10gb.me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")

BY_GPU: dict[str, tuple[str, ...]] = {
    "A30": ("1g.6gb", "1g.6gb.me", "2g.12gb", "2g.12gb.me", "4g.24gb"),
    "A100-40GB": ("1g.5gb", "1g.5gb.me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"),
    "A100-80GB": _A100_80,
    "H100-80GB": _A100_80,
    "H100-94GB": ("1g.12gb", "1g.12gb.me", "1g.24gb", "2g.24gb", "3g.47gb", "4g.47gb", "7g.94gb"),
    "H100-96GB": ("1g.12gb", "1g.12gb.me", "1g.24gb", "2g.24gb", "3g.48gb", "4g.48gb", "7g.96gb"),
    "H200": ("1g.18gb", "1g.18gb.me", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"),
    "B200": ("1g.23gb", "1g.23gb.me", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"),
    "GB200": ("1g.23gb", "1g.23gb.me", "1g.47gb", "2g.47gb", "3g.93gb", "4g.93gb", "7g.186gb"),
    "B300": ("1g.34gb", "1g.34gb.me", "1g.67gb", "2g.67gb", "3g.135gb", "4g.135gb", "7g.269gb"),
    "GB300": ("1g.35gb", "1g.35gb.me", "1g.70gb", "2g.70gb", "3g.139gb", "4g.139gb", "7g.278gb"),
    "RTX-PRO-6000": (
        "1g.24gb", "1g.24gb-me", "1g.24gb.gfx", "1g.24gb.me", "1g.24gb.me.all",
        "2g.48gb", "2g.48gb-me", "2g.48gb.gfx", "2g.48gb.me.all", "4g.96gb", "4g.96gb.gfx",
    ),
}  # fmt: skip
"""Each GPU's profiles, in our spelling."""

PROFILES = frozenset(profile for profiles in BY_GPU.values() for profile in profiles)

SHAPE = re.compile(r"[1-7]g\.[1-9][0-9]{0,2}gb(?:-me|\.(?:me(?:\.all)?|gfx))?")
"""``<compute slices>g.<memory>gb``, and which media engines come with it."""


def gpus_with(profile: str) -> tuple[str, ...]:
    """The GPUs that can be cut into this profile."""
    return tuple(gpu for gpu, profiles in BY_GPU.items() if profile in profiles)


def nvidia_spelling(profile: str) -> str:
    """As the driver and nvidia-smi write it: ``1g.10gb.me`` is ``1g.10gb+me``."""
    return re.sub(r"gb\.", "gb+", profile)


def by_gpu() -> str:
    """All profiles, GPU by GPU, for an error message."""
    return "; ".join(f"{gpu}: {', '.join(profiles)}" for gpu, profiles in BY_GPU.items())
