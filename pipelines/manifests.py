"""Manifests for review and for GitOps, from a spec file: the very objects that the steps of a pipeline create.

Nothing is sent and nothing is looked up on a cluster: what it is like stands in the file (`paths`, `runtimes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from goldpath.accelerators import render as gpus
from goldpath.accelerators.placement import Placement
from goldpath.accelerators.requests import GpuRequest, parse
from goldpath.core.errors import GoldpathError, SpecError
from goldpath.core.files import write_text
from goldpath.pipelines.spec_file import ManifestSpec, Source, read
from goldpath.serving.manifests import (
    autoscaling,
    inference_service,
    llm_inference_service,
    model_cache,
    node_group,
)
from goldpath.training.cluster import Uris
from goldpath.training.manifests import experiment, pytorchjob, trainjob
from goldpath.training.manifests.pods import container_security, pod_security
from goldpath.training.specs import TrainSpec

Manifest = dict[str, Any]
Sections = tuple[str, ...]


class _Rendering:
    """One spec, section by section."""

    def __init__(self, spec: ManifestSpec, source: Source) -> None:
        self.spec, self.source = spec, source

    def train(self) -> list[Manifest]:
        name, train, uris = self._training()
        return trainjob.render(
            name,
            train,
            train.cluster,
            uris,
            self._place(train.gpu, name, "train"),
            namespace=self.spec.namespace,
            carried_by=self._runtime(train.cluster.runtime),
        )

    def pytorchjob(self) -> list[Manifest]:
        name, train, uris = self._training()
        at = self._place(train.gpu, name, "train")
        return pytorchjob.render(name, train, train.cluster, uris, at, namespace=self.spec.namespace)

    def _training(self) -> tuple[str, TrainSpec, Uris]:
        train, uris = self.spec.train, self.spec.uris
        if train is None or uris is None:
            raise self._lacks("train" if train is None else "uris")
        return self._name(), train.model_copy(update={"cluster": self.spec.cluster}), uris

    def search(self) -> list[Manifest]:
        search, uris = self.spec.search, self.spec.uris
        if search is None or uris is None:
            raise self._lacks("search" if search is None else "uris")
        cluster = self.spec.cluster
        train = self.spec.train or TrainSpec.parse({"gpu": str(self.spec.gpu)})
        train = train.model_copy(update={"cluster": cluster})
        name = f"{self._name()}-search"
        return experiment.render(
            name,
            search,
            train,
            cluster,
            uris,
            self._place(train.gpu, name, "search"),
            namespace=self.spec.namespace,
            carried_by=self._runtime(cluster.runtime),
            retain=cluster.retain_trials,
        )

    def job(self) -> list[Manifest]:
        job = self.spec.job
        if job is None:
            raise self._lacks("job")
        name = f"{self._name()}-job" if self.spec.train else self._name()
        at = self._place(job.gpu, name, "job")
        carrier = self._runtime(job.runtime)
        return trainjob.generic(name, job, at, namespace=self.spec.namespace, carried_by=carrier)

    def serve(self) -> list[Manifest]:
        serve, where = self.spec.serve, self.spec.namespace
        if serve is None:
            raise self._lacks("serve")
        architecture = None
        if serve.architecture:
            from goldpath.accelerators.models import load

            architecture = load(serve.architecture)
        at = self._place(serve.gpu, serve.name, "serve")
        if serve.kind == "inference-service":
            made = inference_service.render(serve, at, architecture, where)
        else:
            own = serve.prefill.gpu if serve.prefill else None
            prefill = self._place(own, f"{serve.name}-prefill", "serve") if own else None
            made = llm_inference_service.render(serve, at, architecture, where, prefill)
        return [*made, *autoscaling.render(serve, where)]

    def cache(self) -> list[Manifest]:
        cache, group = self.spec.cache, self.spec.node_group
        if cache is None:
            raise self._lacks("cache")
        if group and group.name in cache.node_groups:
            group.check_fits(cache)
        return model_cache.render(cache, self.spec.namespace)

    def node_group(self) -> list[Manifest]:
        if self.spec.node_group is None:
            raise self._lacks("node_group")
        return node_group.render(self.spec.node_group)

    def workloads(self) -> list[Manifest]:
        """What the GPU request becomes: in each workload, or in a Pod that lists its devices."""
        if self.spec.gpu.none:
            raise self._lacks("gpu")
        given = self.spec.workloads or (self._probe(),)
        return [item for workload in given for item in self._with_gpus(workload)]

    def _with_gpus(self, workload: Manifest) -> list[Manifest]:
        kind, metadata = workload["kind"], workload["metadata"]
        if self.spec.namespace and "namespace" not in metadata:
            workload = {**workload, "metadata": {**metadata, "namespace": self.spec.namespace}}
        name, where = metadata["name"], workload["metadata"].get("namespace", "")
        at = self._place(self.spec.gpu, name, "gpu", where)
        try:
            if kind == "Pod":  # claims can be shared by its containers
                names = [one["name"] for one in workload["spec"]["containers"]]
                return gpus.pod(workload, at, names if at.pod_claims else names[:1])
            if kind == "TrainJob":
                runtime = self._runtime(workload["spec"]["runtimeRef"]["name"])
                return gpus.train_job(workload, at, runtime)
            if kind == "InferenceService":
                return gpus.inference_service(workload, at)
            if kind == "LLMInferenceService":
                return gpus.llm_inference_service(workload, at)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            told = f"the {kind} {name} in workloads lacks a field: {error}"
            raise self.source.error(told, "Give it as it would be applied.", "workloads") from None
        raise self.source.error(
            f"workloads has a {kind}, which cannot be given GPUs here",
            "Give a Pod, TrainJob, InferenceService or LLMInferenceService.",
            "workloads",
        )

    def _probe(self) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self._name()},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": pod_security(),
                "containers": [
                    {
                        "name": "main",
                        "image": "ubuntu:24.04",
                        "command": ["nvidia-smi", "-L"],
                        # Its root stays writable: NVIDIA's CDI hook writes the linker's cache there.
                        "securityContext": container_security(read_only=False),
                    }
                ],
            },
        }

    def _name(self) -> str:
        if not self.spec.name:
            raise SpecError(f"{self.source.name}: name is missing", "Give one; the objects are called so.")
        return self.spec.name

    def _place(self, gpu: str | GpuRequest, name: str, section: str, namespace: str = "") -> Placement:
        request = parse(gpu) if isinstance(gpu, str) else gpu
        if request.auto:
            raise self.source.error(
                f"{section} asks for the GPU auto, which the planner chooses in a run",
                "Name a GPU (`goldpath plan` says which fits), or none.",
                section,
                "gpu",
            )
        try:
            return gpus.place(request, self.spec.paths, name=name, namespace=namespace or self.spec.namespace)
        except SpecError as error:
            raise self.source.error(
                error.message.replace("this cluster", "a cluster with these paths"),
                "Set `paths` to those of your cluster: `goldpath doctor --gpus` shows them.",
                "paths" if "paths" in self.source.fields else "gpu",
            ) from None

    def _runtime(self, name: str) -> Manifest | None:
        return next((one for one in self.spec.runtimes if one["metadata"]["name"] == name), None)

    def _lacks(self, section: str) -> SpecError:
        there = [key for key in self.source.fields if key not in ("name", "namespace")]
        remedy = f"Add it; there is {', '.join(there) or 'nothing'}. docs/render.md has every section."
        return SpecError(f"{self.source.name} has no section {section}", remedy)


def _of_serve(kind: str) -> Callable[[ManifestSpec, Source], Sections]:
    def sections(spec: ManifestSpec, source: Source) -> Sections:
        if spec.serve and spec.serve.kind != kind:
            raise source.error(
                f"serve.kind is {spec.serve.kind}",
                f"Use `goldpath render {spec.serve.kind}`.",
                "serve",
                "kind",
            )
        return ("serve",)

    return sections


def _present(*names: str) -> Callable[[ManifestSpec, Source], Sections]:
    """Those of the sections that the file has; the first where it has none, so that the error names that."""
    return lambda spec, source: tuple(key for key in names if key in source.fields) or names[:1]


def _all(spec: ManifestSpec, source: Source) -> Sections:
    order = ("node_group", "cache", "train", "job", "search", "serve", "workloads")
    found = tuple(key for key in order if key in source.fields)
    if not found and spec.gpu.none:
        raise SpecError(
            f"{source.name} has nothing to render", f"Sections that become objects: {', '.join(order)}, gpu."
        )
    return found or ("workloads",)


KINDS: dict[str, Callable[[ManifestSpec, Source], Sections]] = {
    "trainjob": _present("train", "job"),
    "pytorchjob": lambda spec, source: ("pytorchjob",),
    "experiment": lambda spec, source: ("search",),
    "model-cache": _present("cache", "node_group"),
    "inference-service": _of_serve("inference-service"),
    "llm-inference-service": _of_serve("llm-inference-service"),
    "gpu-claim": lambda spec, source: ("workloads",),
    "all": _all,
}
"""What can be rendered, and the sections that it takes."""


def render(text: str, name: str, kind: str = "all") -> list[Manifest]:
    """The objects of a spec file, in the order in which they have to be created; the same each time.

    Args:
        text: of the file: YAML.
        name: of the file, for errors.
        kind: one of `KINDS`.

    Raises:
        SpecError: the file is wrong (field, line), or lacks what `kind` needs.
        GoldpathError: what a section's renderer refuses.
    """
    spec, source = read(text, name)
    rendering = _Rendering(spec, source)
    made: list[Manifest] = []
    for section in KINDS[kind](spec, source):
        try:
            made += getattr(rendering, section)()
        except GoldpathError as error:
            if error.message.startswith(name):
                raise
            place = {"workloads": "gpu", "pytorchjob": "train"}.get(section, section)
            raise source.error(error.message, error.remedy, place) from None
    return _once(made, name)


def _once(objects: list[Manifest], name: str) -> list[Manifest]:
    """Each object once; two of one name would overwrite each other."""
    found: dict[tuple[str, ...], Manifest] = {}
    for item in objects:
        metadata = item["metadata"]
        key = (item["apiVersion"], item["kind"], metadata.get("namespace", ""), metadata["name"])
        if found.setdefault(key, item) != item:
            raise SpecError(
                f"{name}: two different objects would be the {item['kind']} {metadata['name']}",
                "Give one of the sections a name of its own (serve.name, cache.name).",
            )
    return list(found.values())


def to_yaml(manifest: Manifest) -> str:
    """One document; nothing is abbreviated by anchors."""
    import yaml

    class Plain(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text: str = yaml.dump(manifest, Dumper=Plain, sort_keys=False, width=1000, allow_unicode=True)
    return text


def write(
    objects: list[Manifest], folder: Path, to_text: Callable[[Manifest], str], suffix: str
) -> list[Path]:
    """One file each, numbered, so that `kubectl apply -f FOLDER` creates them in order.

    A file of an earlier time that holds the same object under another number is removed.

    Raises:
        MachineError: the folder cannot be written.
    """
    written = []
    for number, (stem, item) in enumerate(zip(_stems(objects), objects, strict=True), 1):
        path = folder / f"{number:02d}-{stem}.{suffix}"
        for old in folder.glob(f"[0-9][0-9]-{stem}.{suffix}"):
            if old != path:
                old.unlink()
        written.append(write_text(path, to_text(item)))
    return written


def _stems(objects: list[Manifest]) -> Iterator[str]:
    for item in objects:
        yield f"{item['kind'].lower()}-{item['metadata']['name']}"
