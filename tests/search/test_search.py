"""The search: algorithms against what is known of them, resuming, failures. Trials here are a bowl, not a training."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from goldpath.core.errors import Interrupted, ModelError, SpecError, StepError
from goldpath.core.reuse import Reused
from goldpath.training import finetune, search
from goldpath.training.results import SearchResult
from goldpath.training.specs import SearchSpec, TrainSpec

Metrics = Callable[[dict[str, float]], bool]
RATE = {"name": "learning_rate", "type": "double", "min": 1e-5, "max": 1e-1, "log": True}
DECAY = {"name": "weight_decay", "type": "double", "min": 0, "max": 1}


def bowl(spec: TrainSpec) -> float:
    """Lowest (1.0) at learning_rate 1e-3 and weight_decay 0.3."""
    return 1 + (math.log10(spec.learning_rate) + 3) ** 2 + (5 * (spec.weight_decay - 0.3)) ** 2


class Trainer:
    """Stands in for `train_once`: measures the bowl, on its way down, every `evaluate_steps`."""

    def __init__(self) -> None:
        self.seen: list[TrainSpec] = []
        self.steps_done: list[int] = []
        self.value: Callable[[TrainSpec], float] = bowl
        self.before: Callable[[int], None] = lambda count: None
        self.lock = threading.Lock()

    def __call__(
        self, frame: Path, base: Path, spec: TrainSpec, out: Path, *, on_metrics: Metrics, save_model: bool
    ) -> None:
        assert not save_model
        assert not any(out.iterdir())
        with self.lock:
            self.seen.append(spec)
            count = len(self.seen)
        self.before(count)
        (out / "metrics.jsonl").write_text("left behind by a training")
        step = 0
        for step in range(1, spec.max_steps + 1):
            stop = on_metrics({"step": step, "loss": 100.0})
            if step % spec.evaluate_steps == 0 or step == spec.max_steps:
                value = self.value(spec) + (spec.max_steps - step) * 0.01
                stop = on_metrics({"step": step, "eval_loss": value, "eval_token_accuracy": 1 / value})
            if stop:
                break
        self.steps_done.append(step)


class Notebook:
    """Stands in for MLflow: keeps how each tracked trial ended."""

    ended: ClassVar[list[tuple[str, str, int]]] = []

    def __init__(self, experiment: str, name: str, parameters: dict[str, Any], tags: dict[str, str]) -> None:
        self.name = name
        self.rows: list[dict[str, float]] = []

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def finish(self, status: str) -> None:
        self.ended.append((self.name, status, len(self.rows)))


@pytest.fixture
def trainer(home: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer()
    monkeypatch.setattr(finetune, "train_once", made)
    monkeypatch.setattr(search, "Tracker", Notebook)
    monkeypatch.setattr(Notebook, "ended", [])
    return made


def tune(values: dict[str, Any], train: dict[str, Any] | None = None) -> Reused[SearchResult]:
    spec = SearchSpec.parse(
        {"parameters": [RATE, DECAY], "start_from_given": False, "trial_steps": 8, **values}
    )
    return search.tune(Path("frame"), "f", Path("base"), "b", spec, TrainSpec.parse(train or {}))


def objectives(found: Reused[SearchResult]) -> list[float | None]:
    return [trial.objective for trial in found.result.trials]


def without_times(found: Reused[SearchResult]) -> dict[str, Any]:
    kept = found.result.model_dump()
    for trial in [*kept["trials"], kept["best"]]:
        trial.pop("seconds")
    return kept


def test_the_best_trial_goes_on_top_of_the_given_hyperparameters(trainer: Trainer) -> None:
    found = tune({"max_trials": 6}, {"batch_size": 2, "seed": 3, "max_steps": 99})
    best = found.result.best
    assert best is not None
    assert best.objective == min(objectives(found)) == pytest.approx(bowl(trainer.seen[best.number]))
    assert found.result.hyperparameters["learning_rate"] == trainer.seen[best.number].learning_rate
    assert found.result.hyperparameters["batch_size"] == 2
    assert TrainSpec.parse(found.result.hyperparameters).lora_rank == 16
    assert {(spec.max_steps, spec.seed, spec.batch_size) for spec in trainer.seen} == {(8, 3, 2)}
    assert all(trial.curve == [(8, trial.objective)] for trial in found.result.trials)
    assert not (found.path / "trials").exists()


def test_the_given_hyperparameters_are_the_first_trial(trainer: Trainer) -> None:
    found = tune({"max_trials": 2, "start_from_given": True}, {"learning_rate": 2e-3, "weight_decay": 0.25})
    assert found.result.trials[0].parameters == {"learning_rate": 2e-3, "weight_decay": 0.25}


def test_a_search_is_done_once(trainer: Trainer) -> None:
    first, again = tune({}), tune({}, {"max_steps": 400, "checkpoint_steps": 3})
    assert again.reused
    assert again.result == first.result
    assert len(trainer.seen) == 3
    assert not tune({}, {"batch_size": 2}).reused


@pytest.mark.parametrize("algorithm", ["random", "tpe", "cmaes"])
def test_a_seed_decides_every_trial(
    trainer: Trainer, algorithm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {"algorithm": algorithm, "max_trials": 9, "seed": 5}
    first = tune(values)
    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "other"))
    assert without_times(tune(values)) == without_times(first)
    assert objectives(tune({**values, "seed": 6})) != objectives(first)


def best_of(algorithm: str, seed: int) -> float:
    best = tune({"algorithm": algorithm, "max_trials": 30, "seed": seed}).result.best
    assert best is not None
    assert best.objective is not None
    return best.objective - 1


@pytest.mark.parametrize("algorithm", ["tpe", "cmaes"])
def test_an_algorithm_that_learns_beats_random_on_a_bowl(trainer: Trainer, algorithm: str) -> None:
    seeds = range(8)
    learned = sum(best_of(algorithm, seed) for seed in seeds) / len(seeds)
    blind = sum(best_of("random", seed) for seed in seeds) / len(seeds)
    assert learned < 0.7 * blind


def test_random_fills_a_log_scale_evenly(trainer: Trainer) -> None:
    tune({"algorithm": "random", "max_trials": 120})
    below = sum(spec.learning_rate < 1e-3 for spec in trainer.seen)
    assert 40 <= below <= 80


def test_a_grid_visits_every_point_once(trainer: Trainer) -> None:
    parameters = [
        {"name": "learning_rate", "type": "discrete", "list": [0.0001, 0.001, 0.01]},
        {"name": "weight_decay", "type": "double", "min": 0, "max": 0.6, "step": 0.3},
    ]
    found = tune({"algorithm": "grid", "max_trials": 50, "parameters": parameters})
    seen = [(spec.learning_rate, round(spec.weight_decay, 6)) for spec in trainer.seen]
    assert seen == [(rate, decay) for rate in (0.0001, 0.001, 0.01) for decay in (0, 0.3, 0.6)]
    assert found.result.best is not None
    assert found.result.best.number == 4
    assert found.result.best.objective == pytest.approx(1)


def test_an_accuracy_is_maximised(trainer: Trainer) -> None:
    found = tune({"objective": "eval_token_accuracy", "goal": "maximize", "max_trials": 5})
    assert found.result.best is not None
    assert found.result.best.objective == max(objectives(found))


def test_the_training_loss_can_be_the_objective(trainer: Trainer) -> None:
    found = tune({"objective": "train_loss", "max_trials": 1})
    assert found.result.trials[0].curve == [(step, 100.0) for step in range(1, 9)]


def test_the_median_rule_stops_a_bad_trial_early(trainer: Trainer) -> None:
    rates = [0.001, 0.002, 0.0005, 0.1]
    parameters = [{"name": "learning_rate", "type": "discrete", "list": rates}]
    early = {"algorithm": "medianstop", "min_trials": 3, "start_step": 4}
    found = tune({"algorithm": "grid", "max_trials": 4, "parameters": parameters, "early_stopping": early})
    assert [trial.status for trial in found.result.trials] == ["succeeded"] * 3 + ["stopped"]
    assert trainer.steps_done == [8, 8, 8, 4]
    assert found.result.trials[3].curve[-1][0] == 4
    assert found.result.best is not None
    assert found.result.best.parameters == {"learning_rate": 0.001}


def test_hyperband_spends_fewer_steps_and_keeps_a_good_trial(trainer: Trainer) -> None:
    early = {"algorithm": "hyperband", "start_step": 1}
    found = tune({"algorithm": "random", "max_trials": 30, "trial_steps": 9, "early_stopping": early})
    stopped = [trial for trial in found.result.trials if trial.status == "stopped"]
    assert len(stopped) >= 8
    assert sum(trainer.steps_done) < 0.75 * 30 * 9
    assert found.result.best is not None
    assert found.result.best.status == "succeeded"
    every = sorted(bowl(spec) for spec in trainer.seen)
    assert found.result.best.objective in [pytest.approx(value) for value in every[:8]]


@pytest.mark.parametrize("algorithm", ["random", "grid", "tpe", "cmaes"])
def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(
    trainer: Trainer, algorithm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"algorithm": algorithm, "max_trials": 9}
    if algorithm == "grid":
        values["parameters"] = [
            {"name": "learning_rate", "type": "discrete", "list": [1e-4, 1e-3, 1e-2]},
            {"name": "weight_decay", "type": "discrete", "list": [0, 0.1, 0.3]},
        ]
    if algorithm == "random":
        values["early_stopping"] = {"algorithm": "hyperband", "start_step": 1}
    whole = without_times(tune(values))

    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "other"))
    trainer.seen.clear()

    def cut(count: int) -> None:
        if count == 6:
            raise Interrupted("stopped by SIGTERM")

    trainer.before = cut
    with pytest.raises(Interrupted):
        tune(values)
    (journal,) = (tmp_path / "other").rglob("trials.jsonl")
    with journal.open("a") as file:
        file.write('{"number": 5, "parameters": {"learn')  # as kill -9 may leave it
    trainer.seen.clear()
    trainer.before = lambda count: None
    resumed = tune(values)
    assert without_times(resumed) == whole
    assert len(trainer.seen) == 4  # five were kept
    assert [json.loads(line)["number"] for line in journal.read_text().splitlines()] == list(range(9))


def test_a_failed_trial_is_recorded_and_the_search_goes_on(trainer: Trainer) -> None:
    def fail(count: int) -> None:
        if count == 2:
            raise StepError("training ended with code 1: out of memory")

    trainer.before = fail
    found = tune({"max_trials": 4})
    assert [trial.status for trial in found.result.trials] == [
        "succeeded",
        "failed",
        "succeeded",
        "succeeded",
    ]
    assert found.result.trials[1].objective is None
    assert "out of memory" in found.result.trials[1].error


def test_a_trial_that_diverges_is_a_failed_one(trainer: Trainer) -> None:
    trainer.value = lambda spec: math.nan if spec.learning_rate > 1e-3 else 1.0
    parameters = [{"name": "learning_rate", "type": "discrete", "list": [0.001, 0.01]}]
    found = tune({"algorithm": "grid", "parameters": parameters})
    assert [trial.status for trial in found.result.trials] == ["succeeded", "failed"]
    assert "diverged" in found.result.trials[1].error
    assert Notebook.ended == [("trial-0", "FINISHED", 9), ("trial-1", "FAILED", 9)]


def test_a_search_whose_trials_all_fail_says_why_and_can_be_tried_again(trainer: Trainer) -> None:
    def fail(count: int) -> None:
        raise StepError(f"training ended with code {count}", "Give a smaller batch_size.")

    trainer.before = fail
    told = r"all 3 trials of the search failed, the last with: .* code 3\. Give a smaller batch_size"
    with pytest.raises(StepError, match=told):
        tune({})
    trainer.before = lambda count: None
    assert tune({}).result.best is not None


def test_a_mistake_of_the_user_ends_the_search_at_once(trainer: Trainer) -> None:
    def refuse(count: int) -> None:
        raise ModelError("base has pickle weights")

    trainer.before = refuse
    with pytest.raises(ModelError):
        tune({})
    with pytest.raises(ModelError):
        tune({"parallel_trials": 2, "max_trials": 9})
    assert len(trainer.seen) <= 3, "one, then two side by side, and none after them"


def test_a_training_that_refuses_its_values_after_it_began_is_a_failed_trial(trainer: Trainer) -> None:
    parameters = [{"name": "learning_rate", "type": "discrete", "list": [0.001, 0.01]}]

    def refuse(count: int) -> None:
        if count == 2:
            raise SpecError("the training diverged: loss nan at step 1", "Give a lower learning_rate.")

    trainer.before = refuse
    found = tune({"algorithm": "grid", "parameters": parameters})
    assert [trial.status for trial in found.result.trials] == ["succeeded", "failed"]
    trainer.before = lambda count: refuse(2)
    with pytest.raises(SpecError, match="diverged"):
        tune({"algorithm": "grid", "parameters": parameters, "seed": 1})


def test_a_trial_without_a_measure_fails(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "train_once", lambda *args, **kwargs: None)
    with pytest.raises(StepError, match="no eval_loss was measured"):
        tune({"max_trials": 1})


def test_no_trials_give_back_what_was_given(trainer: Trainer) -> None:
    found = tune({"max_trials": 0}, {"learning_rate": 3e-4}).result
    assert found.best is None
    assert found.trials == []
    assert found.hyperparameters["learning_rate"] == 3e-4
    assert not trainer.seen


def test_full_fine_tuning_does_not_search_lora(trainer: Trainer) -> None:
    rank = {"name": "lora_rank", "type": "int", "min": 8, "max": 32}
    found = tune({"parameters": [RATE, rank]}, {"method": "full"})
    assert set(found.result.trials[0].parameters) == {"learning_rate"}
    with pytest.raises(SpecError, match="no LoRA parameters"):
        tune({"parameters": [rank]}, {"method": "full"})


@pytest.mark.parametrize(("method", "size"), [("lora", 6), ("full", 3)])
def test_the_default_grid_is_visited_once(trainer: Trainer, method: str, size: int) -> None:
    spec = SearchSpec.from_form(max_trials=6, algorithm="grid", seed=1, overrides={})
    train = TrainSpec.from_form(method=method, seed=1, overrides={})
    found = search.tune(Path("frame"), "f", Path("base"), "b", spec, train).result
    assert len({(one.learning_rate, one.lora_rank) for one in trainer.seen}) == len(found.trials) == size
    assert found.hyperparameters["learning_rate"] == 1e-3  # the bowl's lowest point


def test_parallel_trials_run_side_by_side(trainer: Trainer) -> None:
    together = threading.Barrier(2)
    trainer.before = lambda count: together.wait(timeout=20) and None
    found = tune({"parallel_trials": 2, "max_trials": 6})
    assert [trial.number for trial in found.result.trials] == list(range(6))
    assert len({spec.learning_rate for spec in trainer.seen}) == 6


def test_an_interrupted_parallel_search_keeps_what_was_finished(trainer: Trainer, home: Path) -> None:
    def cut(count: int) -> None:
        if count == 4:
            raise Interrupted("stopped by SIGTERM")

    trainer.before = cut
    values = {"parallel_trials": 2, "max_trials": 6}
    with pytest.raises(Interrupted):
        tune(values)
    (journal,) = home.rglob("trials.jsonl")
    kept = {json.loads(line)["number"]: json.loads(line) for line in journal.read_text().splitlines()}
    assert 2 <= len(kept) <= 5  # the other thread may finish some before it is told
    trainer.before = lambda count: None
    trainer.seen.clear()
    found = tune(values)
    assert [trial.number for trial in found.result.trials] == list(range(6))
    assert len(trainer.seen) == 6 - len(kept)
    for number, trial in kept.items():
        assert found.result.trials[number].parameters == trial["parameters"]
