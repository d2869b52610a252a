"""Digs out why something failed: conditions, events, pods, the last lines of a log. One short text, never an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from goldpath.core.errors import GoldpathError
from goldpath.core.kubernetes.api import Api
from goldpath.core.kubernetes.objects import Objects
from goldpath.core.kubernetes.refs import Object, Ref

LINES, MOST_PODS, MOST_CHARS = 5, 2, 1500
LIMIT_S = 10
"""Seconds for one of the requests: the reason is worth a look, not a wait."""
_POD_LABELS = {
    "TrainJob": ("jobset.sigs.k8s.io/jobset-name",),
    "JobSet": ("jobset.sigs.k8s.io/jobset-name",),
    "Job": ("batch.kubernetes.io/job-name",),
    "PyTorchJob": ("training.kubeflow.org/job-name",),
    "Experiment": ("katib.kubeflow.org/experiment",),
    "Trial": ("jobset.sigs.k8s.io/jobset-name", "training.kubeflow.org/job-name"),
    "InferenceService": ("serving.kserve.io/inferenceservice",),
    "LLMInferenceService": ("app.kubernetes.io/name",),
}
"""How the pods of a kind are labelled, through all that stands between (JobSet, Job, Deployment)."""
_MAKES = {"TrainJob": ("jobset.x-k8s.io/v1alpha2", "JobSet"), "JobSet": ("batch/v1", "Job")}
"""Whose conditions and events tell why there are no pods (a quota, say)."""
_GOOD = {"Ready", "Available", "Complete", "Completed", "Succeeded", "Created", "Running", "Initialized"}
_GOOD_ENDS = ("Ready", "Available", "Succeeded", "Created", "Progressing")
_BAD = ("Failed", "Evicted", "DeadlineExceeded", "Stalled")
_WAITS = ("ContainerCreating", "PodInitializing")
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
"""Why a container waits that will wait until somebody mends it."""
_PULLS = ("ErrImagePull", "ImagePullBackOff")
"""Why it waits for an image: that depends on what the registry said."""
_ABSENT = re.compile(
    r"not ?found|(manifest|name) unknown|does not exist|unauthorized|denied|forbidden|invalid reference", re.I
)
"""What a registry says of an image that is not there, or not for us."""
_AWAY = re.compile(
    r"time(d )?out|deadline exceeded|too ?many ?requests|\b429\b|no such host|server misbehaving|connection re"
    r"|\b5\d\d (internal|not impl|bad|service|gateway)|\bEOF\b|unavailable",
    re.I,
)
"""What is said of a registry that does not answer, or not now."""
_REFUSED = re.compile(
    r'violates PodSecurity|error looking up service account|admission webhook "[^"]+" denied'
)
"""The same of a pod that is not made at all. A quota is not among them: others may end first."""
_NOT_MADE = re.compile(rf"^FailedCreate|exceeded quota|{_REFUSED.pattern}")

_AT_WORK = ("runningTrialList", "pendingTrialList")
"""Fields of an Experiment's status."""
_TRIAL_JOBS = (("trainer.kubeflow.org/v1alpha1", "TrainJob"), ("kubeflow.org/v1", "PyTorchJob"))
_SERVICES = ("InferenceService", "LLMInferenceService")
_SETS = ("ReplicaSet", "StatefulSet")
"""What makes the pods of services and of a search's algorithm: nobody above is told of a refused pod."""
_PARTS = ("transformer", "explainer", "router-scheduler", "prefill")
"""Words in the names of what a service has besides the pods that serve: each starts, or not, for itself."""
_WORKER = "leaderworkerset.sigs.k8s.io/worker-index"
_REVISIONS = ("pod-template-hash", "leaderworkerset.sigs.k8s.io/template-revision-hash")


