"""The container images that steps and jobs run in; their tag is the package's version (`deploy/images`)."""

from __future__ import annotations

import os
from importlib.metadata import version


def launcher() -> str:
    """Of steps that only start and watch work: kfp, goldpath, clients. `GOLDPATH_IMAGE` names another."""
    return os.environ.get("GOLDPATH_IMAGE") or f"goldpath/launcher:{version('goldpath')}"


def trainer() -> str:
    """Of steps and jobs that compute: torch besides. `GOLDPATH_TRAINER_IMAGE` names another."""
    return os.environ.get("GOLDPATH_TRAINER_IMAGE") or f"goldpath/trainer:{version('goldpath')}"
