"""Whether a cluster can run the golden path: what must be installed, what one may do there, and its GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterable

from goldpath.accelerators.cluster import ClusterReport, report
from goldpath.accelerators.reading import read_from
from goldpath.core.checks import needs
from goldpath.core.checks.api import Api
from goldpath.core.checks.look import look
from goldpath.core.checks.permissions import YOU, service_account
from goldpath.core.checks.results import Check, State, can_run
from goldpath.core.errors import MachineError
from goldpath.core.spec import Result


class Diagnosis(Result):
    """What was found in a cluster."""

    server: str
    namespace: str
    can_run: bool
    """Whether everything that the golden path needs was seen to be there."""
    checks: tuple[Check, ...]
    gpus: ClusterReport | None
    """None where the cluster does not show its nodes and devices."""


def namespace_of(api: Api, given: str = "") -> str:
    """The one that is given, else GOLDPATH_NAMESPACE, else the context's, else that of `deploy/base`."""
    return given or os.environ.get("GOLDPATH_NAMESPACE", "") or api.namespace or needs.NAMESPACE


def diagnose(api: Api, namespace: str = "", account: str = "", requests: Iterable[str] = ()) -> Diagnosis:
    """Look at a cluster. Nothing in it is changed.

    Args:
        api: the cluster.
        namespace: where the pipelines run; see `namespace_of`.
        account: the service account whose permissions are asked for; those of whoever asks by default.
        requests: GPU requests to look at; the usual ones by default.

    Raises:
        MachineError: it cannot be reached, or does not know who asks.
        SpecError: one of `requests` is no GPU request.
    """
    where = namespace_of(api, namespace)
    checks = look(api, where, service_account(where, account) if account else YOU)
    check, gpus = _gpus(api, requests)
    checks.append(check)
    return Diagnosis(
        server=api.where, namespace=where, can_run=can_run(checks), checks=tuple(checks), gpus=gpus
    )


def _gpus(api: Api, requests: Iterable[str]) -> tuple[Check, ClusterReport | None]:
    """The golden path runs without GPUs, slowly: small models train on CPUs."""
    try:
        found = read_from(api)
    except MachineError as error:
        return Check(name="GPUs", state=State.UNKNOWN, note=error.message, remedy=error.remedy), None
    told = report(*found, wanted=requests)
    if not told.cluster.paths:
        remedy = "Install the GPU operator or NVIDIA's DRA driver (deploy/gpus/README.md)."
        return Check(name="GPUs", state=State.MISSING, note="no node offers any", remedy=remedy), told
    note = f"nodes: {told.nodes}; paths: {', '.join(told.cluster.paths)}; see `goldpath doctor --gpus`"
    return Check(name="GPUs", state=State.OK, note=note), told
