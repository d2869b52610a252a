"""Fine-tuning on a cluster: the objects, what is waited for, what comes back, what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from goldpath.core import storage
from goldpath.core.errors import GoldpathError, MachineError, StepError
from goldpath.training import finetune
from goldpath.training.backends import kubernetes
from goldpath.training.specs import TrainSpec
from tests.buckets import bucket
from tests.kube import Server
from tests.kube.jobs import Kubelet, argument, failed, runs_out_of_memory, trains
from tests.kube.things import condition
from tests.models import make_frame, make_tiny_model
from tests.training.cluster.conftest import left

STEP = "fine_tune"
FIGURES = {
    "steps": 2,
    "tokens": 100,
    "trainable_parameters": 10,
    "resumed_from": 0,
    "peak_memory_bytes": 10**9,
}
SPEC = TrainSpec.parse(
    {"gpu": "none", "max_steps": 2, "sequence_length": 64, "evaluate_steps": 2, "validation_rows": 4}
)
INPUTS = ("s3://team/frame", "frame-digest", "s3://team/base", "base-digest")


def fine_tune(spec: TrainSpec = SPEC) -> Any:
    return finetune.fine_tune(*INPUTS, spec)


def test_a_training_is_a_job_whose_model_comes_back(cluster: Server, tmp_path: Path) -> None:
    cluster.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    done = fine_tune()
    assert done.result.steps == 2
    assert done.result.eval_loss == 1.9
    assert (done.path / "model" / "model.safetensors").is_file()
    assert done.uri.startswith(f"file://{tmp_path}/shared/store/fine-tune/")
    (job,) = cluster.find("TrainJob")
    assert job["metadata"]["labels"]["goldpath.io/run"] == "run-1"
    assert job["spec"]["activeDeadlineSeconds"] == SPEC.cluster.deadline_seconds
    words = job["spec"]["trainer"]["args"]
    assert [words[words.index(name) + 1] for name in ("--frame", "--base")] == [
        "s3://team/frame",
        "s3://team/base",
    ]
    again = fine_tune()
    assert again.reused
    assert cluster.created == [f"TrainJob/{job['metadata']['name']}"]


def test_the_error_of_the_worker_is_the_error_of_the_step(cluster: Server) -> None:
    def control(job: dict[str, Any]) -> dict[str, Any] | None:
        if job.get("status"):
            return None
        words = job["spec"]["trainer"]["args"]
        error = MachineError("training ran out of memory", "Give a smaller batch_size.").to_dict()
        storage.write(
            json.dumps({"error": error}).encode(), f"{words[words.index('--out') + 1]}/outcome.json"
        )
        return failed()

    cluster.on("TrainJob", control)
    with pytest.raises(MachineError, match=r"^training ran out of memory.*Give a smaller batch_size"):
        fine_tune()
    assert left(cluster) == []


def test_a_job_that_says_nothing_is_explained_by_its_pods(cluster: Server) -> None:
    cluster.on("TrainJob", runs_out_of_memory(cluster))
    with pytest.raises(StepError, match=r"TrainJob run-1-fine-tune-[\w-]+ failed.*OOMKilled"):
        fine_tune()
    assert left(cluster) == []


def test_what_an_earlier_try_left_as_failed_makes_room(cluster: Server, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "trained")
    seen: list[str] = []

    def control(job: dict[str, Any]) -> dict[str, Any] | None:
        uid = job["metadata"]["uid"]
        if uid not in seen:
            seen.append(uid)
        return failed() if seen.index(uid) == 0 else trains(model, FIGURES)(job)

    cluster.on("TrainJob", control)
    with pytest.raises(StepError):
        fine_tune()
    assert fine_tune().result.steps == 2
    assert len(seen) == 2


SCRIPT = """
from goldpath.training import finetune
from goldpath.training.specs import TrainSpec
import sys
print(finetune.fine_tune(*sys.argv[1:5], TrainSpec.model_validate_json(sys.argv[5])).result.steps)
"""


def step() -> subprocess.Popen[str]:
    asked = [sys.executable, "-c", SCRIPT, *INPUTS, SPEC.model_dump_json()]
    return subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_there(server: Server) -> dict[str, Any]:
    for _ in range(3000):
        if found := server.find("TrainJob"):
            return dict(found[0])
        time.sleep(0.01)
    raise AssertionError("no job was created")


def test_a_killed_step_is_tried_again_and_adopts_its_job(cluster: Server, tmp_path: Path) -> None:
    killed = step()
    job = until_there(cluster)
    killed.kill()
    killed.communicate()
    cluster.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    cluster.edit(
        "TrainJob", job["metadata"]["name"], lambda thing: thing["metadata"].update(annotations={"seen": "1"})
    )
    again = step()
    said, _ = again.communicate(timeout=120)
    assert said.strip() == "2"
    assert [one["metadata"]["uid"] for one in cluster.find("TrainJob")] == [job["metadata"]["uid"]]
    assert len(cluster.created) == 1


def work(tmp_path: Path) -> list[Path]:
    """What jobs have left in the storage, beside the slots that are kept."""
    return [file for file in (tmp_path / "shared" / "work").rglob("*") if file.is_file()]


def killed(*_: Any) -> str:
    raise KeyboardInterrupt


def test_a_step_that_was_killed_after_its_job_had_ended_does_not_train_again(
    cluster: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            fine_tune()
    shutil.rmtree(tmp_path / "home")
    (job,) = cluster.find("TrainJob")
    cluster.drop("TrainJob", job["metadata"]["name"])
    assert work(tmp_path), "the job's own copy is all that there is"
    assert fine_tune().result.steps == 2
    assert len(cluster.created) == 1


def test_a_model_lies_in_the_storage_once(
    cluster: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    with monkeypatch.context() as patch:
        patch.setattr(kubernetes, "tidy", killed)
        with pytest.raises(KeyboardInterrupt):
            fine_tune()
    assert work(tmp_path)
    assert fine_tune().reused
    assert work(tmp_path) == []
    assert len(list((tmp_path / "shared" / "store").rglob("model.safetensors"))) == 1


def test_credentials_that_may_not_remove_anything_cost_no_training(
    cluster: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(uri: str) -> None:
        if uri.rpartition("/")[2] != "outcome.json":
            raise MachineError(f"cannot write {uri}")

    monkeypatch.setattr(storage, "remove", refused)
    cluster.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    assert fine_tune().result.steps == 2


def test_a_job_that_still_works_keeps_its_checkpoints(cluster: Server, tmp_path: Path) -> None:
    cluster.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    done = fine_tune()
    file = tmp_path / "shared" / "work" / "fine-tune" / done.key / "checkpoints" / "checkpoint-1" / "a"
    file.parent.mkdir(parents=True)  # of another run, which began before this one had ended
    file.touch()
    assert fine_tune().reused
    assert file.exists()


def test_two_trainings_of_one_run_are_two_jobs(cluster: Server, tmp_path: Path) -> None:
    """Two tasks fine_tune of one pipeline differ by what they train, and by nothing else."""
    cluster.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    other = SPEC.model_copy(update={"seed": 8})
    fine_tune()
    fine_tune(other)
    names = {job["metadata"]["name"] for job in cluster.find("TrainJob")}
    assert len(names) == 2


def test_who_finds_the_work_tidied_up_takes_what_was_kept(
    cluster: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run that wanted the same training ended while this one still waited for its job."""
    trained = trains(make_tiny_model(tmp_path / "trained"), FIGURES)

    def control(job: dict[str, Any]) -> dict[str, Any] | None:
        status = trained(job)
        if status and "conditions" in status:
            out = Path(argument(job, "--out").removeprefix("file://"))
            (out / "result.json").write_text("{}")
            storage.keep("fine-tune", out.name, out)
            shutil.rmtree(out)
        return status

    cluster.on("TrainJob", control)
    assert fine_tune().result.steps == 2


