"""Endpoints on a cluster: services of KServe that outlive the run which deployed them.

The service itself says all there is to know of an endpoint: its objects carry the label `goldpath.io/endpoint`, and
the model's URI, digest and version stand in annotations of its pods. They are beside the spec of the predictor, not
on the service: KServe copies a service's own labels and annotations onto its pods, so that a change there would start
every pod anew.

A deployment that fails or is interrupted leaves what was there before: nothing, or the model that was served. One
that was killed is adopted by the next try.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from goldpath.core.errors import GoldpathError, InputError, StepError, did_you_mean
from goldpath.core.kubernetes import Cluster, ClusterError, Ref, label_value
from goldpath.core.kubernetes.children import undisturbed
from goldpath.core.kubernetes.refs import RUN, STEP, in_deletion, is_ours, labels_of
from goldpath.core.process import sigterm_raises
from goldpath.core.progress import progress
from goldpath.serving.backends import kubernetes_canary
from goldpath.serving.backends import kubernetes_objects as objects
from goldpath.serving.backends.kubernetes_objects import Manifest, Plan
from goldpath.serving.cluster_deploy import canary_asked
from goldpath.serving.manifests import read
from goldpath.serving.results import Endpoint
from goldpath.serving.specs import ServeSpec

POLL_S = 2.0
"""Between looks at pods, or at an address that does not answer yet."""
ANSWER_S = 120.0
"""Seconds for the address to answer once the service is ready: routes and names take their time."""


def deploy(spec: ServeSpec) -> Endpoint:
    """See `endpoints.deploy`."""
    cluster = connect()
    began = time.monotonic()
    kind = spec.cluster.get("kind", "inference-service")
    ref = Ref(*objects.KINDS[kind], spec.name)
    live = _present(cluster, ref)
    revision = objects.revision(live)
    plan = objects.plan(cluster, spec, revision)
    same = (
        live is not None
        and objects.record(live).get("serve") == plan.digest
        and not live["spec"].get("canary")
    )
    found = objects.belonging(cluster, spec.name)
    if same and _begun_here(cluster, live):
        found = []
    asked = canary_asked(spec.cluster)
    tried = asked is not None and live is not None and not same and read.service(live).state == "ready"
    with sigterm_raises(), _undone(cluster, spec.name, found, unless_kept=same):
        if asked is not None and live is not None and tried:
            plan = kubernetes_canary.tried(cluster, spec, asked, live)
        for manifest in plan.before:
            objects.put(cluster, manifest)
        if not same:
            objects.put(cluster, plan.service)
        for manifest in plan.after:
            objects.put(cluster, manifest)
        url = _await(cluster, plan, {} if same else (live or {}).get("status") or {})
    for thing in objects.belonging(cluster, plan.spec.name):
        if Ref.of(thing) not in plan.refs(cluster):
            cluster.remove(Ref.of(thing), propagation="Background", wait_s=0)
    took = 0.0 if same else round(time.monotonic() - began, 2)
    made = objects.endpoint(plan.service, cluster, url)
    return made.model_copy(update={"adopted": same, "ready_seconds": took, "status": "ready"})


def list_endpoints() -> list[Endpoint]:
    """See `endpoints.list_endpoints`."""
    cluster = connect()
    found = [objects.endpoint(thing, cluster, address(thing, cluster)) for thing in objects.services(cluster)]
    return sorted(found, key=lambda one: one.name)


def get(name: str) -> Endpoint:
    """See `endpoints.get`."""
    found = list_endpoints()
    for one in found:
        if one.name == name:
            return one
    raise _unknown(name, [one.name for one in found])


def stop(name: str) -> None:
    """See `endpoints.stop`."""
    cluster = connect()
    found = objects.belonging(cluster, name)
    if not found:
        raise _unknown(name, [thing["metadata"]["name"] for thing in objects.services(cluster)])
    for thing in found:
        cluster.remove(Ref.of(thing))


def healthy(live: Endpoint) -> bool:
    """See `endpoints.healthy`."""
    # Every OpenAI-compatible server lists its models; what else tells of its health differs between images.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{live.url}/models", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def connect() -> Cluster:
    """The cluster of this process."""
    return Cluster.connect()


def address(thing: Manifest, cluster: Cluster) -> str:
    """Base URL of the OpenAI API. A pod of the cluster takes the address inside: the other may lead to a gateway that
    only the outside can name."""
    status = thing.get("status") or {}
    inside = (status.get("address") or {}).get("url")
    if inside and cluster.connection.in_cluster:
        thing = {**thing, "status": {**status, "url": inside}}
    return read.service(thing).url


def _present(cluster: Cluster, ref: Ref) -> Manifest | None:
    """The service as it is; one that failed and serves nothing makes room, for neither waiting nor a change cures it.

    Raises:
        InputError: a service of that name is there, and goldpath did not deploy it.
    """
    live = cluster.get(ref)
    if live is None or in_deletion(live):
        return None
    if not is_ours(live) or objects.ENDPOINT not in labels_of(live):
        raise InputError(
            f"{ref} exists already, and no deployment of goldpath made it",
            "Choose another name for the endpoint, or remove that service.",
        )
    serves = any(objects.is_ready(pod) for pod in objects.pods(cluster, ref.name))
    if read.service(live).state == "failed" and not serves:
        cluster.remove(ref)
        return None
    return live


def _begun_here(cluster: Cluster, live: Manifest | None) -> bool:
    """Whether an earlier try of this step made it, and nothing has been served under its name so far."""
    if live is None or live["metadata"].get("generation") != 1 or not cluster.run:
        return False
    if read.service(live).state == "ready":
        return False
    wanted = {RUN: label_value(cluster.run), STEP: label_value(cluster.step)}
    return wanted.items() <= labels_of(live).items()


@contextmanager
def _undone(cluster: Cluster, name: str, before: list[Manifest], *, unless_kept: bool) -> Iterator[None]:
    """Bring the endpoint's objects back to what they were before where the block ends by an error."""
    try:
        yield
    except BaseException as error:
        if unless_kept and before:
            raise  # somebody else's deployment of the same: it may still get there
        with undisturbed():
            left = _try(lambda: objects.restore(cluster, name, before))
            time.sleep(min(POLL_S, 0.5))  # a creation whose answer was lost may take effect by then
            left = _try(lambda: objects.restore(cluster, name, before)) or left
        if left and isinstance(error, GoldpathError):
            told = f"{error.message}; not undone: {left}"
            raise type(error)(told, f"{error.remedy} Then `goldpath endpoints stop {name}`.") from None
        raise


