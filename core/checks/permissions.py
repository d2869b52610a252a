"""Asks the API server what one may do, for all that our steps do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from goldpath.core.checks import needs
from goldpath.core.checks.api import Answer, Api
from goldpath.core.checks.needs import Part, Use
from goldpath.core.checks.results import Check, State

SIDE_BY_SIDE = 8
"""Questions that are asked at once: there are about a hundred."""
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Who(NamedTuple):
    """For whom permissions are asked."""

    name: str
    user: str = ""
    """Its full user name; empty for whoever asks."""


YOU = Who("you")


def service_account(namespace: str, name: str) -> Who:
    """A service account, for which one asks by impersonation."""
    return Who(name, f"system:serviceaccount:{namespace}:{name}")


def permissions(
    api: Api, namespace: str, uses: Iterable[Use], needed: Iterable[Part], who: Who = YOU
) -> list[Check]:
    """One check for each kind: may all be done to it that our steps do?

    Args:
        api: the cluster.
        namespace: where the pipelines run.
        uses: the kinds that the cluster has.
        needed: the parts that the golden path takes there.
        who: for whom to ask.

    Raises:
        MachineError: the cluster cannot be reached.
    """
    questions = [(use, verb) for use in uses for verb in use.verbs]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        answers = list(pool.map(lambda one: _ask(api, namespace, who, *one), questions))
    by_use: dict[Use, list[tuple[str, Answer]]] = defaultdict(list)
    for (use, verb), answer in zip(questions, answers, strict=True):
        by_use[use].append((verb, answer))
    return [_check(use, said, namespace, use.part in needed, who) for use, said in by_use.items()]


def _ask(api: Api, namespace: str, who: Who, use: Use, verb: str) -> Answer:
    resource, _, sub = use.plural.partition("/")
    attributes = {"group": use.group, "version": use.version, "resource": resource, "verb": verb}
    if use in needs.NAMESPACED:
        attributes["namespace"] = namespace
    if sub:
        attributes["subresource"] = sub
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    return api.ask(_REVIEWS, review, headers={"Impersonate-User": who.user} if who.user else {})


def _check(use: Use, answers: list[tuple[str, Answer]], namespace: str, required: bool, who: Who) -> Check:
    name = f"{who.name} may: {use.plural}"
    silent = [answer for _, answer in answers if not answer.ok]
    if silent:
        ask_else = "Ask without --service-account, or as somebody who may impersonate it"
        remedy = ask_else if who.user else "Log in again"
        return Check(name=name, state=State.UNKNOWN, required=required, note=silent[0].said(), remedy=remedy)
    refused = [verb for verb, answer in answers if not answer.body.get("status", {}).get("allowed")]
    if not refused:
        return Check(name=name, state=State.OK, required=required, note=", ".join(use.verbs))
    where = f"in {namespace}" if use in needs.NAMESPACED else "in the whole cluster"
    return Check(
        name=name,
        state=State.MISSING,
        required=required,
        note=f"not allowed {where}: {', '.join(refused)}",
        remedy=f"{needs.apply(namespace)}. Pipelines run as {needs.SERVICE_ACCOUNT}: `goldpath doctor "
        f"-n {namespace} --service-account {needs.SERVICE_ACCOUNT}` asks for its permissions",
    )