class Diagnosis:
    """Looks at an object and at what was made for it."""

    def __init__(self, api: Api, objects: Objects) -> None:
        self._api, self._objects = api, objects

    def why(self, ref: Ref) -> str:
        """The reason in a few words; empty where nothing tells of one. What may not be read is left out."""
        try:
            thing = self._objects.get(ref)
        except GoldpathError:
            return ""
        if thing is None:
            return ""
        found = self._of(thing)
        trials = ("failedTrialList", *_AT_WORK)
        pods = [(pod, told) for pod in self._pods(thing, trials) if (told := reason(pod))]
        pods.sort(key=lambda pair: _rank(pair[1]))
        for pod, told in pods[:MOST_PODS]:
            found.append(f"pod {pod['metadata']['name']}: {told}{self._last_lines(pod)}")
        if len(pods) > MOST_PODS:
            found.append(f"and {len(pods) - MOST_PODS} more pods")
        text = "; ".join(dict.fromkeys(found))
        return text if len(text) <= MOST_CHARS else f"{text[: MOST_CHARS - 3]}..."

    def stuck(self, ref: Ref) -> dict[str, bool | None]:
        """What keeps its pods from starting; the same words for the same thing, each time.

        Returns:
            Each with whether that lasts until somebody mends it; None where nothing tells.
        """
        try:
            thing = self._objects.get(ref)
        except GoldpathError:
            return {}
        if thing is None:
            return {}
        pods = self._pods(thing, _AT_WORK)
        alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if thing["kind"] in _SERVICES:
            alive = _decisive(alive)
        held = {
            f"{pod['metadata']['name']}/{container['name']}": _lasts(container)
            for pod in alive
            for container in _containers(pod)
            if _holds(container)
        }
        return held | {told: True for told in self._not_made(thing, pods) if _REFUSED.search(told)}

    def _not_made(self, thing: Object, pods: list[Object]) -> list[str]:
        """What is said of pods that are not there."""
        if not pods:
            return self._of(thing)
        if thing["kind"] == "Experiment":  # its algorithm has one, which tells nothing of the trials'
            return self._trials_not_made(thing)
        if thing["kind"] in _SERVICES:
            there = {_part(pod["metadata"]["name"]) for pod in pods}
            return [told for name, told in self._refusals(thing).items() if _part(name) not in there]
        return []

    def _of(self, thing: Object) -> list[str]:
        """What conditions and events say, of the object or of what it made first."""
        said = [*conditions(thing), *self._events(thing)]
        if made := _MAKES.get(thing["kind"]):
            for child in self._owned(thing, Ref(made[0], made[1], "", _namespace(thing))):
                said += self._of(child)
        if thing["kind"] in ("Experiment", *_SERVICES):
            said += self._refusals(thing).values()
        return [*said, *self._trials_not_made(thing)] if thing["kind"] == "Experiment" else said

    def _trials_not_made(self, experiment: Object) -> list[str]:
        """What is said of the pods of trials at work that have none."""
        said: list[str] = []
        for name in _trials(experiment, _AT_WORK):
            for api_version, kind in _TRIAL_JOBS:
                of = Ref(api_version, kind, "", _namespace(experiment))
                for job in self._list(of, {}, {"metadata.name": name}):
                    told = [] if self._pods(job) else self._of(job)
                    said += [f"trial {name}: {text}" for text in told if _NOT_MADE.search(text)]
        return said

    def _refusals(self, thing: Object) -> dict[str, str]:
        """Why pods of a service, or of a search's algorithm, are refused (Pod Security, a quota), by what makes them.

        That alone is told, and goes by the name of the service or search; events of one that had the name before, and
        of one whose name only begins so, are left out.
        """
        start, since = f"{thing['metadata']['name']}-", thing["metadata"].get("creationTimestamp") or ""
        events = self._list(Ref("v1", "Event", "", _namespace(thing)), {}, {"reason": "FailedCreate"})
        about = [
            e
            for e in events
            if e["involvedObject"].get("kind") in _SETS
            and e["involvedObject"].get("name", "").startswith(start)
            and _when(e)[: len("2026-01-01T00:00:00")] >= since.rstrip("Z")
        ]
        if not about:
            return {}
        like = self._list(Ref(thing["apiVersion"], thing["kind"], "", _namespace(thing)), {}, {})
        longer = tuple(f"{o['metadata']['name']}-" for o in like if o["metadata"]["name"].startswith(start))
        return {
            e["involvedObject"]["name"]: f"{e['reason']}: {_brief(e.get('message', ''))}"
            for e in sorted(about, key=_when)
            if not e["involvedObject"]["name"].startswith(longer)
        }

    def _list(self, of: Ref, labels: Mapping[str, str], fields: Mapping[str, str]) -> list[Object]:
        try:
            return self._objects.list(of, labels, fields, limit_s=LIMIT_S)
        except GoldpathError:
            return []

    def _owned(self, thing: Object, of: Ref) -> list[Object]:
        uid = thing["metadata"]["uid"]
        return [child for child in self._list(of, {}, {}) if uid in _owners(child)]

    def _events(self, thing: Object) -> list[str]:
        """The last two warnings about it."""
        of = Ref("v1", "Event", "", _namespace(thing))
        if not of.namespace:
            return []
        fields = {"involvedObject.uid": thing["metadata"]["uid"]}
        events = [event for event in self._list(of, {}, fields) if event.get("type") == "Warning"]
        events.sort(key=_when)
        return [f"{e.get('reason', '')}: {_brief(e.get('message', ''))}" for e in events[-2:]]

    def _pods(self, thing: Object, trials: tuple[str, ...] = ("failedTrialList",)) -> list[Object]:
        if thing["kind"] == "Pod":
            return [thing]
        of, name = Ref("v1", "Pod", "", _namespace(thing)), thing["metadata"]["name"]
        if not of.namespace:
            return []
        names = [name, *(_trials(thing, trials) if thing["kind"] == "Experiment" else [])]
        keys = _POD_LABELS.get(thing["kind"], ())
        keys = keys if len(names) == 1 else (*keys, *_POD_LABELS["Trial"])
        found = {
            pod["metadata"]["uid"]: pod
            for key in keys
            for value in names
            for pod in self._list(of, {key: value}, {})
        }
        return list(found.values()) if found else self._owned(thing, of)

    def _last_lines(self, pod: Object) -> str:
        """`; its log ends: ...` of the container that failed."""
        failed = next((c for c in _containers(pod) if _ended(c) or _waits(c) == "CrashLoopBackOff"), None)
        if failed is None:
            told = (
                self._events(pod) if not _scheduled(pod) or any(_waits(c) for c in _containers(pod)) else []
            )
            return f" ({'; '.join(told)})" if told else ""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log"
        query = [("container", failed["name"]), ("tailLines", str(LINES))]
        if not (failed.get("state") or {}).get("terminated"):
            query.append(("previous", "true"))
        doing = f"read the log of pod {metadata['name']}"
        try:
            text = self._api.text(path, doing, query, limit_s=LIMIT_S)
        except GoldpathError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()][-LINES:]
        return f"; its log ends: {' | '.join(_brief(line, 200) for line in lines)}" if lines else ""


