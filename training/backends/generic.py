"""Any training in containers, on a cluster: a TrainJob on any runtime, to its end."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from goldpath.core import settings
from goldpath.core.errors import InputError, SpecError
from goldpath.core.kubernetes import Cluster, Ref
from goldpath.core.progress import progress
from goldpath.core.spec import NAME, NAME_SAID
from goldpath.training.backends import jobs
from goldpath.training.cluster import TrainJobSpec
from goldpath.training.manifests import read, trainjob
from goldpath.training.results import JobResult


def run_trainjob(part: str, spec: TrainJobSpec) -> JobResult:
    """Create the TrainJob of this run and step, or go on with it, and wait for its end.

    Args:
        part: what the job is called; the object's name is made from run, step, this and what is asked for.
        spec: what to run and where.

    Returns:
        How it ended, and the last measures that its trainer reported.

    Raises:
        InputError: not on a cluster, or in a pipeline that was not made for one; a name that cannot be one.
        MachineError: the cluster has no such runtime.
        StepError: the job failed, was ended by its deadline or went away, and why.
    """
    if not re.fullmatch(NAME, part):
        raise SpecError(f"name is {part!r}", f"Use {NAME_SAID}.")
    if settings.backend() != "kubernetes":
        raise InputError(
            "run_trainjob starts a TrainJob, and the backend is local",
            "Set GOLDPATH_BACKEND=kubernetes and KUBECONFIG, or run the command itself on this machine.",
        )
    cluster, began = Cluster.connect(), time.time()
    name = jobs.name(cluster, spec.digest(), part)
    objects = trainjob.generic(
        name,
        spec,
        jobs.place(cluster, spec.gpu, name),
        namespace=cluster.namespace,
        carried_by=jobs.runtime_of(cluster, spec, "runtime"),
    )
    seen: dict[str, float] = {}
    with cluster.children(), progress(f"TrainJob {part}", 100, "%") as bar:

        def show(job: Mapping[str, Any]) -> None:
            said = read.progress(job)
            seen.update(said.metrics)
            if said.percent is not None:
                bar.update(said.percent, **said.metrics)

        job = jobs.begin(cluster, objects)
        cluster.wait(Ref.of(job), jobs.ended, spec.deadline_seconds + jobs.GRACE_S, show)
        bar.update(100)
    return JobResult(
        name=name,
        namespace=cluster.namespace,
        runtime=spec.runtime,
        nodes=spec.nodes,
        seconds=round(time.time() - began, 2),
        metrics=seen,
    )
