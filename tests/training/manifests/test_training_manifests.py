"""What is asked of a training shows in its manifest, and what cannot work is refused in words."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from goldpath.core.errors import SpecError
from goldpath.training import launch, worker
from goldpath.training.cluster import MOUNT, ClusterSpec, TrainJobSpec, Uris
from goldpath.training.manifests import pytorchjob, runtime, sharding, trainjob
from goldpath.training.specs import TrainSpec
from tests.training.manifests import samples
from tests.training.manifests.samples import (
    NAME,
    URIS,
    a_generic_job,
    a_pytorch_job,
    a_train_job,
    cluster,
    environment,
    placement,
    pods,
)


def test_the_pods_arguments_are_what_the_worker_reads() -> None:
    asked = worker._parser().parse_args(a_train_job()[-1]["spec"]["trainer"]["args"])
    assert (asked.frame, asked.base) == (URIS.frame, URIS.base)
    assert asked.out == "s3://models/goldpath/tuning"
    assert not asked.no_model
    assert asked.spec == f"env:{launch.SPEC_VARIABLE}"
    assert json.loads(environment(a_train_job())[launch.SPEC_VARIABLE]) == TrainSpec().model_dump(
        mode="json", exclude={"cluster"}
    )


def test_a_dollar_sign_reaches_the_process_as_it_is() -> None:
    made = a_generic_job(env={"TEXT": "$(HOME) costs $5"})
    assert environment(made)["TEXT"] == "$$(HOME) costs $$5"


def test_a_claim_is_mounted_and_holds_the_outputs() -> None:
    made = a_train_job(storage="", claim="models", service_account="trainer")
    (spec,) = pods(made)
    volume = next(one for one in spec["volumes"] if "persistentVolumeClaim" in one)
    assert volume["persistentVolumeClaim"] == {"claimName": "models"}
    mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    assert mounts[volume["name"]] == MOUNT
    assert f"file://{MOUNT}/tuning" in spec["containers"][0]["args"]
    assert spec["serviceAccountName"] == "trainer"
    assert (
        a_pytorch_job(storage="", claim="models")[-1]["spec"]["pytorchReplicaSpecs"]["Master"]["template"][
            "spec"
        ]["volumes"][-1]
        == volume
    )


def test_a_claim_keeps_the_checkpoints_of_a_run_whose_model_goes_to_the_storage() -> None:
    uris = URIS.model_copy(update={"out": "s3://team/work/fine-tune/0123"})
    made = trainjob.render(NAME, TrainSpec(), cluster(storage="", claim="models"), uris, placement())[-1]
    words = made["spec"]["trainer"]["args"]
    assert words[words.index("--out") + 1] == "s3://team/work/fine-tune/0123"
    assert words[words.index("--folder") + 1] == f"{MOUNT}/{NAME}"
    for where in (cluster(storage="", claim="models"), cluster()):
        alone = trainjob.render(NAME, TrainSpec(), where, URIS, placement())[-1]["spec"]["trainer"]["args"]
        assert "--folder" not in alone


def test_nodes_processes_and_the_deadline_are_the_jobs() -> None:
    spec = TrainSpec.parse({"processes": 2})
    where = cluster(nodes=3, deadline_seconds=600, cpu="8", memory="64Gi")
    made = trainjob.render(NAME, spec, where, URIS, placement())[-1]["spec"]
    assert (made["activeDeadlineSeconds"], made["trainer"]["numNodes"]) == (600, 3)
    assert made["trainer"]["numProcPerNode"] == 2
    assert made["trainer"]["resourcesPerNode"]["limits"] == {"cpu": "8", "memory": "64Gi"}
    old = pytorchjob.render(NAME, spec, where, URIS, placement())[-1]["spec"]
    assert old["nprocPerNode"] == "2"
    assert {role: one["replicas"] for role, one in old["pytorchReplicaSpecs"].items()} == {
        "Master": 1,
        "Worker": 2,
    }
    assert old["runPolicy"]["activeDeadlineSeconds"] == 600


@pytest.mark.parametrize("gpu", ["none", "mig:2g.20gb"])
def test_restarts_that_the_runtime_has_not_are_carried_by_one_of_the_jobs_own(gpu: str) -> None:
    made = a_train_job(gpu, retries=5)
    reference = made[-1]["spec"]["runtimeRef"]
    runtimes = [one for one in made if one["kind"] == "TrainingRuntime"]
    assert [one["metadata"]["name"] for one in runtimes] == [reference["name"]]
    assert reference["kind"] == "TrainingRuntime"
    policy = runtimes[0]["spec"]["template"]["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 5
    assert policy["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert [one["kind"] for one in a_train_job(retries=runtime.RETRIES)] == ["TrainJob"]
    assert a_pytorch_job(gpu, retries=5)[-1]["spec"]["runPolicy"]["backoffLimit"] == 5


def test_an_eviction_starts_all_nodes_again_without_counting() -> None:
    template = runtime.render()["spec"]["template"]["spec"]
    job = template["replicatedJobs"][0]["template"]["spec"]
    assert job["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # what a podFailurePolicy asks for
    assert template["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert template["failurePolicy"]["restartStrategy"] == "BlockingRecreate"


def test_generic_jobs_carry_what_was_asked_and_nothing_else() -> None:
    made = a_generic_job(env={"A": "1"}, processes=4, sharding="zero3")[-1]["spec"]
    assert made["trainer"]["command"] == ["python"]
    assert made["trainer"]["args"] == ["train.py"]
    assert made["trainer"]["numProcPerNode"] == 4
    assert {one["name"]: one["value"] for one in made["trainer"]["env"]} == {
        **sharding.environment("zero3"),
        "A": "1",
    }
    plain = TrainJobSpec.parse({"runtime": "xgboost-distributed", "restricted": False})
    trainer = trainjob.generic(NAME, plain, placement())[-1]["spec"]
    assert "runtimePatches" not in trainer
    assert set(trainer["trainer"]) == {"numNodes", "resourcesPerNode"}


def test_both_replicated_jobs_of_an_mpi_runtime_are_patched() -> None:
    spec = TrainJobSpec.parse({"runtime": "goldpath-mpi", "image": samples.IMAGE, "command": ["mpirun"]})
    carrier = runtime.deployed()["mpi.yaml"]
    made = trainjob.generic(NAME, spec, placement(), carried_by=carrier)
    patched = made[-1]["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]
    assert [one["name"] for one in patched["replicatedJobs"]] == ["node", "launcher"]


@pytest.mark.parametrize("kind", ["fsdp", "zero3"])
def test_accelerate_reads_what_is_set_for_sharding(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import accelerator
    from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

    for name, value in sharding.environment(kind).items():
        monkeypatch.setenv(name, value)
    if kind == "fsdp":
        plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2
        assert plugin.reshard_after_forward is True
        assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    else:
        # DeepSpeed itself needs a GPU; accelerate's reader of its variables does not.
        read = inspect.getsource(DeepSpeedPlugin) + inspect.getsource(accelerator)
        assert [name for name in sharding.environment(kind) if name not in read] == []
    assert sharding.environment("none") == {}


BAD_CLUSTERS: list[tuple[dict[str, Any], str]] = [
    ({"nodes": 0}, "nodes is 0"),
    ({"memory": "16 GB"}, "memory"),
    ({"storage": "/data"}, "s3://bucket/goldpath"),
    ({"storage": "file:///data"}, "every pod"),
    ({"storage": "foo://m/g"}, "nothing opens foo://"),
    ({"storage": "s3://b/$(id)"}, "storage"),
    ({"storage": "s3://b", "claim": "models"}, "one of them"),
    ({"claim": "My_Claim"}, "lower-case letters"),
    ({"image": "Trainer: latest"}, "repository:tag"),
    ({"deadline_seconds": 1}, "deadline_seconds"),
    ({"sharding": "ddp"}, "sharding"),
    ({"gpus": 2}, "gpus is not a field of ClusterSpec"),
]


@pytest.mark.parametrize(("values", "said"), BAD_CLUSTERS)
def test_a_wrong_place_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said.replace("$", r"\$")):
        ClusterSpec.parse(values)


def test_a_uri_that_a_shell_would_read_is_refused() -> None:
    with pytest.raises(SpecError, match="frame"):
        Uris.parse({"frame": "s3://data/my frame", "base": "s3://b"})
    with pytest.raises(SpecError, match="the Trainer sets PET_NNODES itself"):
        TrainJobSpec.parse({"env": {"PET_NNODES": "3"}})


def test_secrets_are_named_and_never_written_out() -> None:
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "WANDB_API_KEY",
        "db_password",
        "DB_PASS",
        "GITHUB_PAT",
    ):
        with pytest.raises(
            SpecError, match=rf"{name} looks like a secret.*secrets: {{\"{name}\": \"SECRET/KEY\"}}"
        ):
            TrainJobSpec.parse({"env": {name: "hunter2"}})
        with pytest.raises(SpecError) as told:
            TrainJobSpec.parse({"env": {name: "hunter2"}})
        assert "hunter2" not in told.value.line()
    with pytest.raises(SpecError, match=r"env\.DATABASE_URL looks like a secret"):
        TrainJobSpec.parse({"env": {"DATABASE_URL": "postgres://u:hunter2@h/d"}})
    harmless = {
        **{"TOKENIZERS_PARALLELISM": "1", "MAX_TOKENS": "9", "MAX_TOKEN_LENGTH": "9", "PAD_TOKEN": "x"},
        **{"HF_TOKEN": "", "HF_TOKEN_PATH": "/run/token", "GOOGLE_APPLICATION_CREDENTIALS": "/etc/k.json"},
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
    }
    made = a_generic_job(env=harmless, secrets={"DB_PASSWORD": "team-db/password"})[-1]["spec"]["trainer"][
        "env"
    ]
    assert made[-1] == {
        "name": "DB_PASSWORD",
        "valueFrom": {"secretKeyRef": {"name": "team-db", "key": "password"}},
    }
    for wrong, said in (({"A": "no-key"}, "SECRET/KEY"), ({"A": "s/k"}, "in env and in secrets")):
        with pytest.raises(SpecError, match=said):
            TrainJobSpec.parse({"env": {"A": "1"}, "secrets": wrong})


@pytest.mark.parametrize("render", [trainjob.render, pytorchjob.render])
def test_a_training_that_cannot_work_is_refused(render: Any) -> None:
    def refused(
        said: str, name: str = NAME, spec: dict[str, Any] | None = None, gpu: str = "none", **values: Any
    ) -> None:
        with pytest.raises(SpecError, match=said):
            render(name, TrainSpec.parse(spec or {}), cluster(**values), URIS, placement(gpu))

    refused("no place for checkpoints", storage="")
    refused("processes is 1 and the GPU request whole\\*2 gives each node 2", gpu="whole*2")
    refused("at most 48", name="n" * 49)
    refused("at most 46", name="n" * 47, nodes=128)
    refused("with a letter first", name="1st")
    refused("gpu is none: accelerate shares out nothing", spec={"processes": 2}, sharding="fsdp")


def test_retries_need_the_runtime_that_carries_them() -> None:
    with pytest.raises(SpecError, match="the runtime torch-distributed is not at hand"):
        a_train_job(runtime="torch-distributed", retries=1)
    assert a_train_job(runtime="torch-distributed")[-1]["spec"]["runtimeRef"]["name"] == "torch-distributed"
