"""The training process, run here: methods, stops, resumes, and how it says what went wrong."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from goldpath.core.errors import DataError, GoldpathError, MachineError, SpecError, StepError
from goldpath.core.modelfiles import check_model_folder
from goldpath.training import loop, modeling, packing, worker
from goldpath.training.job import COMPLETE, Job, heard, say
from goldpath.training.specs import TrainSpec
from tests.models import make_tiny_model

pytestmark = pytest.mark.usefixtures("apart")
BASE: dict[str, Any] = {
    "max_steps": 4,
    "learning_rate": 5e-3,
    "sequence_length": 128,
    "checkpoint_steps": 2,
    "evaluate_steps": 2,
    "precision": "fp32",
}


def work(
    out: Path, frame: str | Path, base: str | Path, values: dict[str, Any], *more: str
) -> dict[str, Any]:
    """Run the worker; what it left in outcome.json, with its exit code."""
    out.mkdir(exist_ok=True)
    spec = out / "spec.json"
    spec.write_text(json.dumps({**BASE, **values}))
    asked = ["--spec", str(spec), "--frame", str(frame), "--base", str(base), "--out", out.as_uri()]
    code = worker.main([*asked, *more])
    return {"code": code, **json.loads((out / "outcome.json").read_text())}


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "values",
    [
        {"method": "lora", "lora_dropout": 0.1, "gradient_accumulation": 2, "batch_size": 2},
        {"method": "full", "learning_rate": 2e-3, "schedule": "linear", "weight_decay": 0.1},
        {"packing": False, "answer_only_loss": False, "gradient_checkpointing": True, "schedule": "constant"},
        {"method": "full", "precision": "bf16", "learning_rate": 2e-3},
    ],
    ids=["lora", "full", "plain", "bf16"],
)
# Of our own arguments, which transformers warns about as its own line.
@pytest.mark.filterwarnings("error:.gradient_checkpointing. is deprecated:FutureWarning")
def test_training_lowers_the_held_out_loss_and_leaves_a_model(
    tmp_path: Path, frame: Path, model: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    found = work(out, frame, model, values)
    assert found["code"] == 0
    made = rows(out)
    assert [row["step"] for row in made] == [1, 2, 3, 4]
    assert [row["step"] for row in made if "eval_loss" in row] == [2, 4]
    assert made[3]["eval_loss"] < made[1]["eval_loss"]
    assert made[0]["learning_rate"] > 0
    figures = found["figures"]
    assert figures["steps"] == 4
    assert figures["tokens"] > 4 * 4 * 20
    assert figures["peak_memory_bytes"] > 50e6
    assert figures["precision"] == values.get("precision", "fp32")
    check_model_folder(out / "model")
    tuned = AutoModelForCausalLM.from_pretrained(out / "model")
    assert tuned.dtype == torch.bfloat16
    assert (out / "model/generation_config.json").exists()
    assert (out / "adapter").exists() == (values.get("method") != "full")
    said = [heard(line) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in said if line and line["kind"] == "row"] == [
        {"kind": "row", **row} for row in made
    ]


def test_the_trainer_takes_sequences_from_the_pool_itself(tmp_path: Path, frame: Path, model: Path) -> None:
    """However many steps: what comes again is not laid out again, and the tokens of all steps are counted."""
    spec = TrainSpec.parse({**BASE, "max_steps": 60})
    job = Job(spec, frame, model, tmp_path, save_model=False)
    tokenizer = modeling.load_tokenizer(model)
    sequences, validation = loop._sequences(job, tokenizer)
    collate = packing.collator(tokenizer.pad_token_id)
    recorder = loop.Recorder(job, sequences, validation, collate)
    trainer = loop._trainer(job, modeling.load_model(model, spec), tokenizer, sequences, collate, recorder)
    taken = [batch["input_ids"] for batch in trainer.get_train_dataloader()]
    assert len(sequences) == 240 > len(sequences.pool)
    assert trainer.train_dataset is sequences
    assert len(taken) == 60
    for at, batch in enumerate(taken):
        wanted = collate([sequences[4 * at + i] for i in range(4)])["input_ids"]
        assert torch.equal(batch, wanted)
    found = work(tmp_path / "out", frame, model, {"max_steps": 3}, "--no-model")
    assert found["figures"]["tokens"] == sum(len(sequences[i].ids) for i in range(12))


def test_the_saved_model_is_the_trained_one(tmp_path: Path, frame: Path, model: Path) -> None:
    """The merged model scores the validation split as the last row says, up to bf16's rounding."""
    work(tmp_path, frame, model, {"learning_rate": 2e-2, "max_steps": 8})
    tokenizer = modeling.load_tokenizer(tmp_path / "model")
    sequences = packing.validation_sequences(
        frame / "validation.parquet", tokenizer, rows=48, length=128, packing=True, answer_only=True
    )
    found = {}
    for name, folder in (("base", model), ("tuned", tmp_path / "model")):
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        collate = packing.collator(tokenizer.pad_token_id)
        found[name] = loop.score(modeling.AnswerHead(network), network, sequences, collate, 4)
    assert found["tuned"]["eval_loss"] == pytest.approx(rows(tmp_path)[-1]["eval_loss"], rel=0.01)
    assert found["tuned"]["eval_loss"] < 0.9 * found["base"]["eval_loss"]
    assert found["tuned"]["eval_token_accuracy"] > found["base"]["eval_token_accuracy"]


