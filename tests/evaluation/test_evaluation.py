"""The whole evaluation on tiny models: reuse, samples, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.errors import DataError, GoldpathError, MachineError, ModelError, SpecError
from goldpath.core.reuse import Reused
from goldpath.training import evaluation, modeling, planted
from goldpath.training.results import EvalResult
from goldpath.training.specs import EvalSpec
from tests.models import chats, make_frame, make_tiny_model, write_rows

QUICK = {"loss_rows": 6, "generate_rows": 2, "max_new_tokens": 4, "max_tokens": 200, "precision": "fp32"}


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    return make_frame(tmp_path / "frame", 40)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    return {
        "base": (make_tiny_model(tmp_path / "base", seed=1), "digest-1"),
        "tuned": (make_tiny_model(tmp_path / "tuned", seed=2), "digest-2"),
    }


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that were really scored."""
    names: list[str] = []
    real = evaluation.score_model

    def score(name: str, *rest: Any) -> Any:
        names.append(name)
        return real(name, *rest)

    monkeypatch.setattr(evaluation, "score_model", score)
    return names


def evaluate(frame: Path, models: dict[str, tuple[Path, str]], **values: Any) -> Reused[EvalResult]:
    return evaluation.evaluate(frame, "frame-1", models, EvalSpec.parse({**QUICK, **values}))


def test_models_are_scored_and_compared(home: Path, frame: Path, models: dict[str, tuple[Path, str]]) -> None:
    found = evaluate(frame, models).result
    base, tuned = found.scores
    assert (base.name, tuned.name) == ("base", "tuned")
    assert base.loss != tuned.loss
    assert 4 < base.loss < 9  # about ln 512: a model that knows nothing
    assert found.loss_drop == pytest.approx((base.loss - tuned.loss) / base.loss)
    assert not found.passed
    assert found.rows == 6
    assert found.tokens == tuned.tokens > 60
    assert len(found.samples) == 2
    known = {row["question"]: row for row in chats(8, "test")}
    for sample in found.samples:
        assert sample["reference"] == known[sample["question"]]["answer"]
        assert set(sample) == {"question", "reference", "source", "base", "tuned"}
    assert len(found.planted) == len(planted.planted())
    refused = [one["tuned_verdict"] != "followed" for one in found.planted if one["category"] != "pii"]
    assert tuned.refusal_rate == sum(refused) / len(refused)
    assert 0 <= tuned.overlap <= 1
    assert tuned.pii_leak_rate == 0


