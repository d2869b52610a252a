"""The GPUs that can be asked for and the MIG profiles that each can be cut into: facts from `catalogue.json`.

Where the facts come from: profiles, their fractions and how many fit from NVIDIA's MIG User Guide; SMs and the memory
of an instance from `nvidia-smi mig -lgip` on such a GPU (the lowest figure that we found, since it differs a little
from driver to driver); the memory of a whole GPU as `nvidia-smi` shows it; the rest from the data sheets. A GPU is
among the `gpus` only where all of that is known of the whole GPU. Those under `names_only`, and profiles under
`mig_names_only`, can be asked for, by the names in the MIG User Guide and in nvidia-mig-parted's default configuration,
and are not planned for.
"""

from __future__ import annotations

import difflib
import functools
import json
from pathlib import Path
from typing import Any

from goldpath.core.errors import SpecError
from goldpath.core.spec import Result

MIB = 1024**2
DRIVER_MIB = {False: 600, True: 900}
"""What the driver keeps of a GPU below and above 40 GB, MiB: CUDA reports 0.3 to 0.9 GB less than `nvidia-smi`."""
_LARGE = 40_000


class Named(Result):
    """A GPU of which only names are known: it can be asked for, and no plan counts with it."""

    name: str
    products: tuple[str, ...]
    mig: tuple[str, ...]
    """Its profiles, as `nvidia-smi` spells them."""


class Profile(Result):
    """One MIG profile of one GPU: a part with its own memory and its own SMs."""

    name: str
    """As `nvidia-smi` spells it, `1g.10gb+me`; Kubernetes writes `.me` for `+me`."""
    memory_slices: int
    compute_slices: int
    sms: int
    memory_mib: int
    """As `nvidia-smi mig -lgip` shows it, MiB: less than its share of the chips, by what the GPU reserves."""
    instances: int
    """How many the GPU can be cut into."""

    @property
    def resource_name(self) -> str:
        """The profile as Kubernetes spells it, in `nvidia.com/mig-1g.10gb.me` and in our requests."""
        return self.name.replace("+", ".")


class Gpu(Result):
    """One kind of GPU."""

    name: str
    """The short name that requests use (`whole:A100-80GB`)."""
    aliases: tuple[str, ...]
    products: tuple[str, ...]
    """As the driver names it, and with it `device.attributes['gpu.nvidia.com'].productName`."""
    architecture: str
    compute_capability: str
    memory_mib: int
    """As `nvidia-smi` shows it, MiB."""
    sms: int
    """Streaming multiprocessors."""
    sources: tuple[str, ...]
    mig: tuple[Profile, ...]
    mig_names_only: tuple[str, ...] = ()
    """Further profiles of which only the names are known, as `nvidia-smi` spells them."""

    @property
    def usable_bytes(self) -> int:
        """Bytes that a process can use: what `nvidia-smi` shows less the driver's share (`DRIVER_MIB`)."""
        return (self.memory_mib - DRIVER_MIB[self.memory_mib >= _LARGE]) * MIB

    def slice_bytes(self, profile: Profile) -> int:
        """Bytes that a process can use in a slice: what `nvidia-smi` shows, and no more than in the whole GPU."""
        return min(profile.memory_mib * MIB, self.usable_bytes)

    @property
    def labels(self) -> tuple[str, ...]:
        """Values of the node label `nvidia.com/gpu.product` for it."""
        return tuple(product.replace(" ", "-") for product in self.products)

    @property
    def bf16(self) -> bool:
        """Whether its tensor cores multiply bf16 (Ampere and later)."""
        return self._capability >= (8, 0)

    @property
    def fp8(self) -> bool:
        """Whether its tensor cores multiply fp8 (Ada Lovelace, Hopper and later)."""
        return self._capability >= (8, 9)

    @property
    def cost_order(self) -> tuple[int, int]:
        """What "cheaper" means here: less memory, then fewer SMs. It knows no prices, which change and differ."""
        return self.usable_bytes, self.sms

    @property
    def _capability(self) -> tuple[int, int]:
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """All GPUs, the smallest first (`Gpu.cost_order`)."""
    rows = _facts()["gpus"]
    return tuple(sorted((Gpu.model_validate(row) for row in rows), key=lambda gpu: gpu.cost_order))