def test_a_score_does_not_depend_on_the_batches(frame: Path, model: Path) -> None:
    tokenizer = modeling.load_tokenizer(model)
    network = AutoModelForCausalLM.from_pretrained(model).train()
    sequences = packing.validation_sequences(
        frame / "validation.parquet", tokenizer, rows=9, length=128, packing=False, answer_only=True
    )
    head, collate = modeling.AnswerHead(network), packing.collator(0)
    scores = [loop.score(head, network, sequences, collate, batch)["eval_loss"] for batch in (1, 2, 9)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-5)
    assert network.training


def test_a_trial_leaves_figures_only(tmp_path: Path, frame: Path, model: Path) -> None:
    found = work(tmp_path, frame, model, {}, "--no-model")
    assert found["figures"]["steps"] == 4
    assert {file.name for file in tmp_path.iterdir()} <= {
        "spec.json",
        "metrics.jsonl",
        "outcome.json",
        "checkpoints",
    }
    assert not list(tmp_path.rglob("*.safetensors"))


def test_inputs_may_be_uris(tmp_path: Path, frame: Path, model: Path) -> None:
    remote = fsspec.filesystem("memory")
    remote.put(str(frame), "/worker/frame", recursive=True)
    remote.put(str(model), "/worker/base", recursive=True)
    found = work(tmp_path, "memory://worker/frame", "memory://worker/base", {"max_steps": 1}, "--no-model")
    assert found["figures"]["steps"] == 1


def test_it_stops_after_its_step_when_asked(tmp_path: Path, frame: Path, model: Path) -> None:
    (tmp_path / "stop").touch()
    found = work(tmp_path, frame, model, {"max_steps": 500, "evaluate_steps": 1}, "--no-model")
    assert found["figures"]["stopped"]
    assert found["figures"]["steps"] == 1
    assert [row["step"] for row in rows(tmp_path)] == [1]


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, frame: Path, model: Path) -> None:
    """A kill while step 4's checkpoint was written: it goes on from step 2, and ends as if nothing had been."""
    whole = work(tmp_path / "whole", frame, model, {"max_steps": 6, "lora_dropout": 0.2})
    out = tmp_path / "torn"
    work(out, frame, model, {"max_steps": 6, "lora_dropout": 0.2})
    for step in (4, 6):
        kept = out / f"checkpoints/checkpoint-{step}"
        assert (kept / COMPLETE).exists()
        (kept / COMPLETE).unlink()
    make_earlier(out, tmp_path / "early", frame, model)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    again = work(out, frame, model, {"max_steps": 6, "lora_dropout": 0.2})
    assert again["figures"]["resumed_from"] == 2
    assert again["figures"]["tokens"] == whole["figures"]["tokens"]
    assert [row["step"] for row in rows(out)] == [1, 2, 3, 4, 5, 6]
    for mine, wanted in zip(rows(out), rows(tmp_path / "whole"), strict=True):
        assert {**mine, "tokens_per_second": 0} == {**wanted, "tokens_per_second": 0}
    first, second = (load_file(at / "adapter/adapter_model.safetensors") for at in (out, tmp_path / "whole"))
    assert all(np.array_equal(first[name], second[name]) for name in second)


def make_earlier(out: Path, scratch: Path, frame: Path, model: Path) -> None:
    """Put the checkpoint of step 2 back, which was rotated away: the same training, stopped before step 4 is saved."""
    work(scratch, frame, model, {"max_steps": 6, "lora_dropout": 0.2, "checkpoint_steps": 2})
    assert not (scratch / "checkpoints/checkpoint-2").exists()
    early = TrainSpec.parse({**BASE, "max_steps": 6, "lora_dropout": 0.2})
    job = Job(early, frame, model, scratch / "again")
    job.out.mkdir()
    recorder = loop.Recorder.on_save

    def stop_after_saving(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        recorder(self, args, state, control, **more)
        job.stop.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Recorder, "on_save", stop_after_saving)
        loop.train(job)
    (job.checkpoints / "checkpoint-2").rename(out / "checkpoints/checkpoint-2")


