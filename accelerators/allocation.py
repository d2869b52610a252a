"""Whether one node has all devices of a request at once, as the scheduler would give them out.

It chooses among all devices of the node, in use or not. Heeded are equal attributes (``same=``), the capacity that is
taken from a device which several may use, the counters that the parts of a partitionable device share, and that a card
which is offered for CUDA and for vfio-pci is one of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from goldpath.accelerators.devices import Found, Slice, newest
from goldpath.accelerators.quantities import value

STEPS = 5_000
"""Choices to try on a node before the answer is that it cannot be told."""
Amounts = dict[tuple[str, ...], Decimal]


class Want(NamedTuple):
    """Devices of one term."""

    number: int
    taken: dict[str, Decimal]
    """Capacity that is taken of each device, by name; without a domain it is the driver's."""
    fitting: tuple[int, ...]
    """Indices of the node's devices that fulfil the expressions and have what is taken."""


def counters(slices: list[Slice]) -> Amounts:
    """What the parts of a device share: an amount by driver, pool, set and counter."""
    return {
        (one["spec"]["driver"], one["spec"]["pool"]["name"], shared["name"], name): value(str(given["value"]))
        for one in newest(slices)
        for shared in one["spec"].get("sharedCounters") or ()
        for name, given in shared["counters"].items()
    }


def has_room(found: Found, taken: dict[str, Decimal]) -> bool:
    """Whether a device that nobody uses has the capacity that is to be taken from it."""
    return _amounts(found, taken) is not None


def fits(devices: list[Found], wants: list[Want], same: tuple[str, ...], shared: Amounts) -> bool | None:
    """Whether a node has all that is wanted at once; None where there are too many choices to tell.

    Args:
        devices: those that the node reaches.
        wants: what is wanted of them.
        same: attributes, with their domain, that have to be equal on all that are given.
        shared: the `counters` of their pools.
    """
    # What fits fewest devices chooses first: where it finds none, there is least to undo.
    ordered = sorted(wants, key=lambda want: len(want.fitting))
    steps, told = iter(range(STEPS)), False
    for group in _equal(devices, ordered, same):
        if all(_enough(devices, want) for want in group):
            found = _Node(devices, group, shared, steps).give(group)
            if found or found is None:
                return found
            told = found
    return told


def _enough(devices: list[Found], want: Want) -> bool:
    again = any(devices[at].device["allowMultipleAllocations"] for at in want.fitting)
    return again or len(want.fitting) >= want.number


def _equal(devices: list[Found], wants: list[Want], same: tuple[str, ...]) -> Iterator[list[Want]]:
    """The wants for each set of devices whose attributes `same` are equal; a device without one is in none."""
    values = [tuple(_attribute(found, name) for name in same) for found in devices]
    for kind in dict.fromkeys(values[at] for want in wants for at in want.fitting):
        if None not in kind:
            yield [
                want._replace(fitting=tuple(at for at in want.fitting if values[at] == kind))
                for want in wants
            ]


def _attribute(found: Found, name: str) -> str | None:
    domain, _, key = name.rpartition("/")
    given = found.device["attributes"].get(domain, {}).get(key)
    return None if given is None else repr(given)


