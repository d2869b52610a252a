"""A new model tried beside the one that serves, both probed, and the decision: it takes over, or it goes."""

from __future__ import annotations

import copy

from goldpath.core.digest import digest_json
from goldpath.core.errors import StepError
from goldpath.core.kubernetes import Cluster, Ref
from goldpath.core.progress import emit, progress
from goldpath.serving.backends import kubernetes_objects as objects
from goldpath.serving.backends.kubernetes_objects import Manifest, Plan
from goldpath.serving.cluster_deploy import CanaryAsked
from goldpath.serving.cluster_parts import Canary
from goldpath.serving.manifests import read
from goldpath.serving.manifests.parts import predictor_deployment
from goldpath.serving.probe import probe
from goldpath.serving.results import ProbeResult
from goldpath.serving.rollout import decide
from goldpath.serving.specs import ProbeSpec, ServeSpec

_QUESTION = "What can you help me with?"


def tried(cluster: Cluster, spec: ServeSpec, asked: CanaryAsked, live: Manifest) -> Plan:
    """Put the new model beside the live one, wait until it is ready, probe both and decide.

    Args:
        cluster: where.
        spec: what shall serve.
        asked: how to try it.
        live: the service as it is.

    Returns:
        What to put now: the canary's own pods serve on.

    Raises:
        StepError: it cannot start, or its figures speak against it; the caller restores what was there.
        SpecError: the context is longer than a model takes.
    """
    questions = ProbeSpec.parse({"questions": [_QUESTION]}, asked.probe)
    name = f"r{digest_json([spec.model_uri, spec.model_digest, spec.cluster])[:8]}"
    wanted = objects.plan(cluster, spec, name)
    for manifest in wanted.before:
        objects.put(cluster, manifest)
    element = _element(cluster, spec, asked, wanted)
    ref = Ref.of(live)

    def add(thing: Manifest) -> None:
        thing["spec"]["canary"] = [copy.deepcopy(element)]

    cluster.change(ref, add)

    def judge(thing: Manifest) -> bool | None:
        status = read.canary(thing, name)
        if status.state == "failed":
            raise StepError(f"it cannot take over: {status.reason}")
        return True if status.state == "ready" else None

    with progress(f"Starting the canary {name}", None, "s"):
        cluster.wait(ref, judge, wanted.spec.ready_seconds)
    stable = _probed(cluster, live, objects.revision(live), questions)
    canary = _probed(cluster, wanted.service, name, questions)
    decision = decide(stable, canary, asked.limits)
    emit("canary", promote=decision.promote, reasons=list(decision.reasons))
    if not decision.promote:
        raise StepError(
            f"the canary of {spec.name} was rolled back: {'; '.join(decision.reasons)}",
            "The model before serves on. Improve the new one, or set overrides.deploy.cluster.canary.limits.",
        )
    return wanted


def address(cluster: Cluster, name: str, revision: str) -> str:
    """The OpenAI API of one predictor: the service's own address leads to either."""
    return f"http://{predictor_deployment(name, revision)}.{cluster.namespace}.svc.cluster.local"


def _element(cluster: Cluster, spec: ServeSpec, asked: CanaryAsked, wanted: Plan) -> Manifest:
    """What stands in the service's `canary`: the same pods that it will have once it serves."""
    beside = Canary(
        revision=objects.revision(wanted.service),
        model_uri=wanted.spec.model_uri,
        percent=asked.percent,
        replicas=asked.replicas,
    )
    rendered = objects.plan(cluster, spec, canary=beside).service
    element: Manifest = copy.deepcopy(rendered["spec"]["canary"][0])
    element["predictor"]["annotations"] = dict(wanted.service["spec"]["predictor"]["annotations"])
    return element


def _probed(cluster: Cluster, service: Manifest, revision: str, asked: ProbeSpec) -> ProbeResult:
    name = service["metadata"]["name"]
    # KServe's own server has its API elsewhere, as `read` knows.
    at = read.service({**service, "status": {"url": address(cluster, name, revision)}}).url
    log = f"`kubectl logs -n {cluster.namespace} deployment/{predictor_deployment(name, revision)}`"
    return probe(objects.endpoint(service, cluster, at).model_copy(update={"log": log}), asked, None)
