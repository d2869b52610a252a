"""What can be asked of the feature store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, field_validator

from goldpath.core.spec import Spec


class FeatureSpec(Spec):
    """How the training frame is taken from the feature store."""

    as_of: datetime | None = None
    """Documents as they were known at this moment (UTC if no zone is given); none: the newest version of each."""
    chunk_rows: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000
    """Rows joined at a time, which bounds memory."""
    online_rows: Annotated[int, Field(ge=0, le=10_000_000)] = 1_500
    """At most this many documents are embedded into the online store for retrieval (the rest stay offline)."""

    @field_validator("as_of")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
