"""The search for hyperparameters: Optuna proposes, short real trainings answer.

A trial is `finetune.train_once`, the code that the fine-tuning itself runs, with fewer steps. Every finished trial is
a line of `trials.jsonl` in the search's slot; an interrupted search replays those lines to the sampler and goes on
with the trials that are missing. Nothing is pickled, and a trial that was cut off is run again from its start.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from goldpath.core import settings
from goldpath.core.digest import code_digest, versions
from goldpath.core.errors import MachineError, SpecError, StepError
from goldpath.core.files import write_text
from goldpath.core.progress import Bar, emit, progress
from goldpath.core.reuse import Reused, reuse
from goldpath.core.uris import local_path
from goldpath.training import finetune, samplers
from goldpath.training.results import SearchResult, Trial
from goldpath.training.specs import Hyperparameters, SearchSpec, TrainSpec, search_values
from goldpath.training.tracking import Tracker

if TYPE_CHECKING:
    from optuna import Trial as Asked

EXPERIMENT = "goldpath-search"
_COLUMNS = {"train_loss": "loss"}
"""Objective to its column in a training's metrics, where that is named otherwise."""


def tune(
    frame: str | Path,
    frame_digest: str,
    base: str | Path,
    base_digest: str,
    search: SearchSpec,
    train: TrainSpec,
) -> Reused[SearchResult]:
    """Search hyperparameters; the same search on the same data is done once.

    Args:
        frame: folder or URI of `train.parquet` and `validation.parquet`.
        frame_digest: digest of its rows.
        base: folder or URI of the model to start from.
        base_digest: digest of its files.
        search: what to vary and how.
        train: everything else about a trial; its steps are `search.trial_steps`.

    Returns:
        The trials, the best of them, and the hyperparameters to fine-tune with. `path/trials.jsonl` has the trials.

    Raises:
        SpecError: the search does not fit the method of training.
        StepError: every trial failed.
        GoldpathError: what `finetune.train_once` says about the frame and the model.
    """
    search = applicable(search, train)
    template = samplers.trial_spec(search, train)
    inputs = {
        "frame": frame_digest,
        "base": base_digest,
        "search": search.model_dump(mode="json"),
        "train": template.work(),
        "code": code_digest("training", "core.hardware"),
        "libraries": versions(*finetune.LIBRARIES, "optuna", "cmaes"),
    }

    def build(slot: Path) -> SearchResult:
        if search.max_trials and settings.backend() == "kubernetes":
            from goldpath.training.backends import kubernetes

            return kubernetes.search(finetune.uri(frame), finetune.uri(base), search, train, slot.name)
        if not search.max_trials:
            return result(search, train, [])
        here = local_path(str(frame)), local_path(str(base))
        return result(search, train, _Search(*here, search, template, slot).run())

    return reuse("search", inputs, SearchResult, build, keep_partial=True)


def applicable(search: SearchSpec, train: TrainSpec) -> SearchSpec:
    """The search without parameters that the method does not have.

    Raises:
        SpecError: nothing is left to search, or what is left does not do for the algorithm.
    """
    if train.method != "full" or not search.max_trials:
        return search
    kept = tuple(p for p in search.parameters if not p.name.startswith("lora_"))
    if not kept:
        raise SpecError(
            f"the search varies {', '.join(p.name for p in search.parameters)}, "
            "and method full has no LoRA parameters",
            "Search learning_rate, batch_size, warmup_ratio or weight_decay, or choose method lora.",
        )
    return SearchSpec.parse({**search.model_dump(), "parameters": kept})


def result(search: SearchSpec, train: TrainSpec, trials: list[Trial]) -> SearchResult:
    """All trials, the best of them, and the hyperparameters to fine-tune with."""
    sign = 1 if search.goal == "minimize" else -1

    def rank(trial: Trial) -> tuple[bool, float, int]:
        assert trial.objective is not None  # noqa: S101
        return trial.status != "succeeded", sign * trial.objective, trial.number

    best = min(
        (t for t in trials if t.status != "failed" and t.objective is not None), key=rank, default=None
    )
    given = train.model_dump(include=set(Hyperparameters.model_fields))
    return SearchResult(
        objective=search.objective,
        goal=search.goal,
        algorithm=search.algorithm,
        best=best,
        hyperparameters={**given, **(best.parameters if best else {})},
        trials=trials,
    )


