"""Component: the fine-tuning."""

from typing import Any

from kfp import dsl

from goldpath.components.base import component


@component
def fine_tune(
    frame: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    tuned: dsl.Output[dsl.Model],
    curves: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    result: dsl.Output[dsl.Artifact],
    hyperparameters: dict[str, Any] = {},  # noqa: B006
    method: str = "lora",
    max_steps: int = 30,
    seed: int = 7,
    gpu: str = "auto",
    overrides: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Fine-tune with TRL and PEFT in a child process, as a TrainJob's pod would; goes on from its last checkpoint.

    Args:
        frame: The training frame, from build_features.
        base: The base model, from import_model.
        tuned: Folder with the merged model, ready to serve.
        curves: Loss and speed as a picture.
        metrics: Final figures.
        result: TrainResult as JSON.
        hyperparameters: From tune; fields of Hyperparameters.
        method: lora, full or qlora.
        max_steps: Optimizer steps.
        seed: Of data order, initial adapter and dropout.
        gpu: The GPU request that plan_resources chose.
        overrides: {"fine_tune": {...}}: fields of TrainSpec.
    """
    from pathlib import Path

    from goldpath.core.steps import step
    from goldpath.reporting.fragments import curves_html
    from goldpath.reporting.story import train_loss_note
    from goldpath.training import finetune
    from goldpath.training.specs import TrainSpec

    with step("fine_tune") as running:
        spec = TrainSpec.from_form(
            method=method,
            max_steps=max_steps,
            seed=seed,
            overrides=overrides,
            hyperparameters=hyperparameters,
            gpu=gpu,
        )
        trained = finetune.fine_tune(
            frame.uri,
            frame.metadata["digest"],
            base.uri,
            base.metadata["digest"],
            spec,
        )
        found = trained.result
        tuned.uri = f"{trained.uri}/model"
        tuned.metadata.update(digest=found.model_digest, method=found.method)
        metrics.log_metric("train_loss", found.train_loss)
        if found.eval_loss is not None:
            metrics.log_metric("eval_loss", found.eval_loss)
        Path(curves.path).write_text(curves_html(found), encoding="utf-8")
        loss = f"training loss {found.train_loss:.3f} ({train_loss_note(found)})"
        running.done(result.path, trained, f"{found.steps} steps, {found.tokens:,} tokens, {loss}")