class _Node:
    """The devices of a node, and what is left of them while they are given out."""

    def __init__(
        self, devices: list[Found], wants: list[Want], shared: Amounts, steps: Iterator[int]
    ) -> None:
        self.devices, self.left, self.steps = devices, dict(shared), steps
        self.alike: dict[int, str] = {}
        """What devices that are as good as each other have in common."""
        for at in {at for want in wants for at in want.fitting}:
            found = devices[at]
            self.left[str(at),] = Decimal(1)
            self.left |= _card(found)
            for name, (amount, _) in _capacities(found).items():
                self.left[str(at), name] = amount
            alone = {key: item for key, item in found.given.items() if key not in ("name", "attributes")}
            self.alike[at] = repr((found.pool, alone, [at in want.fitting for want in wants]))

    def give(self, wants: list[Want], first: int = 0) -> bool | None:
        """Give a device to the first want and go on; undo it where the rest then finds none.

        Args:
            wants: what is still to be given.
            first: where in `fitting` to begin: equal wants choose in order, so that no set is tried twice.
        """
        if not wants:
            return True
        want, *rest = wants
        following = [want._replace(number=want.number - 1), *rest] if want.number > 1 else rest
        tried: set[str] = set()
        for place, at in enumerate(want.fitting[first:], first):
            cost = self._cost(at, want.taken)
            state = f"{self.alike[at]} {sorted((key[1:], self.left[key]) for key in cost or ())}"
            if cost is None or state in tried:
                continue
            if next(self.steps, None) is None:
                return None
            tried.add(state)
            self.left |= {key: self.left[key] - amount for key, amount in cost.items()}
            again = self.devices[at].device["allowMultipleAllocations"]
            begin = (place if again else place + 1) if want.number > 1 else 0
            found = self.give(following, begin)
            if found or found is None:
                return found
            self.left |= {key: self.left[key] + amount for key, amount in cost.items()}
        return False

    def _cost(self, at: int, taken: dict[str, Decimal]) -> Amounts | None:
        """What giving this device takes; None where not enough is left."""
        found, cost = self.devices[at], Amounts()
        unused = self.left[str(at),] > 0
        if found.device["allowMultipleAllocations"]:
            amounts = _amounts(found, taken) or {}
            cost = {(str(at), name): amount for name, amount in amounts.items()}
        elif not unused:
            return None
        if unused:  # its counters are used once, however many use it
            cost[str(at),] = Decimal(1)
            cost |= _card(found)
            for one in found.given.get("consumesCounters") or ():
                for name, given in one["counters"].items():
                    cost[(*found.pool, one["counterSet"], name)] = value(str(given["value"]))
        return cost if all(amount <= self.left.get(key, 0) for key, amount in cost.items()) else None


def _card(found: Found) -> Amounts:
    """The card that a whole GPU is, whatever driver it is offered for; nothing for slices, and where it is not told."""
    attributes = found.device["attributes"]
    bus = attributes.get("resource.kubernetes.io", {}).get("pciBusID")
    whole = attributes.get("gpu.nvidia.com", {}).get("type") in ("gpu", "vfio")
    return {(f"{found.pool} {bus}", "card"): Decimal(1)} if bus and whole else {}


def _capacities(found: Found) -> dict[str, tuple[Decimal, dict[str, Any]]]:
    """Amount and policy of each capacity, by its name with domain."""
    driver = found.device["driver"]
    return {
        name if "/" in name else f"{driver}/{name}": (
            value(str(given["value"])),
            given.get("requestPolicy") or {},
        )
        for name, given in (found.given.get("capacity") or {}).items()
    }


def _amounts(found: Found, taken: dict[str, Decimal]) -> dict[str, Decimal] | None:
    """What one user takes of each capacity of a device; None where it has less or allows no such amount."""
    driver, have = found.device["driver"], _capacities(found)
    asked = {name if "/" in name else f"{driver}/{name}": amount for name, amount in taken.items()}
    if asked.keys() - have.keys():
        return None
    amounts = {}
    for name, (all_of_it, policy) in have.items():
        default = value(str(policy["default"])) if "default" in policy else all_of_it
        amount = _allowed(asked.get(name, default), policy)
        if amount is None or amount > all_of_it:
            return None
        amounts[name] = amount
    return amounts


def _allowed(amount: Decimal, policy: dict[str, Any]) -> Decimal | None:
    """The next amount that a `requestPolicy` allows; None where it allows none so large."""
    if valid := policy.get("validValues"):
        return min((one for one in map(_number, valid) if one >= amount), default=None)
    if limits := policy.get("validRange"):
        least = _number(limits["min"])
        if step := _number(limits.get("step", 0)):
            steps = ((amount - least) / step).to_integral_value(ROUND_CEILING)
            amount = least + max(steps, Decimal(0)) * step
        amount = max(amount, least)
        return amount if "max" not in limits or amount <= _number(limits["max"]) else None
    return amount


def _number(text: Any) -> Decimal:
    return value(str(text))
