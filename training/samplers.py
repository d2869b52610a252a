"""Search spaces, samplers and pruners: a `SearchSpec`, which speaks Katib's terms, in Optuna's.

| ours | Optuna |
|---|---|
| double, int (step, log) | FloatDistribution, IntDistribution |
| categorical, discrete | CategoricalDistribution |
| random, tpe, cmaes | RandomSampler, TPESampler, CmaEsSampler |
| bayesianoptimization | GPSampler |
| grid | the points themselves, enqueued in order |
| medianstop, hyperband | MedianPruner, HyperbandPruner |
"""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

from goldpath.core.digest import digest_json
from goldpath.training.specs import Hyperparameters, SearchParameter, SearchSpec, TrainSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

Value = float | int | str


def space(spec: SearchSpec) -> dict[str, BaseDistribution]:
    """The feasible space, by parameter name."""
    return {parameter.name: _distribution(parameter) for parameter in spec.parameters}


def _distribution(parameter: SearchParameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.list:
        return CategoricalDistribution(parameter.list)
    low, high = parameter.min or 0.0, parameter.max or 0.0
    if parameter.type == "int":
        return IntDistribution(int(low), int(high), log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.log, step=parameter.step)


def grid(spec: SearchSpec) -> list[dict[str, Value]]:
    """Every point of the grid, the last parameter changing fastest."""
    names = [parameter.name for parameter in spec.parameters]
    axes = [parameter.grid() for parameter in spec.parameters]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*axes)]


def fixed_points(spec: SearchSpec, given: Hyperparameters) -> list[dict[str, Value]]:
    """The points that are not left to the sampler: the whole grid, or the given hyperparameters as the first trial."""
    if spec.algorithm == "grid":
        return grid(spec)
    point = {parameter.name: getattr(given, parameter.name) for parameter in spec.parameters}
    inside = all(_contains(parameter, point[parameter.name]) for parameter in spec.parameters)
    return [point] if spec.start_from_given and inside else []


def _contains(parameter: SearchParameter, value: Value) -> bool:
    if parameter.list:
        return value in parameter.list
    if isinstance(value, str) or parameter.min is None or parameter.max is None:
        return False
    return parameter.min <= value <= parameter.max and (
        parameter.step is None
        or abs((value - parameter.min) - round((value - parameter.min) / parameter.step) * parameter.step)
        < 1e-9
    )


def sampler(spec: SearchSpec, number: int) -> BaseSampler:
    """The sampler that proposes trial `number`.

    Every trial gets a sampler of its own, seeded by the search's seed and the trial's number. What it proposes then
    depends on the trials before it alone, so that a search that goes on after an interruption proposes what it would
    have proposed without.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    seed = int(digest_json([spec.seed, number])[:8], 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if spec.algorithm == "tpe":
            startup = max(2, min(10, spec.max_trials // 3))
            return samplers.TPESampler(
                seed=seed, n_startup_trials=startup, constant_liar=spec.parallel_trials > 1
            )
        if spec.algorithm == "cmaes":
            return samplers.CmaEsSampler(
                seed=seed, n_startup_trials=1, independent_sampler=samplers.RandomSampler(seed=seed)
            )
        if spec.algorithm == "bayesianoptimization":
            startup = max(2, min(10, spec.max_trials // 3))
            return samplers.GPSampler(
                seed=seed,
                n_startup_trials=startup,
                independent_sampler=samplers.RandomSampler(seed=seed),
                deterministic_objective=False,
            )
        return samplers.RandomSampler(seed=seed)


def pruner(spec: SearchSpec) -> BasePruner:
    """What stops trials early."""
    from optuna import pruners

    early = spec.early_stopping
    if early.algorithm == "medianstop":
        return pruners.MedianPruner(n_startup_trials=early.min_trials, n_warmup_steps=early.start_step)
    if early.algorithm == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, early.start_step), max_resource=spec.trial_steps)
    return pruners.NopPruner()


def evaluation_interval(spec: SearchSpec) -> int:
    """Optimizer steps between two measures of a trial: often enough for early stopping, else only at the end."""
    early = spec.early_stopping
    if early.algorithm == "none":
        return spec.trial_steps
    return max(1, min(early.start_step or 1, spec.trial_steps // 4))


def trial_spec(search: SearchSpec, train: TrainSpec) -> TrainSpec:
    """What a trial trains, before its parameters: the training with the trial's number of steps."""
    return train.model_copy(
        update={
            "max_steps": search.trial_steps,
            "evaluate_steps": evaluation_interval(search),
            "checkpoint_steps": search.trial_steps,
        }
    )


def plain(values: dict[str, Any]) -> dict[str, Value]:
    """Parameters as plain Python values (samplers may hand NumPy's)."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
