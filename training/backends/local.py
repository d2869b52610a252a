"""The local backend: torchrun as a child process, with the arguments that a TrainJob's pod would get."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from goldpath.core.ports import free_port
from goldpath.core.process import run_child
from goldpath.training.job import Job
from goldpath.training.launch import arguments, torchrun
from goldpath.training.worker import QUIET

_CALM = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONWARNINGS": "ignore::FutureWarning", "PYTHONUNBUFFERED": "1"}
"""Threads that wait for each other sleep: by default they spin, and beside any other busy process (a second trial, a
browser) that was measured to cost three quarters of the speed."""


def command(job: Job, spec: Path) -> list[str]:
    """torchrun's command line for `job`, whose spec lies in the file `spec`: one node, rendezvous on loopback."""
    place = ["--nnodes", "1", "--node-rank", "0", "--nproc-per-node", str(job.spec.processes)]
    first = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    asked = arguments(
        spec=spec.absolute().as_uri(),
        frame=job.frame.absolute().as_uri(),
        base=job.base.absolute().as_uri(),
        out=job.out.absolute().as_uri(),
        save_model=job.save_model,
    )
    return [sys.executable, *torchrun(*place, *first), *asked]


def launch(job: Job, spec: Path, on_line: Callable[[str], None]) -> int:
    """Run the job's processes to their end; they die with us. Returns torchrun's exit code."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // job.spec.processes))
    env = {**QUIET, **_CALM, "OMP_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo"}
    if job.spec.gpu == "none":
        env["CUDA_VISIBLE_DEVICES"] = ""
    if not sys.platform.startswith("linux"):
        del env["GLOO_SOCKET_IFNAME"]  # the loopback interface has another name there
    return run_child(command(job, spec), what="training", env=env, on_line=on_line)


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
