"""One kind of device in a request, and how many of it."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import model_validator

from goldpath.accelerators import expressions, scanner
from goldpath.accelerators.profiles import PROFILES, SHAPE, by_gpu
from goldpath.accelerators.quantities import EXAMPLES, is_quantity, value
from goldpath.core.errors import SpecError
from goldpath.core.spec import Spec

NVIDIA = "gpu.nvidia.com"
"""NVIDIA's DRA driver, the domain of its attributes, and its class of whole GPUs."""
MAX_COUNT = 128
Kind = Literal["whole", "mig", "dra"]
Sharing = Literal["", "time", "mps"]

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_KEYWORDS = frozenset({"false", "in", "null", "true"})
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
_PRODUCT = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-._][A-Za-z0-9]+)*")


def is_label(text: str) -> bool:
    """Whether `text` can name an object, as a DNS label."""
    return re.fullmatch(_LABEL, text) is not None


def attribute(text: str, domain: str = NVIDIA) -> str:
    """The name of an attribute or capacity with its domain.

    Raises:
        SpecError: not a qualified name as resource.k8s.io/v1 has it.
    """
    before, slash, name = text.rpartition("/")
    good = bool(_IDENTIFIER.fullmatch(name)) and len(before) <= 63
    if not good or (slash and not _SUBDOMAIN.fullmatch(before)):
        raise SpecError(
            f"{text!r} names no attribute", "Examples: parentUUID, resource.kubernetes.io/pcieRoot."
        )
    return text if slash else f"{domain}/{name}"


class Capacity(Spec):
    """A condition on what a device has, or a share that is taken from it."""

    name: str
    """Of the capacity, with its domain where that is not the driver's own."""
    operator: Literal[">=", "="]
    """``>=`` chooses devices that have as much; ``=`` takes that much of a device which allows it."""
    quantity: str

    @model_validator(mode="after")
    def _right(self) -> Capacity:
        attribute(self.name)
        if self.name.rpartition("/")[2] in _KEYWORDS:
            raise SpecError(
                f"the capacity {self.name} is a word of CEL's own", "No device has it: memory is one."
            )
        if not is_quantity(self.quantity):
            raise SpecError(
                f"{self.quantity!r} in {self} is not a Kubernetes quantity", f"Examples: {EXAMPLES}."
            )
        return self

    def __str__(self) -> str:
        """As it stands in a request."""
        return f"{self.name}{self.operator}{self.quantity}"


class Term(Spec):
    """Devices of one kind; which fields count depends on the kind."""

    kind: Kind
    sharing: Sharing = ""
    """Alone (empty), in turns (``time``) or at once (``mps``)."""
    count: int = 1
    product: str = ""
    """Of ``whole``: words of the product's name; empty takes any."""
    profile: str = ""
    """Of ``mig``."""
    percent: int | None = None
    """Of MPS: threads that each client may use, in percent."""
    memory: str = ""
    """Of MPS: device memory that each client may pin, a quantity."""
    device_class: str = ""
    """Of ``dra``, as are the next two."""
    selectors: tuple[str, ...] = ()
    """CEL; a device must fulfil all."""
    capacity: tuple[Capacity, ...] = ()

    @model_validator(mode="after")
    def _right(self) -> Term:
        self._fields()
        if not 1 <= self.count <= MAX_COUNT:
            raise SpecError(f"no node gives a count of {self.count}", f"Counts go from 1 to {MAX_COUNT}.")
        if self.sharing and self.count > 1:
            raise SpecError(
                f"{self} asks for several shares, which would not be more of a GPU: a share is access, not an amount",
                f"Ask for one, or for GPUs of your own: whole*{self.count}.",
            )
        if self.product and not _PRODUCT.fullmatch(self.product):
            raise SpecError(
                f"{self.product!r} is no product", "Examples: H100, A100-80GB, L40S, RTX-PRO-6000."
            )
        if self.kind == "mig":
            self._known_profile()
        if self.percent is not None and not 1 <= self.percent <= 100:
            raise SpecError(f"{self.percent}% of the threads", "Give a percentage from 1 to 100.")
        if self.memory and (not is_quantity(self.memory) or value(self.memory) < 1024**2):
            raise SpecError(
                f"{self.memory!r} is no memory limit for MPS", f"Give at least 1Mi; examples: {EXAMPLES}."
            )
        if self.kind == "dra":
            self._known_class()
        for selector in self.selectors:
            expressions.check(selector)
            if selector != selector.strip() or scanner.closing(f"[{selector}]", 0) != len(selector) + 1:
                raise SpecError(f"{selector!r} cannot stand in [ ]", "No spaces around it, no comment in it.")
        return self

    def _fields(self) -> None:
        """Refuse a field that its kind does not have: two values would have one text."""
        of_kind = {
            "whole": {"product"},
            "mig": {"profile"},
            "dra": {"device_class", "selectors", "capacity"},
        }[self.kind]
        allowed = of_kind | {"kind", "count"} | ({"sharing"} if self.kind != "dra" else set())
        allowed |= {"percent", "memory"} if self.sharing == "mps" else set()
        set_here = {name for name in Term.model_fields if getattr(self, name) not in ("", None, ())}
        if strangers := sorted(set_here - allowed):
            raise SpecError(f"{strangers[0]} is nothing that {self.kind} has", "Leave it away.")

    def _known_profile(self) -> None:
        if not SHAPE.fullmatch(self.profile):
            raise SpecError(f"{self.profile!r} is not shaped like a MIG profile", f"Profiles: {by_gpu()}.")
        if self.profile not in PROFILES:
            raise SpecError(f"no GPU has the MIG profile {self.profile}", f"Profiles: {by_gpu()}.")

    def _known_class(self) -> None:
        if len(self.device_class) > 253 or not _SUBDOMAIN.fullmatch(self.device_class):
            raise SpecError(
                f"{self.device_class!r} is no name of a DeviceClass",
                "`kubectl get deviceclasses` lists them; example: dra:gpu.nvidia.com.",
            )
        names = [self.qualified(one.name) for one in self.capacity]
        if twice := [one.name for one in self.capacity if names.count(self.qualified(one.name)) > 1]:
            raise SpecError(f"the capacity {twice[0]} is named twice", "Name it once.")

    def qualified(self, capacity: str) -> str:
        """A capacity's name with its domain: by default that of the driver behind the class."""
        nvidia = self.device_class.endswith("nvidia.com")
        return capacity if "/" in capacity else f"{NVIDIA if nvidia else self.device_class}/{capacity}"

    @property
    def time_sliced(self) -> bool:
        """Whether its users take turns."""
        return self.sharing == "time"

    def counted(self, count: int) -> Term:
        """The same device, `count` times."""
        return Term(**{**dict(self), "count": count})

    def __str__(self) -> str:
        """As it stands in a request."""
        limits = [f"{self.percent}%"] if self.percent is not None else []
        limits += [self.memory] if self.memory else []
        if self.kind == "dra":
            text = f"dra:{self.device_class}" + "".join(f"[{selector}]" for selector in self.selectors)
            text += "{" + ",".join(map(str, self.capacity)) + "}" if self.capacity else ""
        elif self.kind == "mig":
            text = f"mig:{self.profile}" + {"": "", "time": ".shared", "mps": ".mps"}[self.sharing]
            text += ":" + ",".join(limits) if limits else ""
        else:
            words = [self.product] if self.product else []
            text = {"": "whole", "time": "shared", "mps": "mps"}[self.sharing]
            text += ":" + ",".join(words + limits) if words + limits else ""
        return text if self.count == 1 else f"{text}*{self.count}"
