"""Component: a data set, read, cleaned and split."""

from typing import Any

from kfp import dsl

from goldpath.components.base import component


@component
def prepare_data(
    documents: dsl.Output[dsl.Dataset],
    card: dsl.Output[dsl.Markdown],
    result: dsl.Output[dsl.Artifact],
    dataset: str = "builtin://kube-api",
    seed: int = 7,
    overrides: dict[str, Any] = {},  # noqa: B006  (KFP's defaults are values in YAML)
) -> None:
    """Read chats, validate and normalise them, drop duplicates, redact PII, split by group.

    Args:
        documents: Folder with documents.parquet.
        card: The data card.
        result: DataCard as JSON.
        dataset: builtin://kube-api, or a path or URI (s3://, hf://, file://) of JSONL, Parquet or CSV.
        seed: Decides which group goes to which split.
        overrides: {"prepare_data": {...}}: fields of DatasetSpec.
    """
    from pathlib import Path

    from goldpath.core.steps import step
    from goldpath.training import datasets
    from goldpath.training.datasets.card import card_markdown
    from goldpath.training.specs import DatasetSpec

    with step("prepare_data") as running:
        spec = DatasetSpec.from_form(dataset=dataset, seed=seed, overrides=overrides)
        prepared = datasets.prepare(spec)
        found = prepared.result
        documents.uri = prepared.uri
        documents.metadata.update(digest=found.digest, rows=found.rows_out)
        Path(card.path).write_text(card_markdown(found), encoding="utf-8")
        running.done(result.path, prepared, f"{found.rows_out:,} of {found.rows_in:,} chats kept")
