"""Which APIs a cluster serves, and in which versions."""

from __future__ import annotations

from typing import NamedTuple

from goldpath.core.checks import needs
from goldpath.core.checks.api import Answer, Api
from goldpath.core.checks.needs import Part, Use
from goldpath.core.checks.results import Check, State


class Served(NamedTuple):
    """What a cluster has of what we use."""

    checks: list[Check]
    there: list[Use]
    """What it serves, Kubernetes' oldest kinds too."""
    needed: frozenset[Part]
    """The parts that the golden path takes there."""


def served(api: Api) -> Served:
    """One check for each kind that we write, in the version that we write it in; the old training operator is
    missed only where the Trainer is missing.

    Raises:
        MachineError: the cluster cannot be reached.
    """
    everything = needs.NAMESPACED + needs.CLUSTER_WIDE
    uses = [use for use in everything if use.group]
    answers = {name: api.ask(f"/apis/{name}") for name in dict.fromkeys(use.api for use in uses)}
    checks = {use: _check(api, use, answers[use.api]) for use in uses}
    there = [use for use in everything if use not in checks or checks[use].state is State.OK]
    needed = {use.part for use in everything if use.part.required}
    by_operator = [use for use in there if use.part is needs.OPERATOR]
    trainer = all(use in there for use in uses if use.part is needs.TRAINER)
    if by_operator and not trainer:
        needed = needed - {needs.TRAINER} | {needs.OPERATOR}
    found = [
        check.model_copy(update={"required": use.part in needed})
        for use, check in checks.items()
        if use.part is not needs.OPERATOR or use in there or not trainer
    ]
    return Served(found, there, frozenset(needed))


def called(use: Use) -> str:
    """What the check of an API is called, such as ``trainjobs (trainer.kubeflow.org/v1alpha1)``."""
    return f"{use.plural} ({use.api})"


def _check(api: Api, use: Use, answer: Answer) -> Check:
    if answer.ok and any(one["name"] == use.plural for one in answer.body.get("resources", ())):
        return Check(name=called(use), state=State.OK)
    if not answer.ok and answer.status != 404:
        return Check(
            name=called(use), state=State.UNKNOWN, note=answer.said(), remedy="Ask who runs the cluster"
        )
    versions = [one["version"] for one in api.ask(f"/apis/{use.group}").body.get("versions", ())]
    if not versions:
        note = f"{use.part.name} is not installed"
    elif use.version in versions:
        note = f"{use.api} is there without {use.kind}: not all of {use.part.name} is installed"
    else:
        note = f"the cluster has {', '.join(versions)}: another release than {use.part.name}"
    return Check(name=called(use), state=State.MISSING, note=note, remedy=use.part.remedy)
