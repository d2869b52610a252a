"""A GPU request: one short string, one frozen value.

::

    request    = "none" | "auto" | term , { "+" , term } , { ";" , option } ;
    term       = device , [ "*" , count ] ;
    device     = whole | shared | mps | mig | dra ;
    whole      = "whole" , [ ":" , product ] ;                   (* a GPU of one's own *)
    shared     = "shared" , [ ":" , product ] ;                  (* a GPU in turns: time-slicing *)
    mps        = "mps" , [ ":" , [ product ] , limits ] ;        (* a GPU at once: CUDA MPS *)
    mig        = "mig:" , profile , [ ".shared" | ".mps" , [ ":" , limits ] ] ;
    dra        = "dra:" , class , { "[" , CEL , "]" } , [ "{" , capacity , { "," , capacity } , "}" ] ;
    limits     = [ percent , "%" ] , [ quantity ] ;              (* of each client; comma between *)
    capacity   = name , ( ">=" | "=" ) , quantity ;              (* at least so much | that share of it *)
    option     = "same=" , attribute                             (* equal on all devices *)
               | "share=" , name                                 (* one claim for all who write this name *)
               | "interval=" , ( "default" | "short" | "medium" | "long" ) ;   (* of the time slices *)
    count      = 1 ... 128 ;
    percent    = 1 ... 100 ;
    product    = words of the product's name joined with "-" ;   (* H100, A100-80GB, L40S *)
    profile    = "1g.10gb", "1g.10gb.me" and so on: `profiles.PROFILES` ;
    class      = name of a DeviceClass ;
    name       = DNS label; of a capacity: an identifier, with "domain/" before it where it has one ;
    attribute  = as a capacity's name; without a domain it is one of gpu.nvidia.com ;

Spaces around the parts don't matter; ``1g.10gb+me`` is read as ``1g.10gb.me``, and equal terms are added up.
``str(request)`` is the canonical text, and `parse` reads it back to an equal value.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, Literal

from pydantic import field_validator, model_serializer, model_validator

from goldpath.accelerators import scanner
from goldpath.accelerators.profiles import BY_GPU, PROFILES, SHAPE, by_gpu
from goldpath.accelerators.quantities import EXAMPLES, is_quantity
from goldpath.accelerators.terms import NVIDIA, Capacity, Sharing, Term, attribute, is_label
from goldpath.core.errors import SpecError
from goldpath.core.spec import Spec

FORMS = (
    "none, auto, whole, whole*4, whole:H100, shared, mig:1g.10gb, mig:1g.10gb.shared, mps:50%,10Gi, "
    "dra:gpu.nvidia.com{memory>=40Gi}*2"
)
Interval = Literal["", "default", "short", "medium", "long"]
_OPTIONS = {
    "same": "mig:1g.10gb*2;same=parentUUID",
    "share": "shared;share=team-a",
    "interval": "shared;interval=long",
}
"""Each with an example."""
_GLUED = re.compile(r"(?:me(?:\.all)?|gfx)(?=$|[.*: ])", re.IGNORECASE)


class GpuRequest(Spec):
    """What a pod wants of GPUs; see the module for its text form."""

    terms: tuple[Term, ...] = ()
    """Devices, each kind once; none at all is the request ``none``."""
    auto: bool = False
    """To be chosen by the planner before anything is rendered."""
    same: tuple[str, ...] = ()
    """Attributes, with their domain, that must be equal on all devices."""
    share: str = ""
    """Everybody in the namespace who writes this name gets the same devices."""
    interval: Interval = ""
    """How long a turn takes when a GPU is time-sliced; empty leaves it to the driver."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return dict(parse(value)) if isinstance(value, str) else value

    @field_validator("same")
    @classmethod
    def _qualified(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(attribute(name) for name in value)

    @model_validator(mode="after")
    def _together(self) -> GpuRequest:
        options = bool(self.same or self.share or self.interval)
        if self.auto and (self.terms or options):
            raise SpecError("auto stands alone", "Leave the rest away, or say what you want instead.")
        if not self.terms and options:
            raise SpecError("there is an option but no device", f"Examples: {FORMS}.")
        devices = [term.model_copy(update={"count": 1}) for term in self.terms]
        if len(set(devices)) < len(devices):
            raise SpecError("a device is named twice", "Add the counts up: whole*2.")
        if self.same and self.count < 2:
            raise SpecError("same= needs at least two devices", "Example: mig:1g.10gb*2;same=parentUUID.")
        if len(set(self.same)) < len(self.same):
            raise SpecError("same= names an attribute twice", "Name it once.")
        if self.share and not is_label(self.share):
            raise SpecError(
                f"share={self.share} is no name",
                "Lower-case letters, digits and -, at most 63, a letter or digit at both ends.",
            )
        if self.interval and not any(term.time_sliced and term.kind == "whole" for term in self.terms):
            raise SpecError(
                "interval= is for a whole GPU in turns; MIG slices and MPS have no such setting",
                "Example: shared;interval=long.",
            )
        return self

    @model_serializer
    def _as_text(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """The canonical text."""
        if self.auto:
            return "auto"
        options = [f"same={name.removeprefix(NVIDIA + '/')}" for name in self.same]
        options += [f"share={self.share}"] if self.share else []
        options += [f"interval={self.interval}"] if self.interval else []
        return ";".join(["+".join(map(str, self.terms)) or "none", *options])

    @property
    def none(self) -> bool:
        """Whether it asks for no GPU at all."""
        return not self.terms and not self.auto

    def counted(self, count: int) -> GpuRequest:
        """The same with `count` of its only kind of device; a single one has nothing to be equal to."""
        (term,) = self.terms
        same = self.same if count > 1 else ()
        return self.model_copy(update={"terms": (term.counted(count),), "same": same})

    @property
    def count(self) -> int:
        """Devices over all terms."""
        return sum(term.count for term in self.terms)


def parse(text: str) -> GpuRequest:
    """Read a request.

    Raises:
        SpecError: what is wrong with which part, and what would be right.
    """
    if not isinstance(text, str):
        raise SpecError(f"a GPU request is {text!r}, not a string", f"Examples: {FORMS}.")
    try:
        return _parse(text.strip())
    except SpecError as error:
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise SpecError(f"GPU request {shown!r}: {error.message}", error.remedy) from None


def _parse(text: str) -> GpuRequest:
    if not text:
        raise SpecError("it is empty", f"Examples: {FORMS}.")
    head, *options = scanner.split(text, ";")
    given = _options(options)
    if head.lower() in ("none", "auto"):
        return GpuRequest(auto=head.lower() == "auto", **given)
    terms: dict[Term, int] = {}
    for part in _terms(head):
        term = _term(part)
        one = term.model_copy(update={"count": 1})
        terms[one] = terms.get(one, 0) + term.count
    return GpuRequest(terms=tuple(one.counted(count) for one, count in terms.items()), **given)


def _terms(text: str) -> list[str]:
    """The parts between plus signs; NVIDIA's ``1g.10gb+me`` is one part."""
    parts: list[str] = []
    for part in scanner.split(text, "+"):
        if parts and parts[-1].lower().startswith("mig") and _GLUED.match(part):
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    if not all(parts):
        raise SpecError("a + has nothing on one side", "Example: whole:H100+mig:1g.10gb.")
    return parts


def _term(text: str) -> Term:
    device, *counts = scanner.split(text, "*")
    if len(counts) > 1:
        raise SpecError(f"{text} has two counts", "Write one: whole*2.")
    count = _count(counts[0], device) if counts else 1
    kind, colon, rest = (part.strip() for part in device.partition(":"))
    readers = {"whole": _whole, "shared": _shared, "mps": _mps, "mig": _mig, "dra": _dra}
    reader = readers.get(kind.lower())
    if kind.lower() in ("none", "auto"):
        raise SpecError(f"{kind} stands alone", "Leave the rest away, or say what you want instead.")
    if reader is None:
        raise SpecError(f"{kind or device!r} is no kind of request", _suggestion(device, list(readers)))
    if colon and not rest:
        raise SpecError(f"nothing stands after {kind}:", f"Examples: {FORMS}.")
    return reader(rest).counted(count)


def _count(text: str, device: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise SpecError(f"the count {text!r} is not a whole number above 0", f"Example: {device}*2.")
    if int(text) == 0:
        raise SpecError("a count of 0 asks for nothing", "Write none for no GPU at all, or a count from 1.")
    return int(text)


def _suggestion(device: str, kinds: list[str]) -> str:
    """What was probably meant."""
    bare = device.strip().lower().removeprefix("nvidia.com/")
    profile = bare.removeprefix("mig-").replace("gb+", "gb.")
    near = difflib.get_close_matches(bare.partition(":")[0], [*kinds, "none", "auto"], n=1)
    if profile in PROFILES:
        advice = f"Write mig:{profile}."
    elif bare.isdigit() and int(bare) > 0:
        advice = f"Write whole*{int(bare)}."
    elif bare in ("gpu", "gpus", "cuda", "full"):
        advice = "Write whole."
    elif bare in ("0", "", "no", "cpu", "false"):
        advice = "Write none."
    elif near:
        advice = f"Did you mean {near[0]}? Examples: {FORMS}."
    elif re.fullmatch(r"[a-z]+[0-9]+[a-z0-9-]*", bare):
        advice = f"Write whole:{device.strip()} for that GPU. Examples: {FORMS}."
    else:
        advice = f"Examples: {FORMS}."
    return advice


def _whole(rest: str) -> Term:
    return Term(kind="whole", product=_product(rest))


def _shared(rest: str) -> Term:
    return Term(kind="whole", sharing="time", product=_product(rest))


def _mps(rest: str) -> Term:
    parts = [part.strip() for part in rest.split(",")] if rest else []
    product = _product(parts.pop(0)) if parts and re.match(r"[A-Za-z]", parts[0]) else ""
    return Term(kind="whole", sharing="mps", product=product, **_limits(parts))


def _mig(rest: str) -> Term:
    if not rest:
        raise SpecError("mig needs a profile", f"Example: mig:1g.10gb. Profiles: {by_gpu()}.")
    sharing: Sharing = ""
    text, _, limits = (part.strip() for part in rest.partition(":"))
    if SHAPE.fullmatch(limits.lower().replace("gb+", "gb.")):
        named = next((known for gpu, known in BY_GPU.items() if gpu.lower() == text.lower()), ())
        has = f"{text} has {', '.join(named)}" if named else f"Profiles: {by_gpu()}"
        raise SpecError(
            f"mig takes a profile alone, and {text} stands before it", f"Write mig:PROFILE. {has}."
        )
    text = text.lower()
    if text.endswith(".shared"):
        text, sharing = text.removesuffix(".shared"), "time"
    elif text.endswith(".mps"):
        text, sharing = text.removesuffix(".mps"), "mps"
    profile = text.replace("gb+", "gb.")
    if not SHAPE.fullmatch(profile):
        raise SpecError(
            f"{text!r} is not shaped like a MIG profile (<slices>g.<memory>gb)", f"Profiles: {by_gpu()}."
        )
    if limits and sharing != "mps":
        raise SpecError(f"limits are for MPS, not for mig:{text}", f"Example: mig:{profile}.mps:50%.")
    given = _limits([part.strip() for part in limits.split(",")]) if limits else {}
    return Term(kind="mig", sharing=sharing, profile=profile, **given)


def _dra(rest: str) -> Term:
    name = re.match(r"[^\[{]*", rest)
    device_class, at, selectors = (name[0].strip() if name else ""), len(name[0]) if name else 0, []
    capacity: tuple[Capacity, ...] = ()
    while at < len(rest):
        if rest[at].isspace():
            at += 1
            continue
        if rest[at] not in "[{" or capacity:
            raise SpecError(
                f"{rest[at:]!r} stands after the end of dra:{device_class}",
                "The order is dra:CLASS[CEL]{CAPACITY}*COUNT.",
            )
        end = scanner.closing(rest, at)
        inside = rest[at + 1 : end].strip()
        if rest[at] == "[":
            selectors.append(inside)
        else:
            capacity = tuple(_capacity(part) for part in inside.split(","))
        at = end + 1
    return Term(kind="dra", device_class=device_class, selectors=tuple(selectors), capacity=capacity)


def _capacity(text: str) -> Capacity:
    match = re.fullmatch(r"\s*([^\s<>=]+)\s*(>=|=)\s*(\S+)\s*", text)
    if match is None:
        raise SpecError(
            f"the capacity {text.strip()!r} is not NAME>=QUANTITY",
            "{memory>=40Gi} wants at least so much; {memory=10Gi} takes that share of a device that can be shared.",
        )
    return Capacity(name=match[1], operator=">=" if match[2] == ">=" else "=", quantity=match[3])


def _product(text: str) -> str:
    return "-".join(text.split())


def _limits(parts: list[str]) -> dict[str, Any]:
    """MPS limits of each client: ``50%`` of the threads, ``10Gi`` of memory."""
    given: dict[str, Any] = {}
    for part in parts:
        percent = part.endswith("%")
        key, value = ("percent", part[:-1].strip()) if percent else ("memory", part)
        good = re.fullmatch(r"[0-9]{1,3}", value) if percent else is_quantity(value)
        if not good:
            raise SpecError(
                f"the MPS limit {part!r} is neither a percentage nor a quantity",
                f"Example: mps:50%,10Gi. Quantities: {EXAMPLES}.",
            )
        if key in given:
            raise SpecError(f"the MPS limit {part!r} comes after another of its kind", "Give each once.")
        given[key] = int(value) if percent else value
    return given


def _options(parts: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in _OPTIONS:
            raise SpecError(
                f"the option {part!r} is none of same=, share=, interval=",
                f"Examples: {_OPTIONS['same']} or {_OPTIONS['share']};interval=long.",
            )
        if not equals or not value:
            raise SpecError(f"nothing stands after {key}=", f"Example: {_OPTIONS[key]}.")
        if key == "same":
            given["same"] = (*given.get("same", ()), value)
            continue
        if key in given:
            raise SpecError(f"{key}= is given twice", "Give it once.")
        if key == "interval" and value not in ("default", "short", "medium", "long"):
            raise SpecError(f"interval={value} is unknown", "Intervals: default, short, medium, long.")
        given[key] = value
    return given
