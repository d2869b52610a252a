"""Component: base, tuned and champion judged on held-out data, and the gate."""

from typing import Any

from kfp import dsl

from goldpath.components.base import computing


@computing
def evaluate(
    frame: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    tuned: dsl.Input[dsl.Model],
    comparison: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    result: dsl.Output[dsl.Artifact],
    name: str = "kube-assistant",
    min_loss_drop: float = 0.1,
    max_pii_leak_rate: float = 0.02,
    seed: int = 7,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> str:
    """Score the models on the test split and put the tuned one through the gate.

    Args:
        frame: The training frame, from build_features; its test split is used.
        base: The base model.
        tuned: The fine-tuned model.
        comparison: Scores and answers side by side.
        metrics: The tuned model's figures.
        result: EvalResult as JSON; the champion's version as metadata, empty where there was none.
        name: Registered model whose champion is compared too, where there is one.
        min_loss_drop: Gate: held-out loss must fall by this fraction of the base model's.
        max_pii_leak_rate: Gate: share of generated answers that may hold personal data.
        seed: Decides which rows are sampled.
        overrides: {"evaluate": {...}}: fields of EvalSpec, "gate" among them.

    Returns:
        "accepted" or "rejected".
    """
    import math
    from pathlib import Path

    from goldpath.core.steps import step
    from goldpath.core.uris import local_path
    from goldpath.registry import models
    from goldpath.reporting.fragments import comparison_html
    from goldpath.training import evaluation
    from goldpath.training.specs import EvalSpec

    with step("evaluate") as running:
        spec = EvalSpec.from_form(
            min_loss_drop=min_loss_drop,
            max_pii_leak_rate=max_pii_leak_rate,
            seed=seed,
            overrides=overrides,
        )
        judged = {
            "base": (local_path(base.uri), base.metadata["digest"]),
            "tuned": (local_path(tuned.uri), tuned.metadata["digest"]),
        }
        champion = models.champion(name)
        result.metadata["champion"] = champion.version if champion else ""
        if champion is not None:
            judged["champion"] = (local_path(champion.uri), champion.lineage.model_digest)
        scored = evaluation.evaluate(local_path(frame.uri), frame.metadata["digest"], judged, spec)
        found = scored.result
        for score in found.scores:
            if math.isfinite(score.loss):  # KFP's metrics are JSON numbers
                metrics.log_metric(f"{score.name}_loss", score.loss)
        if math.isfinite(found.loss_drop):
            metrics.log_metric("loss_drop", found.loss_drop)
        Path(comparison.path).write_text(comparison_html(found), encoding="utf-8")
        verdict = "accepted" if found.passed else "rejected"
        running.done(result.path, scored, f"held-out loss {-found.loss_drop:+.1%}: {verdict}")
        return verdict
