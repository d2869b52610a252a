"""Component: documents into the feature store, the training frame out of it."""

from typing import Any

from kfp import dsl

from goldpath.components.base import computing


@computing
def build_features(
    documents: dsl.Input[dsl.Dataset],
    frame: dsl.Output[dsl.Dataset],
    result: dsl.Output[dsl.Artifact],
    overrides: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Register the documents with Feast, take the point-in-time-correct training frame, embed documents for retrieval.

    Args:
        documents: Folder with documents.parquet, from prepare_data.
        frame: Folder with train.parquet, validation.parquet and test.parquet.
        result: FeatureResult as JSON.
        overrides: {"build_features": {...}}: fields of FeatureSpec.
    """
    from goldpath.core.steps import step
    from goldpath.core.uris import local_path
    from goldpath.feature_repo import store
    from goldpath.feature_repo.specs import FeatureSpec

    with step("build_features") as running:
        spec = FeatureSpec.parse({}, overrides.get("build_features"), "build_features")
        source = local_path(documents.uri) / "documents.parquet"
        built = store.build(source, documents.metadata["digest"], spec)
        found = built.result
        frame.uri = built.uri
        frame.metadata.update(digest=found.digest, online_store=found.online_store)
        running.done(
            result.path,
            built,
            f"{sum(found.rows.values()):,} rows in the frame, {found.online_documents:,} documents to retrieve from",
        )