def _try(action: Callable[[], None]) -> str:
    try:
        action()
    except GoldpathError as error:
        return error.message
    return ""


def _await(cluster: Cluster, plan: Plan, stale: Manifest) -> str:
    """The address, once the service is ready, no pod of what it was before is left, and it answers.

    Args:
        cluster: where.
        plan: what was put there.
        stale: the status before, which KServe leaves until it has looked anew.

    Raises:
        StepError: it fails, or is not there in time; and why.
    """
    ref, name, limit = Ref.of(plan.service), plan.spec.name, plan.spec.ready_seconds
    began = time.monotonic()

    def judge(thing: Manifest) -> str | None:
        status = read.service(thing)
        if status.state == "failed" and thing.get("status") != stale:
            raise StepError(f"it cannot start: {status.reason}")
        return address(thing, cluster) if status.state == "ready" else None

    with progress(f"Starting {name}", None, "s") as bar:
        try:
            url = cluster.wait(
                ref, judge, limit, lambda _thing: bar.update(round(time.monotonic() - began, 1))
            )
            _roll_out(cluster, plan, began + limit)
        except ClusterError:
            raise
        except StepError as error:
            raise StepError(
                f"endpoint {name} is not up: {error.message}",
                f"`kubectl describe {ref.kind.lower()} {name} -n {cluster.namespace}` tells more; a model that only "
                "needs longer gets it by overrides.deploy.cluster.ready_seconds.",
            ) from None
        if plan.spec.min_replicas or objects.pods(cluster, name):  # else it sleeps, until a request wakes it
            _await_answer(objects.endpoint(plan.service, cluster, url))
    return url


def _roll_out(cluster: Cluster, plan: Plan, until: float) -> None:
    """Wait until all pods are those of this deployment: KServe calls a service ready while the old ones serve."""
    while True:
        pods = objects.pods(cluster, plan.spec.name) if plan.spec.kind == "inference-service" else []
        old = [pod for pod in pods if objects.annotation(pod, "serve") != plan.digest]
        ready = [pod for pod in pods if pod not in old and objects.is_ready(pod)]
        if not old and (ready or not pods):
            return
        if time.monotonic() > until:
            raise StepError(
                f"{len(old)} pods of the model before still serve: {cluster.why(Ref.of(plan.service))}"
            )
        time.sleep(POLL_S)


def _await_answer(made: Endpoint) -> None:
    until = time.monotonic() + ANSWER_S
    while not healthy(made):
        if time.monotonic() > until:
            raise StepError(
                f"endpoint {made.name} is ready, but {made.url} does not answer from here",
                "Check the cluster's gateway and that its names resolve where this runs.",
            )
        time.sleep(POLL_S)


def _unknown(name: str, names: list[str]) -> InputError:
    there = f"{did_you_mean(name, names)}There are: {', '.join(sorted(names))}."
    return InputError(f"there is no endpoint {name!r}", there if names else "Deploy one with `goldpath run`.")