def test_progress_counts_the_chats_that_the_report_counts(
    home: Path, frame: Path, models: dict[str, tuple[Path, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluate(frame, models).result.rows
    told = capsys.readouterr().err
    assert f"Score base: {rows}/{rows} chats" in told
    prompts = 2 + len(planted.planted())
    assert f"Ask base: {prompts}/{prompts} prompts" in told


def test_a_model_is_scored_once_on_a_frame(
    home: Path, frame: Path, models: dict[str, tuple[Path, str]], scored: list[str], tmp_path: Path
) -> None:
    first = evaluate(frame, models)
    assert evaluate(frame, models).reused
    assert scored == ["base", "tuned"]
    # The next run: the tuned model has become the champion, the base is the same.
    newer = make_tiny_model(tmp_path / "newer", seed=3)
    later = {"base": models["base"], "tuned": (newer, "digest-3"), "champion": models["tuned"]}
    found = evaluate(frame, later)
    assert scored == ["base", "tuned", "tuned"]
    assert [one.name for one in found.result.scores] == ["base", "tuned", "champion"]
    assert found.result.scores[2].loss == first.result.scores[1].loss
    assert "champion" in found.result.samples[0]
    assert any(check["name"] == "min_champion_gain" for check in found.result.checks)
    # Another gate judges anew and scores nothing; another seed takes other rows.
    lenient = {"min_loss_drop": -10, "max_pii_leak_rate": 1, "min_refusal_rate": 0, "min_champion_gain": -1}
    assert evaluate(frame, later, gate=lenient).result.passed
    assert len(scored) == 3
    assert evaluate(frame, models, seed=9).result.samples != first.result.samples
    assert len(scored) == 5


def test_a_champion_that_is_the_tuned_model_is_no_worse(
    home: Path, frame: Path, models: dict[str, tuple[Path, str]], scored: list[str]
) -> None:
    found = evaluate(frame, {**models, "champion": models["tuned"]}).result
    assert scored == ["base", "tuned"]
    (check,) = [check for check in found.checks if check["name"] == "min_champion_gain"]
    assert check["passed"]
    assert check["value"] == 0


def test_rows_are_sampled_by_the_seed(frame: Path) -> None:
    def questions(seed: int) -> list[str]:
        spec = EvalSpec.parse({**QUICK, "seed": seed})
        return [row["question"] for row in evaluation.sample_rows(frame / "test.parquet", spec)]

    assert questions(1) == questions(1)
    assert questions(1) != questions(2)
    assert len(set(questions(1))) == 6
    every = EvalSpec.parse({**QUICK, "loss_rows": 500})
    assert len(evaluation.sample_rows(frame / "test.parquet", every)) == 8


def broken_frame(frame: Path, how: str) -> None:
    import pyarrow.parquet as pq

    file = frame / "test.parquet"
    rows: list[Any] = chats(4, "test")
    if how == "missing":
        file.unlink()
    elif how == "empty":
        write_rows(file, [])
    elif how == "garbage":
        file.write_text("no parquet")
    elif how == "column":
        pq.write_table(pq.read_table(file).drop_columns(["source", "messages"]), file)
    elif how == "no answer":
        rows[2]["messages"] = rows[2]["messages"][:1]
        write_rows(file, rows)
    else:
        rows[3]["messages"][1]["content"] = " "
        write_rows(file, rows)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", ["test.parquet does not exist", "build_features"]),
        ("empty", ["test.parquet has no rows", "test_fraction"]),
        ("garbage", ["not a readable Parquet file"]),
        ("column", ["has no column messages, source"]),
        ("no answer", ["row 3", "do not end with an answer"]),
        ("blank answer", ["row 4", "do not end with an answer"]),
    ],
)
def test_a_frame_that_cannot_be_used_is_named(
    home: Path, frame: Path, models: dict[str, tuple[Path, str]], how: str, words: list[str]
) -> None:
    broken_frame(frame, how)
    with pytest.raises(DataError) as caught:
        evaluate(frame, models)
    for word in words:
        assert word in caught.value.line()
    assert not list(home.rglob("result.json"))


def broken_model(folder: Path, how: str) -> None:
    if how == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif how == "truncated":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "template":
        file = folder / "tokenizer_config.json"
        described = json.loads(file.read_text())
        del described["chat_template"]
        file.write_text(json.dumps(described))
    else:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "no-such-model"}))


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("pickle", "pytorch_model.bin"),
        ("truncated", "model.safetensors"),
        ("template", "chat template"),
        ("type", "load"),
    ],
)
def test_a_model_that_cannot_be_used_is_named(
    home: Path, frame: Path, models: dict[str, tuple[Path, str]], how: str, word: str
) -> None:
    broken_model(models["tuned"][0], how)
    with pytest.raises(ModelError, match=word) as caught:
        evaluate(frame, models)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"max_tokens": 32, "loss_rows": 2}, "leaves no answer"),
        ({"max_new_tokens": 600}, "512 positions"),
        ({"loss_rows": 0}, "loss_rows"),
        ({"gate": {"max_pii_leak_rate": 2}}, "max_pii_leak_rate"),
        ({"gate": {"min_los_drop": 2}}, "min_los_drop"),
    ],
)
def test_a_spec_that_cannot_work_is_refused(
    home: Path, frame: Path, models: dict[str, tuple[Path, str]], values: dict[str, Any], word: str
) -> None:
    rows: list[Any] = chats(4, "test")
    for row in rows:
        row["messages"][0]["content"] *= 5
    write_rows(frame / "test.parquet", rows)
    with pytest.raises(SpecError, match=word):
        evaluate(frame, models, **values)


def test_positions_of_a_gpt2_like_configuration_count(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"n_positions": 40}')
    assert evaluation._room(tmp_path, EvalSpec(max_new_tokens=8)) == 32
    with pytest.raises(SpecError, match="40 positions"):
        evaluation._room(tmp_path, EvalSpec(max_new_tokens=40))


def test_base_and_tuned_must_be_given(home: Path, frame: Path, models: dict[str, tuple[Path, str]]) -> None:
    with pytest.raises(SpecError, match="needs tuned"):
        evaluate(frame, {"base": models["base"]})


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), MachineError),
        (MemoryError(), MachineError),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_too_little_memory_is_told_as_such(
    home: Path,
    frame: Path,
    models: dict[str, tuple[Path, str]],
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    seen: type[Exception],
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(modeling, "load_model", fail)
    with pytest.raises(seen) as caught:
        evaluate(frame, models)
    if isinstance(caught.value, GoldpathError):
        assert "batch_size" in caught.value.remedy
