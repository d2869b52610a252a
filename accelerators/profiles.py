"""MIG profiles by GPU, as NVIDIA spells them.

The facts are the catalogue's. Where NVIDIA writes ``1g.10gb+me``
(the slice that has the media engines), the names of Kubernetes resources cannot hold a ``+`` and have
``nvidia.com/mig-1g.10gb.me``: that spelling is ours too.
"""

from __future__ import annotations

import re

from goldpath.accelerators import catalogue

BY_GPU: dict[str, tuple[str, ...]] = {
    gpu: tuple(name.replace("+", ".") for name in names) for gpu, names in catalogue.profile_names().items()
}
"""Each GPU's profiles, in our spelling."""

PROFILES = frozenset(profile for profiles in BY_GPU.values() for profile in profiles)

SHAPE = re.compile(r"[1-9]g\.[1-9][0-9]{0,2}gb(?:-me|\.(?:me(?:\.all)?|gfx))?")
"""``<compute slices>g.<memory>gb``, and which media engines come with it."""


def gpus_with(profile: str) -> tuple[str, ...]:
    """The GPUs that can be cut into this profile."""
    return tuple(gpu for gpu, profiles in BY_GPU.items() if profile in profiles)


def nvidia_spelling(profile: str) -> str:
    """As the driver and nvidia-smi write it: ``1g.10gb.me`` is ``1g.10gb+me``."""
    return re.sub(r"gb\.", "gb+", profile)


def by_gpu() -> str:
    """All profiles, GPU by GPU, for an error message; GPUs with the same ones stand together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for gpu, profiles in BY_GPU.items():
        alike.setdefault(profiles, []).append(gpu)
    return "; ".join(f"{', '.join(gpus)}: {', '.join(profiles)}" for profiles, gpus in alike.items())