def test_a_cancelled_step_leaves_no_object(cluster: Server) -> None:
    cancelled = step()
    until_there(cluster)
    os.kill(cancelled.pid, signal.SIGTERM)
    cancelled.communicate(timeout=120)
    assert cancelled.returncode != 0
    assert left(cluster) == []


def test_a_cluster_without_our_runtime_says_how_to_get_it(cluster: Server) -> None:
    cluster.drop("ClusterTrainingRuntime", "goldpath-torch")
    with pytest.raises(MachineError, match=r"no ClusterTrainingRuntime 'goldpath-torch'.*kubectl apply -k"):
        fine_tune()
    assert cluster.created == []


def test_a_cluster_with_the_old_operator_trains_by_a_pytorchjob(cluster: Server, tmp_path: Path) -> None:
    cluster.lack("TrainJob")
    model = make_tiny_model(tmp_path / "trained")

    def control(job: dict[str, Any]) -> dict[str, Any] | None:
        container = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
        as_trainer = {**job, "spec": {"trainer": {"args": container["args"]}}}
        status = trains(model, FIGURES)(as_trainer)
        if status and "conditions" in status:
            status["conditions"] = [condition("Succeeded", reason="PyTorchJobSucceeded")]
        return status

    cluster.on("PyTorchJob", control)
    assert fine_tune().result.steps == 2
    assert [name.split("/")[0] for name in cluster.created] == ["PyTorchJob"]