def conditions(thing: Mapping[str, Any]) -> list[str]:
    """Conditions that tell of trouble: `Failed` that is true, or `Ready` that is not and says why."""
    found = []
    for told in (thing.get("status") or {}).get("conditions") or []:
        kind, state = told.get("type", ""), told.get("status", "")
        good = kind in _GOOD or kind.endswith(_GOOD_ENDS)
        bad = state == "False" if good else state == "True" and kind in _BAD
        if bad and (told.get("message") or told.get("reason")):
            found.append(f"{kind} is {state}: {_brief(told.get('message') or told['reason'])}")
    return found


def reason(pod: Mapping[str, Any]) -> str:
    """Why a pod does not run, or ended; empty where all is well."""
    status = pod.get("status") or {}
    if status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost
        return f"{status['reason']}: {_brief(status.get('message', ''))}".rstrip(": ")
    by_type = {c.get("type"): c for c in status.get("conditions") or []}
    target = by_type.get("DisruptionTarget") or {}
    if target.get("status") == "True":
        return f"evicted ({target.get('reason', '')}): {_brief(target.get('message', ''))}"
    if not _scheduled(pod):
        told = by_type["PodScheduled"]
        return f"{told.get('reason', 'not scheduled')}: {_brief(told.get('message', ''))}"
    for container in _containers(pod):
        name = container["name"]
        if (waits := _waits(container)) and waits not in _WAITS:
            message = _brief(((container["state"]["waiting"]).get("message")) or "")
            last = _ended(container)
            return f"{name} waits: {waits}{f' ({last})' if last else ''}{f': {message}' if message else ''}"
        if ended := _ended(container):
            return f"{name} {ended}"
    return ""


