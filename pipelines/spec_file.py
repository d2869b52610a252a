"""Reads the file from which `goldpath render` makes manifests: sections, each checked by the spec that it belongs to.

Errors name the field as it is written (`train.learning_rate`) and the line where that can be told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field

from goldpath.accelerators import requests
from goldpath.accelerators.placement import ClusterPaths, Path
from goldpath.accelerators.render.trainer import training_jobs
from goldpath.accelerators.requests import GpuRequest
from goldpath.core.errors import SpecError, did_you_mean
from goldpath.core.spec import Spec, matching
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.cluster_cache import ClusterCacheSpec, NodeGroupSpec
from goldpath.training.cluster import ClusterSpec, TrainJobSpec, Uris
from goldpath.training.specs import SearchSpec, TrainSpec

Fields = dict[str, Any]
Lines = Mapping[tuple[str, ...], int]
S = TypeVar("S", bound=Spec)
PLUGIN = (Path.PLUGIN, Path.MIG_MIXED, Path.SHARED_RENAMED, Path.MPS_RENAMED)
"""NVIDIA's device plugin as `deploy/gpus` sets it up: each kind of device has a name of its own."""
_LABEL = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"
_LABEL_SAID = "lower-case letters, digits and dashes, at most 63, with a letter or digit at both ends"
_PATH = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)(?= (?:is|are|has)\b|:)")
_REQUEST = "what is allowed: docs/gpus.md"


class ManifestSpec(Spec):
    """What is to be rendered: the sections of one file."""

    name: Annotated[str, matching(_LABEL, _LABEL_SAID)] = ""
    """Of the objects; sections that have a name of their own take that one."""
    namespace: Annotated[str, matching(_LABEL, _LABEL_SAID)] = ""
    """Of all objects that have one; empty leaves it to `kubectl apply -n`."""
    gpu: GpuRequest = Field(default_factory=GpuRequest)
    """The GPU request of every section that has none of its own."""
    paths: ClusterPaths = ClusterPaths(paths=PLUGIN)
    """The ways in which the cluster hands out GPUs (`goldpath doctor --gpus` shows them), the best first."""
    train: TrainSpec | None = None
    search: SearchSpec | None = None
    cluster: ClusterSpec = Field(default_factory=ClusterSpec)
    """Where `train` and the trials of `search` run."""
    uris: Uris | None = None
    """What they read and write."""
    job: TrainJobSpec | None = None
    """Any training in containers."""
    serve: ClusterServeSpec | None = None
    cache: ClusterCacheSpec | None = None
    node_group: NodeGroupSpec | None = None
    workloads: tuple[Fields, ...] = ()
    """Objects of your own, without GPUs, that get the GPU request."""
    runtimes: tuple[Fields, ...] = ()
    """Training runtimes as they are on the cluster, for jobs that need a copy of theirs (claims, `retries`)."""


class Source:
    """A file's text and where its fields stand."""

    def __init__(self, text: str, name: str) -> None:
        """Raises SpecError: no YAML, not one document, not fields, or a field that is given twice."""
        self.name = name
        self.fields, self._lines = _load(text, name)

    def error(self, message: str, remedy: str, *path: str) -> SpecError:
        """An error that says where: the line of the field at `path`, or of the nearest one around it."""
        for length in range(len(path), 0, -1):
            if line := self._lines.get(path[:length]):
                return SpecError(f"{self.name}, line {line}: {message}", remedy)
        return SpecError(f"{self.name}: {message}", remedy)

    def relocated(self, error: SpecError, section: str, fields: frozenset[str]) -> SpecError:
        """A section's error with its fields called as they are in the file."""
        parts = [self._in_section(part, section, fields) for part in error.message.split("; ")]
        told = "; ".join(parts)
        if not any(part.startswith(f"{section}.") for part in parts):
            told = f"{section}: {told}"
        found = _PATH.match(told)
        return self.error(told, error.remedy, *(found[1].split(".") if found else [section]))

    def _in_section(self, part: str, section: str, fields: frozenset[str]) -> str:
        found = _PATH.match(part)
        named = found and (found[1].split(".")[0] in fields or " is not a field of " in part)
        return f"{section}.{part}" if named else part


def read(text: str, name: str) -> tuple[ManifestSpec, Source]:
    """The spec in a file's text.

    Args:
        text: YAML (or JSON).
        name: of the file, for errors.

    Raises:
        SpecError: one line: which field of which section, in which line, and what is allowed.
    """
    source = Source(text, name)
    given = source.fields
    if "apiVersion" in given or "kind" in given:
        raise source.error(
            f"this is a Kubernetes object ({given.get('kind', '?')}), not a spec",
            "Put it into the list `workloads`, or apply it as it is.",
        )
    for key in given:
        if key not in ManifestSpec.model_fields:
            known = f"Sections: {', '.join(ManifestSpec.model_fields)}."
            raise source.error(
                f"{key} is not a section", did_you_mean(key, ManifestSpec.model_fields) + known, key
            )
    made: Fields = {key: given[key] for key in ("name", "namespace") if key in given}
    made["gpu"] = _gpu(source)
    made["paths"] = _paths(source)
    for key in ("workloads", "runtimes"):
        made[key] = _manifests(source, key)
    try:
        top = ManifestSpec.parse(made)
    except SpecError as error:
        found = _PATH.match(error.message)
        raise source.error(error.message, error.remedy, *([found[1]] if found else [])) from None
    return top.model_copy(update=_sections(source, top)), source


