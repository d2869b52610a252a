"""What the feature store hands back."""

from __future__ import annotations

from goldpath.core.spec import Result


class FeatureResult(Result):
    """A training frame.

    Files: `train.parquet`, `validation.parquet`, `test.parquet` (id, question, answer, messages, source).
    """

    feature_service: str
    as_of: str | None
    """The moment (ISO 8601, UTC) whose knowledge the frame holds; that of the newest document where none was asked."""
    rows: dict[str, int]
    """Rows by split."""
    digest: str
    """SHA-256 over the rows of each split in order."""
    documents_digest: str
    online_documents: int
    """Documents embedded into the online store."""
    embedding_model: str
    embedding_size: int
    online_store: str
    """Absolute folder of the online store, or `feast:VIEW?documents=N` in a shared one; hand it to `retrieve`."""


class Chunk(Result):
    """A retrieved document."""

    id: str
    text: str
    source: str
    score: float
    """Cosine similarity to the query."""
