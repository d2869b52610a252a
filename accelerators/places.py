"""Where work could run: whole GPUs and MIG slices, as requests with the memory that they are sure to have."""

from __future__ import annotations

from collections.abc import Iterable

from goldpath.accelerators.catalogue import Gpu, Profile, profiles
from goldpath.accelerators.chosen import ANY, Chosen, choose
from goldpath.accelerators.granted import Place, slice_place
from goldpath.core.errors import SpecError


def places(names: str | Iterable[str] = ANY, count: int = 1) -> list[Place]:
    """The requests that a choice of GPUs allows, the cheapest first.

    A MIG slice has no way to its neighbours (no NCCL over NVLink or PCIe), so several devices are whole GPUs.

    Args:
        names: `any`, or GPUs in one string with commas or in several; `A30` is the GPU and all its profiles,
            `A30:1g.6gb` that profile alone. `A100` is both A100 of the catalogue with their profiles. Requests are
            read too: `whole:A100` (whole GPUs alone), `mig:1g.10gb`, `shared:L4`, `mps:L4,50%,10Gi`; `auto` is `any`.
        count: devices of one process group.

    Raises:
        SpecError: the catalogue has no such GPU, the GPU no such profile, or several slices are asked for; how much
            memory a request gives is not known.
    """
    made = choose(names)
    _check_together(made, count)
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
        for gpu in (made.gpus | made.whole).values()
    ]
    if count == 1:
        rows += _slices(made)
    rows += [place.counted(count) for place in made.granted]
    return sorted(rows, key=lambda place: place.cost_order)


def whole_gpus(names: str | Iterable[str]) -> tuple[str, ...]:
    """The GPUs among `names` that are not narrowed to a slice or a share: what several devices can be made of.

    Raises:
        SpecError: as for `places`.
    """
    made = choose(names)
    return tuple(made.gpus | made.whole)


def _check_together(made: Chosen, count: int) -> None:
    """Refuse what cannot be `count` devices that work together."""
    for word, asked in made.counts.items():
        if asked != count:
            raise SpecError(
                f"{word} asks for {asked} devices, and the plan is for {count}",
                f"Give {word.replace(f'*{asked}', '')}: how many there are is said apart.",
            )
    if count == 1:
        return
    alone = [(one.word, "a MIG slice", one.gpu.name) for one in made.slices]
    alone += [(one.request, "a share or a slice", "") for one in made.granted if not one.together]
    if alone:
        word, what, gpu = alone[0]
        raise SpecError(
            f"{word} is {what}, and {count} devices that work together are whole GPUs",
            f"Give {gpu or 'a whole GPU'}.",
        )


def _slices(made: Chosen) -> list[Place]:
    """A profile of one name is one request, whichever GPU serves it: it has what the smallest of them gives."""
    rows = [(gpu, one) for gpu in made.gpus.values() for one in profiles(gpu) if "+" not in one.name]
    rows += [(one.gpu, one.profile) for one in made.slices]
    found: dict[str, dict[str, tuple[Gpu, Profile]]] = {}
    for gpu, profile in rows:
        found.setdefault(profile.resource_name, {})[gpu.name] = (gpu, profile)
    return [slice_place(name, list(owners.values())) for name, owners in found.items()]