def _sections(source: Source, top: ManifestSpec) -> Fields:
    """The sections that are there, each by its spec; what several have in common is given once."""
    gpu = {"gpu": str(top.gpu)}
    name = {"name": top.name} if top.name else {}
    made: Fields = {}
    if cluster := _section(source, "cluster", ClusterSpec, {}):
        made["cluster"] = cluster
    if train := _section(source, "train", TrainSpec, gpu):
        if "cluster" in (source.fields["train"] or {}):
            raise source.error(
                "train.cluster is given",
                "Move it to the section `cluster`: trials run there too.",
                "train",
                "cluster",
            )
        made["train"] = train
    made["search"] = _section(source, "search", SearchSpec, {})
    made["uris"] = _section(source, "uris", Uris, {})
    made["job"] = _section(source, "job", TrainJobSpec, gpu)
    made["serve"] = serve = _section(source, "serve", ClusterServeSpec, {**name, **gpu})
    served = {"model_uri": serve.model_uri} if serve else {}
    made["cache"] = _section(source, "cache", ClusterCacheSpec, {**name, **served})
    made["node_group"] = _section(source, "node_group", NodeGroupSpec, name)
    return made


def _section(source: Source, key: str, cls: type[S], defaults: Fields) -> S | None:
    if key not in source.fields:
        return None
    given = source.fields[key] if source.fields[key] is not None else {}
    if not isinstance(given, dict):
        raise source.error(f"{key} is {given!r:.60}", f"Give fields: {', '.join(cls.model_fields)}.", key)
    try:
        return cls.parse({**defaults, **given})
    except SpecError as error:
        raise source.relocated(error, key, frozenset(cls.model_fields)) from None


def _gpu(source: Source) -> GpuRequest:
    text = source.fields.get("gpu", "none")
    if not isinstance(text, str):
        raise source.error(
            f"gpu is {text!r:.60}", f"Give a text, such as whole or mig:1g.10gb; {_REQUEST}.", "gpu"
        )
    try:
        return requests.parse(text)
    except SpecError as error:
        raise source.error(f"gpu: {error.message}", error.remedy, "gpu") from None


def _paths(source: Source) -> ClusterPaths:
    """One path, a list of them, or all that `goldpath doctor --gpus --json` says under `cluster`."""
    given = source.fields.get("paths")
    if given is None:
        return ClusterPaths(paths=PLUGIN)
    fields = given if isinstance(given, dict) else {"paths": given if isinstance(given, list) else [given]}
    known = [str(path) for path in Path]
    listed = fields.get("paths")
    for path in listed if isinstance(listed, list) else []:
        if path not in known:
            remedy = f"{did_you_mean(str(path), known)}Paths: {', '.join(known)}."
            raise source.error(f"paths has {path!r:.60}", remedy, "paths")
    try:
        return ClusterPaths.parse(fields)
    except SpecError as error:
        raise source.relocated(error, "paths", frozenset(ClusterPaths.model_fields)) from None


def _manifests(source: Source, key: str) -> tuple[Fields, ...]:
    given = source.fields.get(key) or []
    if not isinstance(given, list):
        raise source.error(f"{key} is {given!r:.60}", "Give a list of Kubernetes objects.", key)
    for number, one in enumerate(given):
        if not _is_object(one) or (key == "runtimes" and not _is_runtime(one)):
            raise source.error(
                f"{key}.{number} is no {'training runtime' if key == 'runtimes' else 'Kubernetes object'}",
                "Give apiVersion, kind, metadata.name and spec.",
                key,
                str(number),
            )
    return tuple(given)


def _is_object(one: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("metadata"), dict):
        return False
    metadata = one["metadata"]
    texts = (one.get("apiVersion"), one.get("kind"), metadata.get("name"), metadata.get("namespace", "-"))
    return all(isinstance(text, str) and text for text in texts)


def _is_runtime(one: Fields) -> bool:
    """Whether it has what jobs are rendered from."""
    try:
        return bool(training_jobs(one)) and str(one["kind"]).endswith("TrainingRuntime")
    except (KeyError, TypeError, AttributeError):
        return False


def _load(text: str, name: str) -> tuple[Fields, Lines]:
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines: dict[tuple[str, ...], int] = {}
        if node is not None:
            _note(node, (), lines, name)
        found = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f", line {mark.line + 1}" if mark else ""
        several = "expected a single document" in str(error.context)
        told = "there are several documents" if several else f"this is no YAML: {error.problem}"
        remedy = "Correct it; fields of a section are indented below it."
        if several:
            remedy = "Give one spec a file; Kubernetes objects go into its list `workloads`."
        raise SpecError(f"{name}{at}: {told}", remedy) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a character or a date that is none
        raise SpecError(f"{name}: this is no YAML: {str(error).splitlines()[0]}", "Correct it.") from None
    if not isinstance(found, dict):
        sections = ", ".join(ManifestSpec.model_fields)
        raise SpecError(
            f"{name} holds {'nothing' if found is None else 'no sections'}", f"Sections: {sections}."
        )
    return {str(key): value for key, value in found.items()}, lines


def _note(node: Any, path: tuple[str, ...], lines: dict[tuple[str, ...], int], name: str) -> None:
    """Note the line of every field; refuse a field that is given twice, of which YAML would keep the last."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = (*path, str(key.value))
            if at in lines and key.value != "<<":
                told = f"{'.'.join(at)} is given twice, first in line {lines[at]}"
                raise SpecError(f"{name}, line {key.start_mark.line + 1}: {told}", "Keep one of them.")
            lines[at] = key.start_mark.line + 1
            _note(value, at, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[*path, str(number)] = item.start_mark.line + 1
            _note(item, (*path, str(number)), lines, name)