class _Search:
    """One search: asks the sampler, runs trials, tells it how they went, keeps a journal of them."""

    def __init__(self, frame: Path, base: Path, spec: SearchSpec, template: TrainSpec, slot: Path) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.frame, self.base, self.spec, self.template, self.slot = frame, base, spec, template, slot
        self.fixed = samplers.fixed_points(spec, template)
        self.total = len(self.fixed) if spec.algorithm == "grid" else spec.max_trials
        self.space = samplers.space(spec)
        self.study = optuna.create_study(
            study_name="goldpath", direction=spec.goal, pruner=samplers.pruner(spec)
        )
        self.journal = slot / "trials.jsonl"
        self.trials: dict[int, Trial] = {}
        self.lock = threading.RLock()
        self.stopping = threading.Event()

    def run(self) -> list[Trial]:
        """All trials, by number."""
        with progress("Search", self.total, "trials") as bar:
            for trial in self._read_journal():
                self._replay(trial)
            self._show(bar, 0)
            self._run_missing([n for n in range(self.total) if n not in self.trials], bar)
        trials = [self.trials[number] for number in sorted(self.trials)]
        shutil.rmtree(self.slot / "trials", ignore_errors=True)
        if all(trial.status == "failed" for trial in trials):
            self.journal.unlink()  # the next try begins anew
            raise StepError(
                f"all {len(trials)} trials of the search failed, the last with: {trials[-1].error}",
                "Mend that, or skip the search with max_trials=0.",
            )
        return trials

    def _run_missing(self, numbers: list[int], bar: Bar) -> None:
        if self.spec.parallel_trials == 1:
            for number in numbers:
                self._run(number, bar)
            return
        with ThreadPoolExecutor(self.spec.parallel_trials, thread_name_prefix="trial") as pool:
            futures = [pool.submit(self._run_or_stop, number, bar) for number in numbers]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self.stopping.set()  # running trials end at their next measure
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _run_or_stop(self, number: int, bar: Bar) -> None:
        try:
            self._run(number, bar)
        except BaseException:
            self.stopping.set()  # here, before this thread takes the next trial
            raise

    def _ask(self, number: int, point: dict[str, samplers.Value] | None = None) -> Asked:
        self.study.sampler = samplers.sampler(self.spec, number)
        if point is None and number < len(self.fixed):
            point = self.fixed[number]
        if point is not None:
            self.study.enqueue_trial(point)
        return self.study.ask(self.space)

    def _run(self, number: int, bar: Bar) -> None:
        if self.stopping.is_set():
            return
        with self.lock:
            asked = self._ask(number)
        parameters = self._values(asked)
        tracker = Tracker(EXPERIMENT, f"trial-{number}", parameters, {"goldpath.search": self.slot.name})
        run = _Run(self, asked, TrainSpec.parse({**self.template.model_dump(), **parameters}), tracker)
        began = time.monotonic()
        error = run.train(self.slot / "trials" / f"{number:04d}")
        if self.stopping.is_set():
            return
        trial = Trial(
            number=number,
            parameters=parameters,
            objective=run.objective,
            status="failed" if error else "stopped" if run.pruned else "succeeded",
            seconds=round(time.monotonic() - began, 2),
            curve=run.curve,
            error=error,
        )
        with self.lock:
            self._tell(asked, trial)
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(trial.model_dump_json() + "\n")
            self._show(bar, number)
        emit("trial", number=number, status=trial.status, objective=trial.objective, parameters=parameters)

    def _tell(self, asked: Asked, trial: Trial) -> None:
        from optuna.trial import TrialState

        self.trials[trial.number] = trial
        if trial.status == "succeeded":
            self.study.tell(asked, trial.objective)
        else:
            self.study.tell(asked, state=TrialState.PRUNED if trial.status == "stopped" else TrialState.FAIL)

    def _values(self, asked: Asked) -> dict[str, samplers.Value]:
        return search_values(self.spec, samplers.plain(asked.params))

    def _replay(self, trial: Trial) -> None:
        """Lead the sampler and the pruner through a finished trial: their state becomes what it was."""
        from optuna.trial import TrialState

        asked = self._ask(trial.number)
        if self._values(asked) != trial.parameters:  # trials ran side by side and ended in another order
            self.study.tell(asked, state=TrialState.FAIL)
            asked = self._ask(trial.number, trial.parameters)
        for step, value in trial.curve:
            asked.report(value, step)
            asked.should_prune()
        self._tell(asked, trial)

    def _read_journal(self) -> list[Trial]:
        """Finished trials of an interrupted search, by number; a line that was cut off is dropped."""
        if not self.journal.exists():
            return []
        found: dict[int, Trial] = {}
        for line in self.journal.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                trial = Trial.model_validate_json(line)
            except ValidationError:
                continue
            found[trial.number] = trial
        kept = [found[number] for number in sorted(found)]
        write_text(self.journal, "".join(trial.model_dump_json() + "\n" for trial in kept))
        return kept

    def _show(self, bar: Bar, number: int) -> None:
        values = [
            t.objective for t in self.trials.values() if t.status == "succeeded" and t.objective is not None
        ]
        info: dict[str, float | str] = {}
        if values:
            info["best"] = min(values) if self.spec.goal == "minimize" else max(values)
        bar.update(len(self.trials), self.total, **info)