def _rank(told: str) -> int:
    """Causes before consequences: a worker that lost its peer exits non-zero as well."""
    first = (
        "OOMKilled",
        "vict",
        "ImagePull",
        "InvalidImageName",
        "Unschedulable",
        "CreateContainer",
        "waits",
    )
    return next((n for n, word in enumerate(first) if word in told), len(first))


def _ended(container: Mapping[str, Any]) -> str:
    for state in ("state", "lastState"):
        if (ended := (container.get(state) or {}).get("terminated")) and ended.get("exitCode"):
            word, message = ended.get("reason") or "Error", _brief(ended.get("message") or "")
            remedy = ", more memory is needed" if word == "OOMKilled" else ""
            return f"ended: {word}, exit code {ended['exitCode']}{remedy}{f' ({message})' if message else ''}"
    return ""


def _waits(container: Mapping[str, Any]) -> str:
    return str(((container.get("state") or {}).get("waiting") or {}).get("reason", ""))


def _holds(container: Mapping[str, Any]) -> bool:
    return _waits(container) in (*_HOPELESS, *_PULLS)


def _lasts(container: Mapping[str, Any]) -> bool | None:
    """Whether what it waits for comes only when somebody mends it; None where nothing tells."""
    if _waits(container) in _HOPELESS:
        return True
    told = container["state"]["waiting"].get("message") or ""
    said = re.sub(r'"[^"]*"', "", told)  # without the image's name
    if _AWAY.search(said):
        return False
    if _ABSENT.search(said):
        return True
    return None if re.fullmatch(r"\s*(Back-off pulling image\s*)?", said) else False


def _decisive(pods: list[Object]) -> list[Object]:
    """Those of a service that tell whether it can start: not where one is ready, nor what a later revision replaces."""
    parts: dict[str, list[Object]] = {}
    for pod in pods:
        worker = (pod["metadata"].get("labels") or {}).get(_WORKER, "0") != "0"
        parts.setdefault(f"{_part(pod['metadata']['name'])} {worker}", []).append(pod)
    return [
        pod
        for part in parts.values()
        if not any(_ready(other) for other in part)
        for pod in part
        if not any(_replaces(other, pod) for other in part)
    ]


def _replaces(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether it is of a later revision (where that is unknown: later) and does not wait in vain."""
    born = [pod["metadata"].get("creationTimestamp") or "" for pod in (old, new)]
    revisions = [_revision(pod) for pod in (old, new)]
    if new is old or born[0] > born[1] or ("" not in revisions and revisions[0] == revisions[1]):
        return False
    return not any(_holds(container) for container in _containers(new))


def _revision(pod: Mapping[str, Any]) -> str:
    labels = pod["metadata"].get("labels") or {}
    return next((labels[key] for key in _REVISIONS if key in labels), "")


def _ready(pod: Mapping[str, Any]) -> bool:
    told = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in told)


def _part(name: str) -> str:
    return next((part for part in _PARTS if f"-{part}-" in name), "")


def _when(event: Mapping[str, Any]) -> str:
    born = event["metadata"].get("creationTimestamp")
    return str(event.get("lastTimestamp") or event.get("eventTime") or born or "")


def _containers(pod: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _scheduled(pod: Mapping[str, Any]) -> bool:
    told = (pod.get("status") or {}).get("conditions") or []
    return not any(c.get("type") == "PodScheduled" and c.get("status") == "False" for c in told)


def _trials(experiment: Mapping[str, Any], lists: tuple[str, ...]) -> list[str]:
    status = experiment.get("status") or {}
    return [name for key in lists for name in status.get(key) or []][:MOST_PODS]


def _owners(thing: Mapping[str, Any]) -> set[str]:
    return {owner["uid"] for owner in thing["metadata"].get("ownerReferences") or []}


def _namespace(thing: Mapping[str, Any]) -> str:
    return str(thing["metadata"].get("namespace", ""))


def _brief(text: str, most: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
