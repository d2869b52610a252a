"""Component: the search for hyperparameters."""

from typing import Any

from kfp import dsl

from goldpath.components.base import component


@component
def tune(
    frame: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    chart: dsl.Output[dsl.HTML],
    result: dsl.Output[dsl.Artifact],
    method: str = "lora",
    max_trials: int = 3,
    algorithm: str = "tpe",
    seed: int = 7,
    gpu: str = "auto",
    overrides: dict[str, Any] = {},  # noqa: B006
) -> dict[str, Any]:
    """Search hyperparameters by short real trainings; every trial runs the same code as fine_tune.

    Args:
        frame: The training frame, from build_features.
        base: The base model, from import_model.
        chart: The trials as a picture.
        result: SearchResult as JSON.
        method: lora, full or qlora.
        max_trials: How many; 0 takes the hyperparameters as they are.
        algorithm: tpe, random, cmaes, bayesianoptimization, or grid (rates around the default, ranks too from 6 on).
        seed: Of the search and of every trial.
        gpu: The GPU request that plan_resources chose.
        overrides: {"tune": {...}}: fields of SearchSpec; {"fine_tune": {...}}: fields of TrainSpec.

    Returns:
        The hyperparameters to fine-tune with.
    """
    from pathlib import Path

    from goldpath.core.steps import step
    from goldpath.reporting.charts import objective_name
    from goldpath.reporting.fragments import trials_html
    from goldpath.reporting.numbers import plural
    from goldpath.training import search
    from goldpath.training.specs import SearchSpec, TrainSpec

    with step("tune") as running:
        asked = SearchSpec.from_form(
            max_trials=max_trials, algorithm=algorithm, seed=seed, overrides=overrides
        )
        train = TrainSpec.from_form(method=method, seed=seed, overrides=overrides, gpu=gpu)
        found = search.tune(
            frame.uri,
            frame.metadata["digest"],
            base.uri,
            base.metadata["digest"],
            asked,
            train,
        )
        Path(chart.path).write_text(trials_html(found.result), encoding="utf-8")
        best = found.result.best
        told = (
            f"best {objective_name(found.result.objective).lower()} {best.objective:.3f}"
            if best and best.objective is not None
            else "none gave a figure"
        )
        trials = len(found.result.trials)
        running.done(result.path, found, f"{plural(trials, 'trial')}, {told}" if trials else "no search")
        return found.result.hyperparameters
