"""What all work on a cluster shares: its GPUs, its runtime, its objects made or adopted, its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from goldpath.accelerators import reading, requests
from goldpath.accelerators.placement import Placement
from goldpath.accelerators.render import place as place_on
from goldpath.core import storage
from goldpath.core.errors import MachineError, StepError
from goldpath.core.kubernetes import Cluster, Ref
from goldpath.training.cluster import Machine
from goldpath.training.manifests import read, runtime

Manifest = dict[str, Any]
NAME = 37
"""Characters of a job's name: JobSet and Katib make longer ones from it."""
_SHOWN = 8
"""Characters of a key that tell its work from others of one run and step."""
GRACE_S = 300
"""Seconds beyond a job's own deadline: its controller ends it first, and says why."""


def name(cluster: Cluster, key: str, part: str = "") -> str:
    """The name of the object of this run and step that does the work `key`, the same each time it is tried."""
    return cluster.name("-".join(filter(None, (part, key[:_SHOWN]))), most=NAME)


def place(cluster: Cluster, gpu: str, name: str) -> Placement:
    """What the GPU request becomes on this cluster; without a GPU nothing is looked at.

    Raises:
        SpecError: the cluster cannot serve it.
    """
    request = requests.parse(gpu)
    if request.none:
        return Placement(request=request)
    return place_on(request, reading.paths_of(cluster), name=name, namespace=cluster.namespace)


def runtime_of(cluster: Cluster, machine: Machine, field: str) -> Manifest:
    """The training runtime as it is on the cluster.

    Args:
        cluster: where to look.
        machine: names it.
        field: what the caller calls that, for the remedy.

    Raises:
        MachineError: there is none of that name.
    """
    namespace = cluster.namespace if machine.runtime_kind == "TrainingRuntime" else ""
    found = cluster.get(Ref(runtime.API, machine.runtime_kind, machine.runtime, namespace))
    if found is None:
        raise MachineError(
            f"the cluster has no {machine.runtime_kind} {machine.runtime!r}",
            f"Install ours with `kubectl apply -k deploy/runtimes`, or name another in {field}.",
        )
    return found


def begin(cluster: Cluster, objects: list[Manifest], uri: str = "") -> Manifest:
    """Create or adopt the objects; what an earlier try left as failed makes room first.

    Args:
        cluster: where.
        objects: the job last.
        uri: of the outputs, where the job's worker leaves its last word.

    Returns:
        The job as it is on the cluster.
    """
    last = cluster.get(Ref.of(objects[-1]))
    if last is not None and read.verdict(last).state == "failed":
        cluster.remove(Ref.of(objects[-1]))
        last = None
    if last is None and uri:
        storage.remove(f"{uri}/outcome.json")  # of that earlier try
    made: Manifest = {}
    for manifest in objects:
        made = cluster.create_or_adopt(manifest)
    return made


def ended(thing: Mapping[str, Any]) -> read.Verdict | None:
    """The verdict on a job or a search that has succeeded; None while it goes on.

    Raises:
        StepError: it failed, and what its controller says of that.
    """
    found = read.verdict(thing)
    if found.state == "failed":
        said = ": ".join(filter(None, (found.reason, found.message)))
        raise StepError(f"{thing['kind']} {thing['metadata']['name']} failed ({said})")
    return found if found.ended else None
