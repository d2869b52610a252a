"""Looks at a cluster: what it serves, what one may do there, and what lies ready in the namespace."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from goldpath.core import environment, images
from goldpath.core.checks import needs
from goldpath.core.checks.api import Answer, Api, Object
from goldpath.core.checks.apis import served
from goldpath.core.checks.katib import katib
from goldpath.core.checks.permissions import YOU, Who, permissions
from goldpath.core.checks.results import Check, State
from goldpath.core.errors import MachineError

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for an object without its content."""
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
PART_OF = "app.kubernetes.io/part-of"
RUN = "goldpath.io/run"
"""The label of what a step made."""
_TRAINING = (
    "training runtimes",
    "trainer.kubeflow.org/v1alpha1",
    ("clustertrainingruntimes", "trainingruntimes"),
    "kubectl apply -k deploy/runtimes",
)
_SERVING = (
    "serving runtimes",
    "serving.kserve.io/v1alpha1",
    ("clusterservingruntimes", "servingruntimes"),
)
_SEE_ROLE = "Ask for the ClusterRole goldpath-doctor (deploy/base/doctor-role.yaml)"


def look(api: Api, namespace: str, who: Who = YOU) -> list[Check]:
    """All checks but those of GPUs, in the order in which a person would mend them.

    Args:
        api: the cluster.
        namespace: where the pipelines run.
        who: for whom permissions are asked; by default for whoever asks.

    Raises:
        MachineError: the cluster cannot be reached, or does not know who asks.
    """
    version = _version(api)
    apis = served(api)
    return [
        version,
        *apis.checks,
        *namespaces(api, namespace, who.name if who.user else needs.SERVICE_ACCOUNT),
        *settings(api, namespace),
        *katib(api, namespace, apis.there),
        *permissions(api, namespace, apis.there, apis.needed, who),
        *([runtimes(api, namespace, *_TRAINING)] if needs.TRAINER in apis.needed else []),
        runtimes(api, namespace, *_SERVING, f"kubectl apply -n {namespace} -k deploy/serving"),
        storage(api),
        node_groups(api),
    ]


def _version(api: Api) -> Check:
    answer = api.ask("/version")
    if answer.status == 401:
        raise MachineError(
            f"the cluster at {api.where} does not know you (401 {answer.reason})", "Log in again."
        )
    found = answer.body.get("gitVersion", "")
    if answer.ok and not found:
        raise MachineError(
            f"what answers at {api.where} is no Kubernetes API", "Check the kubeconfig's server."
        )
    note = f"{found} at {api.where}" if found else answer.said()
    state = State.OK if found else State.UNKNOWN
    return Check(name="Kubernetes", state=state, note=note)


def namespaces(api: Api, namespace: str, account: str) -> list[Check]:
    """The namespace, what Pod Security it enforces, and the service account in it."""
    place = f"/api/v1/namespaces/{namespace}"
    answer = api.ask(place)
    found = _single(f"namespace {namespace}", answer, needs.apply(namespace), required=True)
    if found.state is not State.OK:
        return [found]
    level = answer.body["metadata"].get("labels", {}).get(needs.POD_SECURITY, "")
    label = Check(
        name=f"Pod Security of {namespace}",
        state=State.OK if level else State.MISSING,
        note=f"enforces {level}" if level else "enforces nothing",
        remedy="" if level else f"kubectl label namespace {namespace} {needs.POD_SECURITY}=restricted",
    )
    holder = api.ask(f"{place}/serviceaccounts/{account}")
    return [
        found,
        label,
        _single(f"service account {account}", holder, needs.apply(namespace), required=True),
    ]


def settings(api: Api, namespace: str) -> list[Check]:
    """Where steps leave work for each other, and whether there are credentials for it."""
    name = f"{needs.STORAGE} in ConfigMap {environment.SETTINGS}"
    answer = api.ask(f"/api/v1/namespaces/{namespace}/configmaps/{environment.SETTINGS}")
    place = f"-n {namespace} {environment.SETTINGS}"
    make = f"kubectl create configmap {place} --from-literal={needs.STORAGE}=s3://BUCKET/goldpath"
    found = _single(name, answer, make, required=True)
    if found.state is State.OK:
        uri = (answer.body.get("data") or {}).get(needs.STORAGE, "").strip()
        good = uri.startswith("s3://")
        bad = f"{uri} is no bucket that every pod reaches by S3" if uri else "not set, and pods share no disk"
        found = Check(
            name=name,
            state=State.OK if good else State.MISSING,
            required=True,
            note=uri if good else bad,
            remedy="" if good else f"kubectl edit configmap {place}: set it to s3://BUCKET/goldpath",
        )
    return [found, *_wrong(answer.body.get("data") or {}, place), _credentials(api, namespace)]


