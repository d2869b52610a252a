"""The features of a document, as Feast defines them: entity, sources, views, the service that training asks.

`feast apply` in this folder reads this file. The sources are `documents.parquet` and `embeddings.parquet` in
`GOLDPATH_FEATURES` (a folder below `GOLDPATH_HOME/features/`), else in `.goldpath/` beside this file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String

CHAT_FEATURES = ("question", "answer", "messages", "source", "group", "split")


class Definitions(NamedTuple):
    """Everything that is applied to a registry."""

    document: Entity
    documents: FileSource
    embeddings: FileSource
    document_chat: FeatureView
    document_embedding: FeatureView
    finetune: FeatureService


def define(folder: Path, suffix: str = "") -> Definitions:
    """The definitions over the two files in `folder`; names of all but the entity end with `suffix`."""
    document = Entity(
        name="document",
        join_keys=["id"],
        value_type=ValueType.STRING,
        description="A question with its answer; a later version has the same id and a later event_timestamp.",
    )
    documents = FileSource(
        name=f"documents{suffix}", path=str(folder / "documents.parquet"), timestamp_field="event_timestamp"
    )
    embeddings = FileSource(
        name=f"embeddings{suffix}", path=str(folder / "embeddings.parquet"), timestamp_field="event_timestamp"
    )
    document_chat = FeatureView(
        name=f"document_chat{suffix}",
        entities=[document],
        schema=[Field(name=name, dtype=String) for name in ("id", *CHAT_FEATURES)],
        source=documents,
        online=False,
        description="What a model is trained on; messages are JSON: [{role, content}, ...].",
    )
    document_embedding = FeatureView(
        name=f"document_embedding{suffix}",
        entities=[document],
        schema=[
            Field(name="id", dtype=String),
            Field(name="vector", dtype=Array(Float32), vector_index=True, vector_search_metric="COSINE"),
            # The id once more, as a feature: Feast 0.67 hands the entity's own values of a vector search back in
            # another order than the features.
            Field(name="document_id", dtype=String),
            Field(name="text", dtype=String),
            Field(name="source", dtype=String),
        ],
        source=embeddings,
        online=True,
        description="What is retrieved for a prompt: unit vectors of 384 numbers (all-MiniLM-L6-v2) and the text.",
    )
    finetune = FeatureService(
        name=f"finetune{suffix}", features=[document_chat], description="The training frame of a fine-tuning."
    )
    return Definitions(document, documents, embeddings, document_chat, document_embedding, finetune)


document, documents, embeddings, document_chat, document_embedding, finetune = define(
    Path(os.environ.get("GOLDPATH_FEATURES") or Path(__file__).parent / ".goldpath").absolute()
)
