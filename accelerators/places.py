"""Where work could run: whole GPUs and MIG slices, as requests with the memory that they are sure to have."""

from __future__ import annotations

from collections.abc import Iterable

from goldpath.accelerators import products, quantities
from goldpath.accelerators.catalogue import Gpu, Profile, check_profile, find, gpus, profiles
from goldpath.accelerators.requests import GpuRequest
from goldpath.accelerators.terms import Term
from goldpath.core.errors import SpecError
from goldpath.core.spec import Result

ANY = "any"


class Place(Result):
    """One GPU request and what it gives."""

    request: str
    """`whole:L4`, `whole:H100*2`, `mig:1g.10gb`."""
    gpus: tuple[str, ...]
    """The GPUs that can serve it."""
    has: int
    """Usable bytes of one device; of several GPUs that can serve it, those of the smallest."""
    sms: int
    count: int = 1
    bf16: bool = True
    fp8: bool = True
    """Whether its tensor cores multiply fp8."""
    cost: int = 0
    """Bytes that it is counted with when places are compared; 0: those that it has."""

    @property
    def cost_order(self) -> tuple[int, int, str]:
        """What "cheaper" means: less memory over all devices, then fewer SMs. No prices are known.

        A slice that is all of a GPU is no cheaper than the GPU, and needs MIG switched on: it comes after it.
        """
        return (self.cost or self.has) * self.count, self.sms * self.count, self.request


def places(names: str | Iterable[str] = ANY, count: int = 1) -> list[Place]:
    """The requests that a choice of GPUs allows, the cheapest first.

    A MIG slice has no way to its neighbours (no NCCL over NVLink or PCIe), so several devices are whole GPUs.

    Args:
        names: `any`, or GPUs in one string with commas or in several; `A30` is the GPU and all its profiles,
            `A30:1g.6gb` that profile alone. `A100` is both A100 of the catalogue, as in the request `whole:A100`, and
            requests themselves are read too: `whole:A100-80GB`, `mig:1g.10gb`.
        count: devices of one process group.

    Raises:
        SpecError: the catalogue has no such GPU, the GPU no such profile, or several slices are asked for.
    """
    chosen, named = _chosen(names)
    if named and count > 1:
        gpu, profile = named[0]
        raise SpecError(
            f"{gpu.name}:{profile.name} is a MIG slice, and {count} devices that work together are whole GPUs",
            f"Give {gpu.name}.",
        )
    rows = [
        Place(
            request=f"whole:{gpu.name}" + (f"*{count}" if count > 1 else ""),
            gpus=(gpu.name,),
            has=gpu.usable_bytes,
            sms=gpu.sms,
            count=count,
            bf16=gpu.bf16,
            fp8=gpu.fp8,
        )
        for gpu in chosen
    ]
    if count == 1:
        rows += _slices(chosen, named)
    return sorted(rows, key=lambda place: place.cost_order)


def granted(request: GpuRequest) -> Place | None:
    """What a request is sure to get on each device; None where that cannot be known before it is granted.

    A GPU in turns counts whole, since nothing keeps its memory apart; a limit of MPS or a capacity of DRA counts. MPS
    without a limit is a part of which the request does not say how large: the device plugin gives each replica an
    equal one.
    """
    if len(request.terms) != 1:
        return None
    (term,) = request.terms
    limit = _limit(term)
    if term.sharing == "mps" and not limit:
        return None
    if term.kind == "mig":
        able = [(gpu, one) for gpu in gpus() for one in gpu.mig if one.resource_name == term.profile]
        place = _slice(term.profile, able) if able else None
    else:
        named = [gpu for gpu in gpus() if term.product and products.labels(term.product, known=gpu.labels)]
        place = _smallest(named)
    if place is None and limit:
        place = Place(request=str(request), gpus=(), has=limit, sms=0)
    if place is None:
        return None
    has = min(place.has, limit) if limit else place.has
    return place.model_copy(update={"request": str(request), "has": has, "count": term.count})


