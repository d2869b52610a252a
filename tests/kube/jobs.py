"""Controllers of jobs: one whose pods are real processes, and quick ones that play what happens to them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from goldpath.core import storage
from goldpath.core.ports import free_port
from tests.kube.server import NAMESPACE, Server
from tests.kube.things import condition, pod

Thing = dict[str, Any]


def complete() -> Thing:
    return {"conditions": [condition("Complete", reason="JobsCompleted")]}


def failed(message: str = "jobset failed due to one or more job failures") -> Thing:
    return {"conditions": [condition("Failed", reason="JobSetFailed", message=message)]}


class Kubelet:
    """Runs the first node of each TrainJob as a process of this machine, as its container would be started."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server, self.home = server, home
        self.outputs: list[str] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, job: Thing) -> Thing | None:
        if job.get("status"):
            return None
        thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self.threads.append(thread)
        thread.start()
        return {"jobsStatus": [{"name": "node", "active": 1}]}

    def _run(self, job: Thing) -> None:
        trainer = job["spec"]["trainer"]
        first, *command = trainer["command"]
        assert first == "python"
        given = {one["name"]: one["value"] for one in trainer["env"] if "value" in one}
        done = subprocess.run(
            [sys.executable, *command, *trainer["args"]],
            env={
                **os.environ,
                **given,
                "GOLDPATH_HOME": str(self.home),
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": "0",
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(free_port()),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        self.outputs.append(done.stdout + done.stderr)
        status = complete() if done.returncode == 0 else failed()

        def end(thing: Thing) -> None:
            thing["status"] = status

        self.server.edit("TrainJob", job["metadata"]["name"], end, job["metadata"]["namespace"])


def argument(job: Thing, name: str) -> str:
    """What a job's worker is given for an option."""
    words = job["spec"]["trainer"]["args"]
    return str(words[words.index(name) + 1])


def trains(model: Path, figures: Thing) -> Callable[[Thing], Thing | None]:
    """A TrainJob that reports progress, leaves that model and these figures in the storage, and is complete."""

    def control(job: Thing) -> Thing | None:
        status = job.get("status") or {}
        if not status:
            return {"jobsStatus": [{"name": "node", "active": 1}]}
        if "trainerStatus" not in status and "conditions" not in status:
            return {**status, "trainerStatus": {"progressPercentage": 50}}
        if "conditions" in status:
            return None
        out = argument(job, "--out")
        row = {"step": 1, "loss": 2.0, "learning_rate": 0.1, "tokens_per_second": 10.0, "eval_loss": 1.9}
        storage.write((json.dumps(row) + "\n").encode(), f"{out}/metrics.jsonl")
        for file in sorted(model.iterdir()):
            storage.put_file(file, f"{out}/model/{file.name}")
        storage.write(json.dumps({"figures": figures}).encode(), f"{out}/outcome.json")
        return {**status, **complete()}

    return control


def runs_out_of_memory(server: Server) -> Callable[[Thing], Thing | None]:
    """A TrainJob whose pod is killed by the kernel."""

    def control(job: Thing) -> Thing | None:
        if job.get("status"):
            return None
        killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        name = f"{job['metadata']['name']}-node-0-0-x"
        status = {"phase": "Failed", "containerStatuses": [{"name": "node", "state": killed}]}
        server.put(pod(name, owner=job, **status))
        server.logs[NAMESPACE, name] = "loading\n"
        return failed()

    return control


def searches(server: Server, losses: list[float | None]) -> Callable[[Thing], Thing | None]:
    """An Experiment whose trials end one by one with these losses; None: a trial that fails."""
    chance = random.Random(7)

    def control(made: Thing) -> Thing | None:
        status = made.get("status") or {}
        name, number = made["metadata"]["name"], int(status.get("trials", 0))
        if "conditions" in status:
            return None
        if number == len(losses):
            ok = any(loss is not None for loss in losses)
            kind = "Succeeded" if ok else "Failed"
            return {**status, "conditions": [condition(kind, reason=f"Experiment{kind}", message="it ended")]}
        loss = losses[number]
        server.put(
            {
                "apiVersion": "kubeflow.org/v1beta1",
                "kind": "Trial",
                "metadata": {
                    "name": f"{name}-{number}",
                    "namespace": made["metadata"]["namespace"],
                    "labels": {"katib.kubeflow.org/experiment": name},
                    "ownerReferences": [_owner(made)],
                },
                "spec": {"parameterAssignments": _assignments(made, chance)},
                "status": _trial(loss),
            }
        )
        key = "trialsFailed" if loss is None else "trialsSucceeded"
        return {**status, "trials": number + 1, key: int(status.get(key, 0)) + 1}

    return control


def _owner(thing: Thing) -> Thing:
    metadata = thing["metadata"]
    kind = {"apiVersion": thing["apiVersion"], "kind": thing["kind"], "controller": True}
    return {**kind, "name": metadata["name"], "uid": metadata["uid"]}


def _assignments(made: Thing, chance: random.Random) -> list[Thing]:
    found = []
    for parameter in made["spec"]["parameters"]:
        space = parameter["feasibleSpace"]
        value: Any = chance.choice(space["list"]) if "list" in space else None
        if value is None:
            low, high = float(space["min"]), float(space["max"])
            whole = parameter["parameterType"] == "int"
            value = int(low) if whole else chance.uniform(low, high)
        found.append({"name": parameter["name"], "value": str(value)})
    return found


def _trial(loss: float | None) -> Thing:
    times = {"startTime": "2026-11-24T10:00:00Z", "completionTime": "2026-11-24T10:01:30Z"}
    if loss is None:
        message = "Trial has failed: container node was OOMKilled"
        return {**times, "conditions": [condition("Failed", reason="TrialFailed", message=message)]}
    measured = [{"name": "eval_loss", "latest": str(loss), "min": str(loss), "max": str(loss)}]
    return {
        **times,
        "conditions": [condition("Succeeded", reason="TrialSucceeded")],
        "observation": {"metrics": measured},
    }
