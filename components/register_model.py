"""Component: the model's version in the registry."""

from kfp import dsl

from goldpath.components.base import component


@component
def register_model(
    tuned: dsl.Input[dsl.Model],
    base: dsl.Input[dsl.Model],
    documents: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    training: dsl.Input[dsl.Artifact],
    registered: dsl.Output[dsl.Model],
    result: dsl.Output[dsl.Artifact],
    name: str = "kube-assistant",
    dataset: str = "",
    verdict: str = "rejected",
) -> None:
    """Register the model with its lineage; an accepted one becomes champion, a rejected one is kept as such.

    Args:
        tuned: The fine-tuned model.
        base: The base model.
        documents: The prepared data set.
        evaluation: EvalResult as JSON, with the version of the champion that it was compared with.
        training: TrainResult as JSON.
        registered: The registered version's folder.
        result: RegisteredVersion as JSON.
        name: Registered model.
        dataset: What the user called the data set.
        verdict: "accepted" or "rejected", from evaluate.
    """
    from goldpath.core.files import read_json
    from goldpath.core.steps import step
    from goldpath.core.uris import local_path
    from goldpath.registry import models
    from goldpath.registry.lineage import lineage_of_run
    from goldpath.reporting.story import standing

    with step("register_model") as running:
        scores = {score["name"]: score for score in read_json(evaluation.path)["result"]["scores"]}
        version = models.register(
            name,
            local_path(tuned.uri),
            lineage_of_run(
                dataset=dataset,
                dataset_digest=documents.metadata["digest"],
                base_model=base.metadata["source"],
                base_model_digest=base.metadata["digest"],
                model_digest=tuned.metadata["digest"],
            ),
            metrics={key: value for key, value in scores["tuned"].items() if key != "name"},
            parameters={k: str(v) for k, v in read_json(training.path)["result"]["hyperparameters"].items()},
            accepted=verdict == "accepted",
            compared_with=evaluation.metadata["champion"],
        )
        registered.uri = version.uri
        registered.metadata.update(version=version.version, digest=version.lineage.model_digest)
        state = standing(version.version, version.champion, accepted=verdict == "accepted")
        running.done(result.path, version, f"{name} version {version.version}: {state}")