def _limit(term: Term) -> int:
    """Bytes of device memory that the request itself names; 0 where it names none."""
    if term.memory:
        return int(quantities.value(term.memory))
    asked = [one.quantity for one in term.capacity if term.qualified(one.name) == term.qualified("memory")]
    return int(quantities.value(asked[0])) if asked else 0


def _smallest(able: list[Gpu]) -> Place | None:
    if not able:
        return None
    return Place(
        request="",
        gpus=tuple(gpu.name for gpu in able),
        has=min(gpu.usable_bytes for gpu in able),
        sms=min(gpu.sms for gpu in able),
        bf16=all(gpu.bf16 for gpu in able),
        fp8=all(gpu.fp8 for gpu in able),
    )


def _chosen(names: str | Iterable[str]) -> tuple[list[Gpu], list[tuple[Gpu, Profile]]]:
    """GPUs with all their profiles, and single profiles."""
    words = names.split(",") if isinstance(names, str) else list(names)
    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise SpecError("no GPU is given", "Give a name of the catalogue, or any.")
    if any(word.lower() == ANY for word in words):
        return list(gpus()), []
    found: dict[str, Gpu] = {}
    named: list[tuple[Gpu, Profile]] = []
    for word in words:
        before, colon, after = (part.strip() for part in word.partition(":"))
        if not colon or before.lower() == "whole":
            found |= {gpu.name: gpu for gpu in meant(after if colon else before)}
        else:
            named += _profiles(before, after)
    return list(found.values()), named


def whole_gpus(names: str | Iterable[str]) -> tuple[str, ...]:
    """The GPUs among `names` that are not narrowed to a slice: what several devices can be made of.

    Raises:
        SpecError: as for `places`.
    """
    return tuple(gpu.name for gpu in _chosen(names)[0])


def meant(name: str) -> tuple[Gpu, ...]:
    """The GPUs of a name: one of the catalogue's, or all with these words in their product, as in `whole:A100`.

    Raises:
        SpecError: there is none; names those that are near.
    """
    try:
        return (find(name),)
    except SpecError:
        able = tuple(gpu for gpu in gpus() if name and products.labels(name, known=gpu.labels))
        if not able:
            raise
        return able


def _profiles(gpu: str, profile: str) -> list[tuple[Gpu, Profile]]:
    """`A30`, `1g.6gb`: that profile of that GPU; `mig`, `1g.6gb`: the profile of every GPU that has it."""
    able = gpus() if gpu.lower() == "mig" else meant(gpu)
    found = [(one, its) for one in able for its in one.mig if profile in (its.name, its.resource_name)]
    if found:
        return found
    if gpu.lower() == "mig":
        known = dict.fromkeys(its.name for one in gpus() for its in one.mig if "+" not in its.name)
        raise SpecError(
            f"no GPU of the catalogue has the profile {profile}", f"Profiles: {', '.join(known)}."
        )
    return [(one, check_profile(one, profile)) for one in able]


def _slices(chosen: list[Gpu], named: list[tuple[Gpu, Profile]]) -> list[Place]:
    """A profile of one name is one request, whichever GPU serves it: it has what the smallest of them gives."""
    rows = [(gpu, profile) for gpu in chosen for profile in profiles(gpu) if "+" not in profile.name]
    found: dict[str, dict[str, tuple[Gpu, Profile]]] = {}
    for gpu, profile in [*rows, *named]:
        found.setdefault(profile.resource_name, {})[gpu.name] = (gpu, profile)
    return [_slice(name, list(owners.values())) for name, owners in found.items()]


def _slice(name: str, rows: list[tuple[Gpu, Profile]]) -> Place:
    gpu, profile = rows[0]
    all_of_it = 2 * profile.memory_mib > gpu.memory_mib  # the next smaller one is a half
    return Place(
        request=f"mig:{name}",
        gpus=tuple(gpu.name for gpu, _ in rows),
        has=min(gpu.slice_bytes(profile) for gpu, profile in rows),
        sms=min(profile.sms for _, profile in rows),
        bf16=all(gpu.bf16 for gpu, _ in rows),
        fp8=all(gpu.fp8 for gpu, _ in rows),
        cost=max(gpu.usable_bytes for gpu, _ in rows) + 1 if all_of_it else 0,
    )
