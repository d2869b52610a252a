"""What is planned for: names of the catalogue, MIG profiles and GPU requests, as they are typed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from goldpath.accelerators import products, requests, scanner
from goldpath.accelerators.catalogue import Gpu, MemoryUnknown, Profile, check_profile, find, gpus
from goldpath.accelerators.granted import Place, granted
from goldpath.accelerators.profiles import gpus_with
from goldpath.accelerators.quantities import is_quantity
from goldpath.accelerators.requests import GpuRequest
from goldpath.accelerators.terms import Term
from goldpath.core.errors import SpecError

ANY = "any"
_REQUEST = re.compile(r"(whole|shared|mps|mig|dra)\s*(?=$|[:*;+])", re.IGNORECASE)
_PLAIN_MIG = re.compile(r"mig\s*:\s*([^:*;+]*?(?:\+(?:me(?:\.all)?|gfx))?)\s*", re.IGNORECASE)
_SHARED = (".shared", ".mps")
_MPS = re.compile(r"mps\s*:|[^,]*\.mps\s*:", re.IGNORECASE)


class Slice(NamedTuple):
    """A MIG profile of one GPU, and the word that it was asked for with."""

    word: str
    gpu: Gpu
    profile: Profile


class Chosen(NamedTuple):
    """What the words stand for."""

    gpus: dict[str, Gpu]
    """Whole GPUs with all their profiles, by name."""
    whole: dict[str, Gpu]
    """Whole GPUs alone."""
    slices: tuple[Slice, ...]
    granted: tuple[Place, ...]
    """Shares of a GPU, and devices of DRA."""
    counts: dict[str, int]
    """How many devices a request asks for, where it says so."""
    notes: tuple[str, ...]
    """For a person: names of several GPUs, and what is left out."""


_NOTHING = Chosen({}, {}, (), (), {}, ())


def choose(names: str | Iterable[str]) -> Chosen:
    """Read what is to be planned for.

    Args:
        names: in one string with commas or in several; see `places.places`.

    Raises:
        SpecError: no such GPU or profile, or a request that no plan can be made for; `MemoryUnknown` where nothing
            that is named has a known memory (else what has none is left out with a note).
    """
    words = _words(names)
    if not words:
        raise SpecError("no GPU is given", "Give a name of the catalogue, or any.")
    if any(word.lower() in (ANY, "auto") for word in words):
        return _NOTHING._replace(gpus={gpu.name: gpu for gpu in gpus()})
    made: list[Chosen] = []
    unknown: list[MemoryUnknown] = []
    for word in words:
        try:
            made.append(_one(word))
        except MemoryUnknown as error:
            unknown.append(error)
    if not made:
        raise unknown[0]
    notes = [note for one in made for note in one.notes] + [error.message for error in unknown]
    return Chosen(
        gpus={name: gpu for one in made for name, gpu in one.gpus.items()},
        whole={name: gpu for one in made for name, gpu in one.whole.items()},
        slices=tuple(piece for one in made for piece in one.slices),
        granted=tuple({place.request: place for one in made for place in one.granted}.values()),
        counts={word: count for one in made for word, count in one.counts.items()},
        notes=tuple(dict.fromkeys(notes)),
    )


def devices(names: str | Iterable[str], option: str, given: int) -> int:
    """How many devices work together: what an option says, or the requests themselves (`whole:T4*4`).

    Args:
        names: as for `choose`.
        option: its name, for the error.
        given: its value; 1 leaves it to the requests.

    Raises:
        SpecError: as for `choose`; requests that contradict each other or the option.
    """
    counts = choose(names).counts
    told = ", ".join(counts)
    if len(set(counts.values())) > 1:
        raise SpecError(f"{told} are of different counts", "Plan for each count by itself.")
    wanted = next(iter(counts.values()), given)
    if given not in (1, wanted):
        raise SpecError(
            f"{option} is {given} and {told} asks for {wanted} devices", f"Leave {option} away, or the count."
        )
    return wanted


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


def stranger(request: GpuRequest) -> str:
    """A note on a product that the catalogue does not know, with those that are near; empty where it knows it.

    It is no mistake: a cluster may have GPUs that the catalogue has not.
    """
    for product in (term.product for term in request.terms if term.product):
        try:
            meant(product)
        except MemoryUnknown:
            continue
        except SpecError as error:
            if not products.labels(product):
                return f"the catalogue has no GPU {product}; {error.remedy[0].lower()}{error.remedy[1:]}"
    return ""


def _words(names: str | Iterable[str]) -> list[str]:
    """Commas part the names, but not those in brackets, nor those before the limits of MPS."""
    if not isinstance(names, str):
        return [word.strip() for word in names if word.strip()]
    words: list[str] = []
    for part in scanner.split(names, ","):
        limit = re.split("[;*]", part)[0].strip()
        if words and _MPS.match(words[-1]) and (limit.endswith("%") or is_quantity(limit)):
            words[-1] += f",{part}"
        elif part:
            words.append(part)
    return words


def _one(word: str) -> Chosen:
    if word.lower() == "none":
        raise SpecError(
            "none asks for no GPU, and a plan is laid against GPUs", "Give a name of the catalogue, or any."
        )
    if _REQUEST.match(word):
        return _requested(word)
    name, colon, profile = (part.strip() for part in word.partition(":"))
    if colon and not profile:
        known = ", ".join(its.name for its in meant(name)[0].mig if "+" not in its.name)
        has = f", or one of its profiles: {known}" if known else ""
        raise SpecError(f"nothing stands after {word}", f"Give {name}{has}.")
    found = meant(name)
    notes = _several(name, found)
    if not colon:
        return _NOTHING._replace(gpus={gpu.name: gpu for gpu in found}, notes=notes)
    able = [
        Slice(word, gpu, its) for gpu in found for its in gpu.mig if profile in (its.name, its.resource_name)
    ]
    return _NOTHING._replace(
        slices=tuple(able or [Slice(word, gpu, check_profile(gpu, profile)) for gpu in found]), notes=notes
    )


def _several(name: str, found: tuple[Gpu, ...]) -> tuple[str, ...]:
    return (f"{name} is {' and '.join(gpu.name for gpu in found)}",) if len(found) > 1 else ()


def _requested(word: str) -> Chosen:
    """A GPU request of one kind of device."""
    plain = _PLAIN_MIG.fullmatch(word)
    if plain and plain[1] and not plain[1].lower().endswith(_SHARED):
        return _NOTHING._replace(slices=tuple(_owners(word, plain[1].lower())))
    request = requests.parse(word)
    if len(request.terms) > 1:
        each = ", ".join(str(term.counted(1)) for term in request.terms)
        raise SpecError(
            f"{request} asks for several kinds of devices, and a plan is for one",
            f"Plan for each by itself: {each}.",
        )
    (term,) = request.terms
    one = term.counted(1)
    sliced = term.kind == "mig" or term.device_class.startswith("mig.")
    if sliced and term.count > 1:
        raise SpecError(
            f"{request} asks for {term.count} MIG slices, which do not work together (there is no NCCL between them)",
            f"Plan for one, {one}, or for whole GPUs.",
        )
    counts = {str(request): term.count} if term.count > 1 else {}
    if term.kind == "mig" and not term.sharing:
        return _NOTHING._replace(slices=tuple(_owners(word, term.profile)))
    if term.kind == "whole" and not term.sharing and term.product:
        found = meant(term.product)
        return _NOTHING._replace(
            whole={gpu.name: gpu for gpu in found}, counts=counts, notes=_several(term.product, found)
        )
    place = granted(request.counted(1))
    if place is None:
        raise MemoryUnknown(str(request), str(request), _known_if(term), "is not known before it is granted")
    notes = []
    if term.time_sliced:
        notes.append(
            f"{one} counts with all of the memory, which it has while the others who share it hold nothing"
        )
    if not place.gpus:
        notes.append(f"which GPU {one} gives is not known: it counts as one with bf16 and fp8")
    return _NOTHING._replace(granted=(place,), counts=counts, notes=tuple(notes))


def _known_if(term: Term) -> str:
    """How to ask, so that the memory is known."""
    if term.kind == "dra":
        return f"With a condition it is known: dra:{term.device_class}{{memory>=40Gi}}."
    if term.sharing == "mps":
        part = f"{term.counted(1)}".partition(":")[2] if term.kind == "whole" else ""
        named = f"mps:{part}," if part else "mps:" if term.kind == "whole" else f"mig:{term.profile}.mps:"
        return f"With a limit it is known: {named}10Gi."
    return f"With a GPU's name it is known: {'shared' if term.sharing else 'whole'}:L4."


def _owners(word: str, profile: str) -> list[Slice]:
    """The profile of every GPU that has it."""
    found = [
        Slice(word, gpu, its) for gpu in gpus() for its in gpu.mig if profile in (its.name, its.resource_name)
    ]
    name = profile.replace("+", ".")
    if not found and gpus_with(name):
        raise MemoryUnknown(f"{profile} of {' and '.join(gpus_with(name))}", f"mig:{name}")
    if not found:
        known = dict.fromkeys(its.name for one in gpus() for its in one.mig if "+" not in its.name)
        raise SpecError(
            f"no GPU of the catalogue has the profile {profile}", f"Profiles: {', '.join(known)}."
        )
    return found
