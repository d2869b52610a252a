"""`run_trainjob`: the object, what is waited for, what comes back, what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.errors import InputError, MachineError, SpecError, StepError
from goldpath.training.backends.generic import run_trainjob
from goldpath.training.cluster import TrainJobSpec
from tests.kube import Server
from tests.kube.jobs import complete, failed, runs_out_of_memory
from tests.training.cluster.conftest import left

Thing = dict[str, Any]
STEP = "run_trainjob"
WORDS = ["train.py", "--epochs", 3.0]
FORM = {"runtime": "goldpath-mpi", "image": "team/horovod:1", "command": ["mpirun"], "args": WORDS}


def spec(**fields: Any) -> TrainJobSpec:
    overrides = fields.pop("overrides", {})
    return TrainJobSpec.from_form(overrides, **{**FORM, **fields})


def reports(job: Thing) -> Thing | None:
    """A job whose code tells the Trainer how far it is."""
    status = job.get("status") or {}
    if not status:
        metrics = [{"name": "loss", "value": "1.5"}]
        return {"trainerStatus": {"progressPercentage": 40, "metrics": metrics}}
    return None if "conditions" in status else {**status, **complete()}


def test_a_job_of_any_kind_runs_to_its_end(cluster: Server) -> None:
    cluster.on("TrainJob", reports)
    done = run_trainjob(
        "horovod", spec(env={"SEED": 7}, nodes=2, overrides={"run_trainjob": {"memory": "64Gi"}})
    )
    (job,) = cluster.find("TrainJob")
    assert done.name == job["metadata"]["name"]
    assert done.metrics == {"loss": 1.5}
    trainer = job["spec"]["trainer"]
    assert trainer["args"] == ["train.py", "--epochs", "3"]
    assert trainer["env"] == [{"name": "SEED", "value": "7"}]
    assert trainer["resourcesPerNode"]["limits"]["memory"] == "64Gi"
    assert "numProcPerNode" not in trainer
    patched = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert [one["name"] for one in patched] == ["node", "launcher"], "the runtime was read from the cluster"
    assert job["metadata"]["labels"]["goldpath.io/run"] == "run-1"


def test_two_jobs_of_one_run_have_names_of_their_own(cluster: Server) -> None:
    cluster.on("TrainJob", reports)
    assert run_trainjob("first", spec()).name != run_trainjob("second", spec()).name
    again = run_trainjob("first", spec())
    assert again.name.startswith("run-1-run-trainjob-first-")
    assert len(cluster.created) == 2
    assert run_trainjob("first", spec(nodes=2)).name != again.name, "what is asked for tells them apart, too"


def test_a_pipeline_that_was_not_made_for_kubeflow_says_how_to_make_it(
    cluster: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOLDPATH_RUN")
    with pytest.raises(SpecError, match=r"needs a run and a step.*kubeflow\.for_kubeflow\(task\)"):
        run_trainjob("job", spec())
    assert left(cluster) == []


def test_a_failure_says_what_became_of_its_pod(cluster: Server) -> None:
    cluster.on("TrainJob", runs_out_of_memory(cluster))
    with pytest.raises(StepError, match=r"TrainJob run-1-run-trainjob-job-[\w-]+ failed.*OOMKilled"):
        run_trainjob("job", spec())
    assert left(cluster) == []


def test_a_failed_job_makes_room_for_the_next_try(cluster: Server) -> None:
    seen: list[str] = []

    def control(job: Thing) -> Thing | None:
        if job.get("status"):
            return None
        seen.append(job["metadata"]["uid"])
        return failed() if len(seen) == 1 else complete()

    cluster.on("TrainJob", control)
    with pytest.raises(StepError):
        run_trainjob("job", spec())
    assert run_trainjob("job", spec()).metrics == {}
    assert len(set(seen)) == 2


def test_the_gpu_request_is_placed_on_this_cluster(cluster: Server) -> None:
    node: Thing = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1", "labels": {}}}
    node["status"] = {"allocatable": {"nvidia.com/gpu": "2"}, "capacity": {"nvidia.com/gpu": "2"}}
    cluster.put(node)
    cluster.on("TrainJob", reports)
    run_trainjob("job", spec(gpu="whole*2"))
    (job,) = cluster.find("TrainJob")
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "2"
    assert job["spec"]["trainer"]["numProcPerNode"] == 2


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"runtime": "nope"}, MachineError, "no ClusterTrainingRuntime 'nope'.*or name another in runtime"),
        ({"gpu": "whole:H100"}, SpecError, "cannot serve the GPU request whole:H100"),
        ({"gpu": "h100"}, SpecError, "'h100' is no kind of request"),
        ({"gpu": "auto"}, SpecError, "auto says nothing"),
        ({"args": [True]}, SpecError, r"args.0 is true"),
        ({"env": {"PET_NNODES": "2"}}, SpecError, "the Trainer sets PET_NNODES itself"),
        ({"overrides": {"run_trainjob": {"memry": 1}}}, SpecError, "overrides.run_trainjob.memry is not a field"),
        ({"nodes": 0}, SpecError, "nodes is 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_before_anything_is_made(
    cluster: Server, fields: Thing, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        run_trainjob("job", spec(**fields))
    assert left(cluster) == []


@pytest.mark.parametrize("name", ["", "Job 1", "-a", "b" * 51])
def test_a_name_that_cannot_be_one_is_refused(cluster: Server, name: str) -> None:
    with pytest.raises(SpecError, match="name is"):
        run_trainjob(name, spec())


def test_without_a_cluster_it_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_BACKEND", "local")
    with pytest.raises(
        InputError, match=r"the backend is local\. Set GOLDPATH_BACKEND=kubernetes and KUBECONFIG"
    ):
        run_trainjob("job", spec())


SCRIPT = """
import sys
from types import SimpleNamespace
from goldpath.components.run_trainjob import run_trainjob
metrics = SimpleNamespace(log_metric=lambda name, value: print(name, value))
result = SimpleNamespace(path=sys.argv[1])
print(run_trainjob.python_func(metrics, result, image="team/horovod:1", args=["--epochs", 3.0]))
"""


def component(result: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(result)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until_there(server: Server) -> Thing:
    for _ in range(6000):
        if found := server.find("TrainJob"):
            return dict(found[0])
        time.sleep(0.01)
    raise AssertionError("no job was created")


def test_the_component_writes_what_came_of_it(cluster: Server, tmp_path: Path) -> None:
    cluster.on("TrainJob", reports)
    step = component(tmp_path / "result.json")
    said, told = step.communicate(timeout=120)
    assert step.returncode == 0, told
    envelope = json.loads((tmp_path / "result.json").read_text())
    assert envelope["step"] == "run_trainjob"
    assert envelope["result"]["metrics"] == {"loss": 1.5}
    assert said.split() == ["loss", "1.5", envelope["result"]["name"]]


def test_a_cancelled_step_leaves_no_object_and_says_so_in_a_line(cluster: Server, tmp_path: Path) -> None:
    step = component(tmp_path / "result.json")
    until_there(cluster)
    os.kill(step.pid, signal.SIGTERM)
    _, told = step.communicate(timeout=120)
    assert step.returncode == 2
    assert "Traceback" not in told
    assert left(cluster) == []


def test_a_killed_step_is_tried_again_and_adopts_its_job(cluster: Server, tmp_path: Path) -> None:
    killed = component(tmp_path / "result.json")
    job = until_there(cluster)
    killed.kill()
    killed.communicate()
    cluster.on("TrainJob", reports)
    name = job["metadata"]["name"]
    cluster.edit("TrainJob", name, lambda thing: thing["metadata"]["annotations"].update(seen="1"))
    again = component(tmp_path / "result.json")
    said, told = again.communicate(timeout=120)
    assert again.returncode == 0, told
    assert said.split()[-1] == name
    assert len(cluster.created) == 1


def test_the_form_is_one_that_a_person_can_fill_and_a_pipeline_takes_it(tmp_path: Path) -> None:
    from kfp import compiler, dsl

    from goldpath.components.run_trainjob import run_trainjob as made

    inputs = made.component_spec.inputs
    assert len(inputs) <= 12
    assert all(one.optional for one in inputs.values())

    @dsl.pipeline
    def mine():  # kfp cannot read annotations of this module, which are texts
        made(name="a", args=["--epochs", "3"], command=["python"], env={"A": "b"})

    compiler.Compiler().compile(mine, str(tmp_path / "mine.yaml"))
    assert "pip install" not in (tmp_path / "mine.yaml").read_text()
