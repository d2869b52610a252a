"""Component: the memory plan, and the GPU that the training gets."""

from typing import Any

from kfp import dsl

from goldpath.components.base import component


@component
def plan_resources(
    base: dsl.Input[dsl.Model],
    picture: dsl.Output[dsl.HTML],
    result: dsl.Output[dsl.Artifact],
    gpu: str = "auto",
    method: str = "lora",
    max_trials: int = 3,
    algorithm: str = "tpe",
    seed: int = 7,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> str:
    """Plan the memory of the fine-tuning from the model's config.json, choose a GPU, refuse what cannot fit.

    Args:
        base: The base model, from import_model.
        picture: The plan as a stacked bar against the memory that there is.
        result: ResourcePlan as JSON.
        gpu: A GPU request: auto, none, whole, mig:1g.10gb and so on.
        method: lora, full or qlora.
        max_trials: Of the search, whose largest batch and adapter count.
        algorithm: Of the search.
        seed: Of the form.
        overrides: {"plan_resources": {...}}: fields of PlanSpec; those of tune and fine_tune count, too.

    Returns:
        The GPU request that the training gets.
    """
    from pathlib import Path

    from goldpath.core import settings
    from goldpath.core.steps import step
    from goldpath.core.uris import local_path
    from goldpath.reporting.plan import plan_html
    from goldpath.reporting.plan import summary as told
    from goldpath.training import resources
    from goldpath.training.specs import SearchSpec, TrainSpec

    with step("plan_resources") as running:
        made = resources.plan_resources(
            resources.read_architecture(local_path(base.uri), base.metadata.get("source", "")),
            TrainSpec.from_form(method=method, seed=seed, overrides=overrides),
            SearchSpec.from_form(max_trials=max_trials, algorithm=algorithm, seed=seed, overrides=overrides),
            resources.PlanSpec.from_form(gpu=gpu, overrides=overrides),
            local=settings.backend() == "local",
        )
        Path(picture.path).write_text(plan_html(made), encoding="utf-8")
        running.done(result.path, made, told(made))
        return made.gpu
