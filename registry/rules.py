"""What holds in every registry: the verdicts, and who may take over."""

from __future__ import annotations

from goldpath.core import settings
from goldpath.core.errors import StepError

ACCEPTED, REJECTED = "accepted", "rejected"


def overtaken(name: str, champion: str, compared_with: str) -> StepError:
    """The error where another version became champion than the one that a model was compared with."""
    run = settings.run_id()
    first = f"`goldpath run --resume {run}`" if run else "Evaluate the model again"
    return StepError(
        f"version {champion} of {name} became champion meanwhile, and this model was compared with "
        + (f"version {compared_with}" if compared_with else "none"),
        f"{first}: what is finished is reused, and the model is compared with version {champion}.",
    )
