"""A GPU request and what it is sure to get: memory, SMs, and what its tensor cores multiply."""

from __future__ import annotations

from goldpath.accelerators import products, quantities, requests
from goldpath.accelerators.catalogue import Gpu, Profile, gpus
from goldpath.accelerators.requests import GpuRequest
from goldpath.accelerators.terms import Term
from goldpath.core.spec import Result


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
    together: bool = True
    """Whether several of it can work together: neither slices nor shares."""
    cost: int = 0
    """Bytes that it is counted with when places are compared; 0: those that it has."""

    @property
    def cost_order(self) -> tuple[int, int, str]:
        """What "cheaper" means: less memory over all devices, then fewer SMs. No prices are known.

        A slice that is all of a GPU is no cheaper than the GPU, and needs MIG switched on: it comes after it.
        """
        return (self.cost or self.has) * self.count, self.sms * self.count, self.request

    def counted(self, count: int) -> Place:
        """The same devices, `count` of them."""
        request = str(requests.parse(self.request).counted(count))
        return self.model_copy(update={"request": request, "count": count})


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
        place = slice_place(term.profile, able) if able else None
    else:
        named = [gpu for gpu in gpus() if term.product and products.labels(term.product, known=gpu.labels)]
        place = _smallest(named)
    if place is None and limit:
        place = Place(request=str(request), gpus=(), has=limit, sms=0)
    if place is None:
        return None
    has = min(place.has, limit) if limit else place.has
    together = not term.sharing and term.kind != "mig" and not term.device_class.startswith("mig.")
    return place.model_copy(
        update={"request": str(request), "has": has, "count": term.count, "together": together}
    )


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


def slice_place(name: str, rows: list[tuple[Gpu, Profile]]) -> Place:
    """A MIG profile and the GPUs that have it: what the smallest of them gives."""
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
