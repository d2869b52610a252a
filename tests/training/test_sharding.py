"""Weights, gradients and optimizer state shared out among processes: by FSDP, and by ZeRO-3 if DeepSpeed is there."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from goldpath.core.errors import SpecError
from goldpath.core.modelfiles import check_model_folder
from goldpath.core.ports import free_port
from goldpath.training.job import COMPLETE
from goldpath.training.launch import MODULE, SPEC_VARIABLE, arguments, torchrun
from goldpath.training.manifests import pytorchjob, sharding, trainjob
from goldpath.training.specs import TrainSpec
from tests.training.manifests.samples import NAME, URIS, cluster, placement

SHARDED = "tests.training.sharded_on_cpu"
ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.CompletedProcess[str]]

zero3 = pytest.param(
    "zero3",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None, reason="needs `pip install deepspeed`"
    ),
)


@pytest.fixture
def start(frame: Path, model: Path) -> Start:
    """Train with two processes, on a spec of four steps; returns how torchrun ended."""

    def begin(out: Path, kind: str, module: str = SHARDED, **spec: Any) -> subprocess.CompletedProcess[str]:
        asked = {
            **TrainSpec().model_dump(mode="json", exclude={"cluster"}),
            **{"max_steps": 4, "learning_rate": 5e-3, "sequence_length": 128, "validation_rows": 9},
            **{"checkpoint_steps": 2, "evaluate_steps": 2, "precision": "fp32", "processes": 2},
            **spec,
        }
        env = {
            **os.environ,
            **{name: "" for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ},
            **{"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": "0"},
            **{"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())},
            **{"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            **{"DS_ACCELERATOR": "cpu", SPEC_VARIABLE: json.dumps(asked)},
            **sharding.environment(kind),  # type: ignore[arg-type]
        }
        uris = {"frame": frame.as_uri(), "base": model.as_uri(), "out": f"local://{out}"}
        command = [module if word == MODULE else word for word in torchrun()]
        return subprocess.run(
            [sys.executable, *command, *arguments(spec=f"env:{SPEC_VARIABLE}", **uris)],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )

    return begin


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", ["fsdp", zero3])
def test_shares_train_what_whole_copies_train(tmp_path: Path, start: Start, kind: str, method: str) -> None:
    """Loss by loss and weight by weight, up to the order in which sums are made; and again from a checkpoint."""
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    for out, how in ((whole, "none"), (shared, kind)):
        ended = start(out, how, method=method)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    for found, wanted in zip(rows(shared), rows(whole), strict=True):
        for name in set(wanted) - {"tokens_per_second"}:
            assert found[name] == pytest.approx(wanted[name], rel=1e-4), name
    check_model_folder(shared / "model")
    weights, expected = (load_file(out / "model/model.safetensors") for out in (shared, whole))
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name].float(), tensor.float(), rtol=1e-2, atol=1e-3)
    assert (shared / "adapter").is_dir() == (method == "lora")


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["fsdp", zero3])
def test_a_sharded_training_goes_on_from_its_checkpoint(tmp_path: Path, start: Start, kind: str) -> None:
    """The model cannot be sent at first: checkpoints stay, and the later of them is taken away."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "model").write_text("in the way")
    assert start(out, kind, method="full").returncode != 0
    first = rows(out)
    shutil.rmtree(out / "checkpoints/checkpoint-4")
    assert (out / f"checkpoints/checkpoint-2/{COMPLETE}").is_file()
    (out / "model").unlink()
    ended = start(out, kind, method="full")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = json.loads((out / "outcome.json").read_text())["figures"]
    assert (figures["resumed_from"], figures["steps"]) == (2, 4)
    again = rows(out)
    for found, wanted in zip(again, first, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)


@pytest.mark.e2e
def test_processors_alone_are_refused(tmp_path: Path, start: Start) -> None:
    """accelerate would pass the setting over, and each process would hold everything."""
    assert start(tmp_path / "out", "fsdp", module=MODULE).returncode != 0
    told = json.loads((tmp_path / "out/outcome.json").read_text())["error"]
    assert "the training's sharding needs GPUs" in told["message"]


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_zero3_without_deepspeed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from goldpath.core.errors import MachineError
    from goldpath.training import modeling

    modeling.require_deepspeed()
    for name, value in sharding.environment("zero3").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MachineError, match="needs the package deepspeed"):
        modeling.require_deepspeed()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "qlora", "processes": 2}, "the 4-bit base of method qlora"),
        ({"method": "full"}, "one process holds everything"),
    ],
)
def test_what_cannot_be_shared_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        TrainSpec.parse({**fields, "cluster": {"sharding": "fsdp"}})
    assert TrainSpec.parse({"method": "full", "cluster": {"sharding": "fsdp", "nodes": 2}})


@pytest.mark.parametrize("render", [trainjob.render, pytorchjob.render])
def test_processes_share_weights_as_accelerate_is_told(render: Any) -> None:
    spec = TrainSpec.parse({"method": "full", "processes": 2})
    made = render(NAME, spec, cluster(sharding="fsdp", nodes=2), URIS, placement("whole*2"))[-1]["spec"]
    if "trainer" in made:
        env = made["trainer"]["env"]
    else:
        env = made["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["env"]
    told = {one["name"]: one.get("value") for one in env}
    assert told.items() >= sharding.environment("fsdp").items()