def test_a_cluster_with_neither_says_what_to_install(cluster: Server) -> None:
    cluster.lack("TrainJob")
    cluster.lack("PyTorchJob")
    with pytest.raises(GoldpathError, match=r"Kubeflow Trainer"):
        fine_tune()


@pytest.mark.e2e
def test_the_job_trains_bit_for_bit_what_this_machine_trains(
    cluster: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's pod is a real process that reads and writes a bucket over its protocol."""
    with bucket(monkeypatch, "pods") as uri:
        monkeypatch.setenv("GOLDPATH_STORAGE", f"{uri}/goldpath")
        frame, base = make_frame(tmp_path / "frame", rows=20), make_tiny_model(tmp_path / "base")
        storage.put(frame, "s3://pods/goldpath/in/frame")
        storage.put(base, "s3://pods/goldpath/in/base")
        kubelet = Kubelet(cluster, tmp_path / "pod")
        cluster.on("TrainJob", kubelet)
        inputs = ("s3://pods/goldpath/in/frame", "frame", "s3://pods/goldpath/in/base", "base")
        done = finetune.fine_tune(*inputs, SPEC)
        monkeypatch.setenv("GOLDPATH_BACKEND", "local")
        here = finetune.train_once(frame, base, SPEC, tmp_path / "here")
    assert done.result.model_digest == here.model_digest, kubelet.outputs
    assert [row["loss"] for row in done.result.curve] == [row["loss"] for row in here.curve]
    assert done.result.parameters == here.parameters


def test_the_namespace_and_gpu_of_the_request_are_rendered(
    cluster: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1", "labels": {}}}
    node["status"] = {
        "allocatable": {"nvidia.com/mig-1g.10gb": "2"},
        "capacity": {"nvidia.com/mig-1g.10gb": "2"},
    }
    cluster.put(node)
    cluster.on("TrainJob", trains(make_tiny_model(tmp_path / "trained"), FIGURES))
    fine_tune(SPEC.model_copy(update={"gpu": "mig:1g.10gb"}))
    (job,) = cluster.find("TrainJob")
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"


def test_a_request_that_the_cluster_cannot_serve_is_refused_before_anything_is_made(cluster: Server) -> None:
    with pytest.raises(GoldpathError, match=r"cannot serve the GPU request whole:H100"):
        fine_tune(SPEC.model_copy(update={"gpu": "whole:H100"}))
    assert cluster.created == []
