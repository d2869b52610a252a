"""The container images that steps and jobs run in; their tag is the package's version (`deploy/images`)."""

from __future__ import annotations

import os
import re
from importlib.metadata import version

from goldpath.core.errors import SpecError

_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
REFERENCE = (
    rf"{_HOST}{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
"""What names an image: `[registry/]repository[:tag][@sha256:digest]`."""


def launcher() -> str:
    """Of steps that only start and watch work: kfp, goldpath, clients. `GOLDPATH_IMAGE` names another.

    Raises:
        SpecError: the variable names no image.
    """
    return _named("GOLDPATH_IMAGE", "launcher")


def trainer() -> str:
    """Of steps and jobs that compute: torch besides. `GOLDPATH_TRAINER_IMAGE` names another.

    Raises:
        SpecError: the variable names no image.
    """
    return _named("GOLDPATH_TRAINER_IMAGE", "trainer")


def _named(variable: str, ours: str) -> str:
    image = os.environ.get(variable) or f"goldpath/{ours}:{version('goldpath')}"
    if not re.fullmatch(REFERENCE, image):
        raise SpecError(
            f"{variable} is {image!r}, which names no image",
            "Give registry/repository:tag or registry/repository@sha256:digest, or unset it.",
        )
    return image