def spoiled(folder: Path, value: float) -> Path:
    make_tiny_model(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_training_says_so(tmp_path: Path, frame: Path, value: float) -> None:
    found = work(tmp_path / "out", frame, spoiled(tmp_path / "base", value), {})
    assert found["code"] == 2
    error = GoldpathError.from_dict(found["error"])
    assert isinstance(error, SpecError)
    assert "diverged at step 1" in error.message
    assert "lower learning_rate" in error.remedy
    assert not (tmp_path / "out/model").exists()


def test_errors_of_the_data_cross_over(tmp_path: Path, frame: Path, model: Path) -> None:
    found = work(
        tmp_path / "out", frame, model, {"sequence_length": 32, "answer_only_loss": True, "max_steps": 0}
    )
    assert GoldpathError.from_dict(found["error"]).message.startswith("max_steps is 0")
    (tmp_path / "empty").mkdir()
    found = work(tmp_path / "out", tmp_path / "empty", model, {})
    assert isinstance(GoldpathError.from_dict(found["error"]), DataError)


def test_a_model_of_unknown_kind_is_refused(tmp_path: Path, frame: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    found = work(tmp_path / "out", frame, base, {})
    assert "cannot load the" in found["error"]["message"]
    (base / "tokenizer.json").write_text("{}")
    (base / "config.json").write_text(json.dumps(config))
    found = work(tmp_path / "out", frame, base, {})
    assert "cannot load the tokenizer" in found["error"]["message"]


EXPLAINED: list[tuple[BaseException, type[GoldpathError], str]] = [
    (OSError(errno.ENOSPC, "No space left on device", "/x"), MachineError, "disk is full"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), MachineError, "disk is full"),
    (MemoryError(), MachineError, "out of memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MachineError, "out of memory"),
    (RuntimeError("CUDA out of memory. Tried"), MachineError, "out of memory"),
    (ZeroDivisionError("by zero"), StepError, "ZeroDivisionError: by zero"),
    (DataError("bad row", "Mend it."), DataError, "bad row"),
]


@pytest.mark.parametrize(("error", "kind", "said"), EXPLAINED, ids=[said for *_, said in EXPLAINED])
def test_what_ends_a_training_is_explained(
    error: BaseException, kind: type[GoldpathError], said: str
) -> None:
    shown = worker.explained(error)
    assert type(shown) is kind
    assert said in shown.line()


def test_a_failure_of_ours_keeps_its_traceback(
    tmp_path: Path,
    frame: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(loop, "train", fail)
    found = work(tmp_path, frame, model, {})
    assert found["error"]["type"] == "StepError"
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "error: training failed: ZeroDivisionError: of ours" in said


def test_a_reason_that_cannot_be_written_is_still_said(
    tmp_path: Path,
    frame: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: Any) -> None:
        raise MachineError("the disk is full: cannot write it", "Free some space.")

    monkeypatch.setattr(loop, "train", full)
    monkeypatch.setattr(worker, "write_json", full)
    spec = tmp_path / "spec.json"
    spec.write_text("{}")
    asked = ["--spec", str(spec), "--frame", str(frame), "--base", str(model), "--out", str(tmp_path)]
    assert worker.main(asked) == 2
    assert "error: the disk is full" in capsys.readouterr().err


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_rises_and_falls_and_is_never_idle(schedule: str) -> None:
    course = [loop.rate(step, 40, 0.1, schedule) for step in range(40)]
    assert course[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert course[4] == 1
    assert all(0 < at <= 1 for at in course)
    assert course[4:] == sorted(course[4:], reverse=True)
    assert (course[-1] == 1) == (schedule == "constant")
    assert loop.rate(0, 8, 0.0, schedule) == 1


def test_lines_for_the_parent_are_told_from_others(capsys: pytest.CaptureFixture[str]) -> None:
    say("row", {"step": 1.0})
    assert heard(capsys.readouterr().out.strip()) == {"kind": "row", "step": 1.0}
    for other in ("loss 3", "goldpath-training {", "goldpath-training 3"):
        assert heard(other) is None


def test_a_sequence_longer_than_the_model_is_refused(model: Path) -> None:
    with pytest.raises(SpecError, match=r"sequence_length is 1024 and llama at .* has 512 positions"):
        modeling.require_positions(model, TrainSpec.parse({"sequence_length": 1024}))


def test_positions_of_a_nested_configuration_count(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "two", "text_config": {"n_positions": 64}})
    )
    modeling.require_positions(tmp_path, TrainSpec.parse({"sequence_length": 64}))
    with pytest.raises(SpecError, match=r"sequence_length is 65 and two at .* has 64 positions"):
        modeling.require_positions(tmp_path, TrainSpec.parse({"sequence_length": 65}))


def test_qlora_asks_for_a_gpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TrainSpec.parse({"method": "qlora"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="qlora needs a CUDA GPU"):
        modeling.load_model(model, spec)


@pytest.mark.parametrize(("able", "wanted"), [({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32")])
def test_auto_precision_follows_the_hardware(
    able: dict[str, bool], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert modeling.precision("auto") == wanted
    assert modeling.precision("fp32") == "fp32"
