"""`builtin://kube-api`: the API reference of Kubernetes and Kubeflow as question and answer chats.

Built offline from the field descriptions in the installed clients. Each described field gives up to two chats: what
it means, and where it stands in a manifest. One object is one group, whatever package or version describes it.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from goldpath.core.errors import DataError
from goldpath.training.datasets.api_models import (
    ApiField,
    ApiObject,
    bare_kind,
    package_folder,
    read_objects,
)
from goldpath.training.datasets.chats import Chat, Turn
from goldpath.training.datasets.text import fold

URI = "builtin://kube-api"
MAX_DESCRIPTION_WORDS = 60
_MAX_DEPTH = 7
_FIRST_ROOTS = (
    "Pod", "Deployment", "Service", "Job", "StatefulSet", "DaemonSet", "CronJob", "Ingress", "Node", "TrainJob",
    "TrainingRuntime", "Experiment", "Trial", "InferenceService", "ServingRuntime", "LocalModelCache",
)  # fmt: skip
# Links to further reading: a small model would learn to make them up.
_MORE = re.compile(
    r"\s*(?:More info(?:rmation)?|See|For more information,? see)\s*:?\s*<?https?://\S+", re.IGNORECASE
)
_EXPLAIN = (
    "What does `{path}` do in {a} {kind}?",
    "Explain the field `{path}` of {a} {kind}.",
    "What is `{path}` in the {kind} API?",
    "In {a} {kind}, what is `{path}` for?",
)
_PLACE = (
    "How do I set `{path}` in {a} {kind}?",
    "Show me where `{path}` goes in {a} {kind} manifest.",
    "Write the YAML that sets `{path}` of {a} {kind}.",
)


@dataclass(frozen=True)
class Package:
    """An installed client: its models, and how its classes map to API groups."""

    name: str
    models: str
    api_groups: tuple[tuple[str, str], ...] = ()
    """(prefix of a class name, API group)."""

    @cached_property
    def pinned(self) -> str:
        """`package==version`."""
        try:
            return f"{self.name}=={version(self.name)}"
        except PackageNotFoundError as error:
            raise DataError(
                f"{URI} needs the package {self.name}, which is not installed",
                "Install it with `make setup`, or choose another dataset.",
            ) from error

    @property
    def folder(self) -> Path:
        """Where its models are."""
        _ = self.pinned  # says which package is missing
        root = package_folder(self.name)
        if root is None or not (root / self.models).is_dir():
            raise DataError(
                f"{URI} finds no models in the installed package {self.name}", f"Reinstall {self.name}."
            )
        return root / self.models


PACKAGES = (
    Package("kubernetes", "client/models"),
    Package(
        "kubeflow_trainer_api",
        "models",
        (("Trainer", "trainer.kubeflow.org"), ("Jobset", "jobset.x-k8s.io")),
    ),
    Package("kubeflow_katib_api", "models", (("V1beta1", "kubeflow.org"),)),
    Package("kserve", "models", (("V1", "serving.kserve.io"),)),
)


def versions() -> dict[str, str]:
    """What identifies this data set: every package it is made from, pinned.

    Raises:
        DataError: a package is not installed.
    """
    return dict(package.pinned.split("==", 1) for package in PACKAGES)


def check() -> None:
    """A fast look: the packages are there, with their models.

    Raises:
        DataError: one is not.
    """
    for package in PACKAGES:
        _ = package.folder


def chats() -> Iterator[Chat]:
    """The chats, in a fixed order: package, object, field.

    Raises:
        DataError: a package is not installed.
    """
    asked: set[str] = set()
    for package in PACKAGES:
        objects = {item.name: item for item in read_objects(package.folder)}
        places = _places(objects, _api_versions(package, objects))
        for item in objects.values():
            if _is_list(item):
                continue
            place = places.get(item.name) or Place(item.kind, "", ())
            for field in item.fields:
                for chat in _field_chats(package, item, field, place):
                    if chat.id not in asked:  # a later package may word the same field otherwise
                        asked.add(chat.id)
                        yield chat


@dataclass(frozen=True)
class Place:
    """Where an object stands: a kind, its apiVersion, and the fields that lead to it."""

    kind: str
    api_version: str
    steps: tuple[tuple[str, str], ...]
    """(field, container): container is `list`, `map` or empty."""

    def path(self, field: ApiField) -> str:
        """`spec.template.spec.containers[].image`."""
        marks = {"list": "[]", "map": ".<key>", "": ""}
        return ".".join([name + marks[container] for name, container in self.steps] + [field.name])


def _api_versions(package: Package, objects: dict[str, ApiObject]) -> dict[str, str]:
    """apiVersion of each object that is a resource of its own (apiVersion, kind and object metadata)."""
    roots = [item for item in objects.values() if _is_resource(item)]
    if not package.api_groups:
        known = _served(package.folder.parent / "api")
        return {item.name: known[item.name] for item in roots if item.name in known}
    found = {}
    for item in roots:
        group = next((group for prefix, group in package.api_groups if item.name.startswith(prefix)), "")
        if group:
            found[item.name] = f"{group}/{item.version}"
    return found


def _served(folder: Path) -> dict[str, str]:
    """Class to apiVersion, from the client's operations; classes that several API groups return are left out."""
    seen: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*_v[0-9]*_api.py")):
        text = path.read_text(encoding="utf-8")
        served = re.search(r"'/apis?/([^'{]*?v\d+(?:(?:alpha|beta)\d+)?)/", text)
        if served:
            for name in re.findall(r":return: (\w+)", text):
                seen.setdefault(name, set()).add(served[1])
    return {name: found.pop() for name, found in seen.items() if len(found) == 1}