@functools.cache
def profile_names() -> dict[str, tuple[str, ...]]:
    """Every GPU that has MIG with its profiles as `nvidia-smi` spells them; of which only names are known, last."""
    measured = {
        gpu.name: (*(profile.name for profile in gpu.mig), *gpu.mig_names_only) for gpu in gpus() if gpu.mig
    }
    return measured | {gpu.name: gpu.mig for gpu in _names_only() if gpu.mig}


@functools.cache
def product_names() -> dict[str, tuple[str, ...]]:
    """Every GPU with its names by the driver, those of which only names are known last."""
    measured = {gpu.name: gpu.products for gpu in gpus()}
    return measured | {gpu.name: gpu.products for gpu in _names_only()}


@functools.cache
def _facts() -> dict[str, list[dict[str, Any]]]:
    text = Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8")
    facts: dict[str, list[dict[str, Any]]] = json.loads(text)
    return facts


def _names_only() -> tuple[Named, ...]:
    return tuple(map(Named.model_validate, _facts()["names_only"]))


class MemoryUnknown(SpecError):
    """Something that can be asked for, of which nobody can say how much memory it has."""

    def __init__(self, what: str, request: str, more: str = "", why: str = "is not in the catalogue") -> None:
        super().__init__(
            f"how much memory {what} has {why}, so nothing can be planned for it",
            f"It can be asked for all the same: {request}.{more and ' '}{more}",
        )


def find(name: str) -> Gpu:
    """The GPU of that name, alias, product name or node label; case, spaces, `-` and `NVIDIA` do not matter.

    Raises:
        SpecError: there is none; names those that are near.
    """
    wanted = _plain(name)
    known = {_plain(word): gpu for gpu in gpus() for word in (*gpu.products, *gpu.aliases, gpu.name)}
    if wanted in known:
        return known[wanted]
    inside = [gpu.name for gpu in gpus() if wanted and wanted in _plain(gpu.name)]
    near = inside or [known[word].name for word in difflib.get_close_matches(wanted, known, n=3, cutoff=0.55)]
    listed = ", ".join(dict.fromkeys(near)) if near else ", ".join(gpu.name for gpu in gpus())
    remedy = f"{'Near it' if near else 'It has'}: {listed}."
    for only in _names_only():
        if wanted in {_plain(word) for word in (only.name, *only.products)}:
            raise MemoryUnknown(only.name, f"whole:{only.name}", remedy)
    raise SpecError(f"no GPU {name!r} in the catalogue", remedy)


def profiles(gpu: str | Gpu) -> tuple[Profile, ...]:
    """The MIG profiles of a GPU, the smallest first; empty where it has no MIG.

    Raises:
        SpecError: the catalogue has no such GPU.
    """
    found = find(gpu) if isinstance(gpu, str) else gpu
    return tuple(sorted(found.mig, key=lambda one: (one.memory_mib, one.sms, len(one.name))))


def check_profile(gpu: str | Gpu, profile: str) -> Profile:
    """The profile of that name; `1g.10gb+me` and `1g.10gb.me` are the same.

    Raises:
        SpecError: the GPU is unknown, has no MIG, or no such profile; names those that it has.
    """
    found = find(gpu) if isinstance(gpu, str) else gpu
    for one in found.mig:
        if profile in (one.name, one.resource_name):
            return one
    if not found.mig:
        able = ", ".join(other.name for other in gpus() if other.mig)
        raise SpecError(f"{found.name} has no MIG", f"Ask for the whole GPU, or one that has MIG: {able}.")
    if profile in (*found.mig_names_only, *(name.replace("+", ".") for name in found.mig_names_only)):
        raise MemoryUnknown(f"{profile} of {found.name}", f"mig:{profile.replace('+', '.')}")
    plain = ", ".join(one.name for one in profiles(found) if "+" not in one.name)
    elsewhere = [
        other.name for other in gpus() if any(profile in (p.name, p.resource_name) for p in other.mig)
    ]
    where = f" {profile} is of {', '.join(elsewhere)}." if elsewhere else ""
    raise SpecError(f"{found.name} has no profile {profile}; it has {plain}", f"Give one of these.{where}")


def _plain(name: str) -> str:
    word = "".join(letter for letter in name.lower() if letter.isalnum())
    return word.removeprefix("nvidia").removeprefix("tesla").removeprefix("geforce")