def _wrong(data: Mapping[str, str], place: str) -> list[Check]:
    """Other keys of the settings that no step could use."""
    known = environment.variables(environment.SETTINGS)
    told = []
    for key, value in sorted(data.items()):
        note = ""
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            note = f"no step reads it{f'; near it: {near[0]}' if near else ''}"
        elif key == "GOLDPATH_TRAINER_IMAGE" and not re.fullmatch(images.REFERENCE, value):
            note = f"{value!r} names no image"
        elif key == "GOLDPATH_KATIB_DB" and not re.fullmatch(r"[A-Za-z0-9.-]+:\d{1,5}", value):
            note = f"{value!r} is no host:port"
        if note:
            remedy = f"kubectl edit configmap {place}: mend {key} (docs/settings.md)"
            told.append(
                Check(
                    name=f"{key} in ConfigMap {environment.SETTINGS}",
                    state=State.MISSING,
                    required=key in known,
                    note=note,
                    remedy=remedy,
                )
            )
    return told


def _credentials(api: Api, namespace: str) -> Check:
    """Whether the Secret is there; its content is not asked for."""
    name = f"Secret {environment.STORAGE}"
    path = f"/api/v1/namespaces/{namespace}/secrets/{environment.STORAGE}"
    answer = api.ask(path, headers={"Accept": METADATA})
    if answer.ok:
        return Check(name=name, state=State.OK)
    if answer.status == 404:
        note = "not there: steps reach the storage without credentials"
        remedy = (
            f"kubectl create secret generic -n {namespace} {environment.STORAGE} --from-literal=AWS_ACCESS_KEY_ID=... "
            "--from-literal=AWS_SECRET_ACCESS_KEY=...; not needed where the account's own identity opens it (IRSA)"
        )
        return Check(name=name, state=State.MISSING, note=note, remedy=remedy)
    return Check(name=name, state=State.UNKNOWN, note=f"{answer.said()}: who may read Secrets can tell")


def _single(name: str, answer: Answer, remedy: str, required: bool) -> Check:
    if answer.ok:
        return Check(name=name, state=State.OK, required=required)
    if answer.status == 404:
        return Check(name=name, state=State.MISSING, required=required, note="not there", remedy=remedy)
    return Check(name=name, state=State.UNKNOWN, required=required, note=answer.said(), remedy=_SEE_ROLE)


def runtimes(api: Api, namespace: str, name: str, group: str, plurals: tuple[str, str], remedy: str) -> Check:
    """Our runtimes of one sort, of the cluster or of the namespace; not those that a step made for itself."""
    wide, of_cluster = api.items(f"/apis/{group}/{plurals[0]}")
    narrow, of_namespace = api.items(f"/apis/{group}/namespaces/{namespace}/{plurals[1]}")
    names = sorted(one["metadata"]["name"] for one in [*of_cluster, *of_namespace] if _is_ours(one))
    refused = next((answer for answer in (wide, narrow) if not answer.ok and answer.status != 404), None)
    return _found(name, names, refused, missing="none of goldpath's", remedy=remedy, required=True)


def _is_ours(one: Object) -> bool:
    labels = one["metadata"].get("labels") or {}
    named = labels.get(PART_OF) == "goldpath" or one["metadata"]["name"].startswith("goldpath-")
    return named and RUN not in labels


def storage(api: Api) -> Check:
    """Storage classes: one has to be the default where checkpoints go to a volume."""
    answer, classes = api.items("/apis/storage.k8s.io/v1/storageclasses")
    default = [
        one["metadata"]["name"]
        for one in classes
        if (one["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    names = ", ".join(sorted(one["metadata"]["name"] for one in classes))
    return _found(
        "default storage class",
        default,
        None if answer.ok else answer,
        missing=f"none of {names} is the default" if names else "there is no storage class",
        remedy=f"kubectl annotate storageclass NAME {DEFAULT_CLASS}=true; object storage (s3://) needs none",
    )


def node_groups(api: Api) -> Check:
    """Groups of nodes that keep cached models."""
    answer, groups = api.items("/apis/serving.kserve.io/v1alpha1/localmodelnodegroups")
    return _found(
        "node groups of the model cache",
        sorted(one["metadata"]["name"] for one in groups),
        None if answer.ok or answer.status == 404 else answer,
        missing="no LocalModelNodeGroup",
        remedy="Write one for your nodes: deploy/serving/node-group.yaml shows how",
        required=needs.MODEL_CACHE.required,
    )


def _found(
    name: str, names: list[str], refused: Answer | None, *, missing: str, remedy: str, required: bool = False
) -> Check:
    if names:
        return Check(name=name, state=State.OK, required=required, note=", ".join(names))
    if refused:
        return Check(name=name, state=State.UNKNOWN, required=required, note=refused.said(), remedy=_SEE_ROLE)
    return Check(name=name, state=State.MISSING, required=required, note=missing, remedy=remedy)