def _is_resource(item: ApiObject) -> bool:
    types = {field.name: field.type for field in item.fields}
    return {"apiVersion", "kind"} <= set(types) and types.get("metadata") in ("ObjectMeta", "V1ObjectMeta")


def _is_list(item: ApiObject) -> bool:
    names = {field.name for field in item.fields}
    return item.kind.endswith("List") and {"items", "metadata"} <= names


def _places(objects: dict[str, ApiObject], api_versions: dict[str, str]) -> dict[str, Place]:
    """The shortest way from a resource to each object, by breadth-first search; well-known kinds first."""

    def rank(name: str) -> tuple[int, bool, str]:
        kind, release = bare_kind(name)
        first = _FIRST_ROOTS.index(kind) if kind in _FIRST_ROOTS else len(_FIRST_ROOTS)
        return first, not re.fullmatch(r"v\d+", release), name

    places: dict[str, Place] = {}
    queue: deque[str] = deque()
    for name in sorted(api_versions, key=rank):
        places[name] = Place(objects[name].kind, api_versions[name], ())
        queue.append(name)
    while queue:
        name = queue.popleft()
        here = places[name]
        for field in objects[name].fields:
            if field.target in objects and field.target not in places and len(here.steps) < _MAX_DEPTH:
                places[field.target] = Place(
                    here.kind, here.api_version, (*here.steps, (field.name, field.container))
                )
                queue.append(field.target)
    return places


def _field_chats(package: Package, item: ApiObject, field: ApiField, place: Place) -> Iterator[Chat]:
    description = shorten(_MORE.sub("", field.description))
    if len(description.split()) < 3:
        return
    path = place.path(field)
    resource = f"{place.api_version}/{place.kind}" if place.api_version else place.kind
    source = f"{package.pinned} {item.name}.{field.name}"
    head = f"`{path}` ({field.type}, {'required' if field.required else 'optional'})"
    words = {"path": path, "kind": place.kind, "a": "an" if place.kind[0] in "AEIOU" else "a"}

    def chat(kind: str, templates: tuple[str, ...], answer: str, core: str) -> Chat:
        pick = hashlib.sha256(f"{kind}:{resource}:{path}".encode()).digest()[0] % len(templates)
        question = templates[pick].format(**words)
        return Chat(
            id=f"{kind}:{resource}:{path}",
            group=item.kind,
            turns=(Turn("user", question), Turn("assistant", answer)),
            source=source,
            same_as=f"{kind} {field.name}: {fold(description)}",
            core=core,
        )

    yield chat(
        "explain",
        _EXPLAIN,
        f"{head}: {description}",
        f"{field.name}: {fold(description)}",
    )
    if place.api_version and not path.startswith(("status.", "metadata.", "apiVersion", "kind", "status")):
        answer = f"Set {head} like this:\n\n```yaml\n{manifest(place, field)}\n```"
        yield chat("place", _PLACE, answer, "")


def shorten(description: str, words: int = MAX_DESCRIPTION_WORDS) -> str:
    """The leading sentences of a description, at most `words` words; a longer first sentence is kept whole."""
    sentences = re.split(r"(?<=[.!?]) +(?=[A-Z`'\"(])", description)
    kept: list[str] = []
    count = 0
    for sentence in sentences:
        count += len(sentence.split())
        if kept and count > words:
            break
        kept.append(sentence)
    return " ".join(kept)


def manifest(place: Place, field: ApiField) -> str:
    """The YAML that leads from the resource to one field, its value shown as `<type>`."""
    lines = [f"apiVersion: {place.api_version}", f"kind: {place.kind}"]
    indent, dash = "", ""
    for name, container in place.steps:
        lines.append(f"{indent}{dash}{name}:")
        indent += "  " * (2 if dash else 1)
        dash = ""
        if container == "list":
            dash = "- "
        elif container == "map":
            lines.append(f"{indent}<key>:")
            indent += "  "
    if field.container == "list":
        lines += [
            f"{indent}{dash}{field.name}:",
            f"{indent}{'  ' if dash else ''}- <{field.type.removeprefix('list of ')}>",
        ]
    else:
        lines.append(f"{indent}{dash}{field.name}: <{field.type}>")
    return "\n".join(lines)