class _Run:
    """One trial's training: reports its measures, and stops it where the pruner says so."""

    def __init__(self, search: _Search, asked: Asked, spec: TrainSpec, tracker: Tracker) -> None:
        self.search, self.asked, self.spec, self.tracker = search, asked, spec, tracker
        self.curve: list[tuple[int, float]] = []
        self.pruned = False
        self.diverged = False
        self.rows = 0

    @property
    def objective(self) -> float | None:
        """The last measure."""
        return self.curve[-1][1] if self.curve else None

    def train(self, out: Path) -> str:
        """Run it, tracked in MLflow; returns why it failed, empty where it did not."""
        status = "KILLED"
        try:
            error = self._train(out)
            status = "FAILED" if error else "FINISHED"
        finally:
            if self.rows:
                self.tracker.finish(status)
        return error

    def _train(self, out: Path) -> str:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        name = self.search.spec.objective
        try:
            finetune.train_once(
                self.search.frame,
                self.search.base,
                self.spec,
                out,
                on_metrics=self._on_metrics,
                save_model=False,
            )
        except (SpecError, StepError, MachineError) as error:
            if isinstance(error, SpecError) and not self._begun():
                raise  # not about this trial's values: no trial would fare better
            if not (self.pruned or self.diverged):
                return error.line()
        finally:
            shutil.rmtree(out, ignore_errors=True)
        if self.diverged:
            return f"{name} is not a finite number: the training diverged"
        return "" if self.curve else f"no {name} was measured"

    def _begun(self) -> bool:
        return self.rows > 0 or any(trial.status != "failed" for trial in self.search.trials.values())

    def _on_metrics(self, row: dict[str, float]) -> bool:
        self.rows += 1
        self.tracker.log(row)
        if self.search.stopping.is_set():
            return True
        value = self._measure(row)
        if value is None:
            return False
        step = int(row["step"])
        if not math.isfinite(value):
            self.diverged = True
            return True
        if self.curve and self.curve[-1][0] == step:  # measured twice: by the interval and at the end
            self.curve[-1] = (step, value)
            return False
        self.curve.append((step, value))
        with self.search.lock:
            self.asked.report(value, step)
            self.pruned = step < self.spec.max_steps and self.asked.should_prune()
        return self.pruned

    def _measure(self, row: dict[str, Any]) -> float | None:
        name = self.search.spec.objective
        found = row.get(_COLUMNS.get(name, name))
        return None if found is None else float(found)
