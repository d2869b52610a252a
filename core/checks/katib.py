"""Whether Katib, as it is configured, may start in the namespace what a search needs: read from its ConfigMap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from goldpath.core.checks import needs
from goldpath.core.checks.api import Api
from goldpath.core.checks.needs import Use
from goldpath.core.checks.results import Check, State

ALGORITHMS = ("random", "grid", "tpe", "cmaes", "bayesianoptimization", "hyperband")
"""Those that our searches take."""
_PATH = f"/api/v1/namespaces/{needs.KATIB_NAMESPACE}/configmaps/{needs.KATIB_CONFIG}"
_KEY = "katib-config.yaml"
_TRAINER, _OPERATOR = "TrainJob.v1alpha1.trainer.kubeflow.org", "PyTorchJob.v1.kubeflow.org"
_BY_DEFAULT = ("Job.v1.batch",)
_REMEDY = (
    f"kubectl get configmap -n {needs.KATIB_NAMESPACE} {needs.KATIB_CONFIG} -o yaml | python deploy/katib/restrict.py "
    f"| kubectl patch configmap -n {needs.KATIB_NAMESPACE} {needs.KATIB_CONFIG} --patch-file /dev/stdin, "
    f"then kubectl rollout restart -n {needs.KATIB_NAMESPACE} deployment/katib-controller"
)


def katib(api: Api, namespace: str, there: Iterable[Use]) -> list[Check]:
    """A check of Katib's configuration, where the cluster has Katib.

    Katib gives the pods of its algorithms no security context but the one that its configuration names, so that a
    namespace with Pod Security "restricted" refuses them, and the search waits until its deadline.

    Args:
        api: the cluster.
        namespace: where searches run.
        there: the kinds that the cluster has.

    Raises:
        MachineError: the cluster cannot be reached.
    """
    kinds = {use.kind for use in there}
    if "Experiment" not in kinds:
        return []
    name = "configuration of Katib"
    answer = api.ask(_PATH)
    if answer.status == 404:  # in another namespace, where we do not look
        note = f"there is no ConfigMap {needs.KATIB_CONFIG} in {needs.KATIB_NAMESPACE}"
        return [Check(name=name, state=State.UNKNOWN, note=note)]
    if not answer.ok:
        remedy = "Ask for the ClusterRole goldpath-doctor (deploy/base/doctor-role.yaml)"
        return [Check(name=name, state=State.UNKNOWN, required=True, note=answer.said(), remedy=remedy)]
    labels = api.ask(f"/api/v1/namespaces/{namespace}").body.get("metadata", {}).get("labels") or {}
    restricted = labels.get(needs.POD_SECURITY) == "restricted"
    found = lacks(
        (answer.body.get("data") or {}).get(_KEY, ""),
        restricted,
        _TRAINER if "TrainJob" in kinds else _OPERATOR,
    )
    if found:
        return [Check(name=name, state=State.MISSING, required=True, note="; ".join(found), remedy=_REMEDY)]
    note = "no median stopping: Katib can give that container no security context" if restricted else ""
    return [Check(name=name, state=State.OK, required=True, note=note)]


def lacks(text: str, restricted: bool, trial: str) -> list[str]:
    """What the configuration lacks, in words.

    Args:
        text: the `katib-config.yaml`.
        restricted: whether pods of the algorithms have to pass Pod Security "restricted".
        trial: the kind of a trial, as `trialResources` names it.
    """
    import yaml

    try:
        config = yaml.safe_load(text)
        taken = config["init"]["controller"].get("trialResources") or _BY_DEFAULT
        algorithms = {one["algorithmName"]: one for one in config["runtime"]["suggestions"]}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return [f"{_KEY} is no configuration of Katib 0.19"]
    found = [] if trial in taken else [f"trialResources has no {trial}"]
    bare = [name for name in ALGORITHMS if restricted and name in algorithms and not passes(algorithms[name])]
    if bare:
        found.append(
            f"Pod Security restricted refuses the pods of {', '.join(bare)}: no securityContext for them"
        )
    return found


def passes(container: Mapping[str, Any]) -> bool:
    """Whether a container passes Pod Security "restricted" in a pod that says nothing itself."""
    context = container.get("securityContext") or {}
    capabilities = context.get("capabilities") or {}
    return (
        context.get("allowPrivilegeEscalation") is False
        and context.get("runAsNonRoot") is True
        and context.get("runAsUser") != 0
        and not context.get("privileged")
        and "ALL" in (capabilities.get("drop") or ())
        and set(capabilities.get("add") or ()) <= {"NET_BIND_SERVICE"}
        and (context.get("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost")
    )
