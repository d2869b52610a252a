"""Where state lives and which backend runs the work, read from the environment."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from goldpath.core.errors import MachineError, SpecError, from_os_error

_ELSEWHERE = "Set GOLDPATH_HOME to a folder that you can write to."
BACKENDS = ("local", "kubernetes")
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def home() -> Path:
    """The folder of all state: `GOLDPATH_HOME`, else `.goldpath` in the current folder. Absolute, safe to delete."""
    return Path(os.environ.get("GOLDPATH_HOME") or ".goldpath").expanduser().absolute()


def state(*parts: str) -> Path:
    """A folder below `home()`, created if missing.

    Raises:
        MachineError: the disk is full or read-only.
    """
    folder = home().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise from_os_error(error, folder) from error
        raise MachineError(f"cannot make {folder} ({error.strerror})", _ELSEWHERE) from error
    if not os.access(folder, os.W_OK):
        raise MachineError(f"no permission to write {folder}", _ELSEWHERE)
    return folder


def backend() -> str:
    """`GOLDPATH_BACKEND` if set; else `kubernetes` inside a cluster pod and `local` everywhere else."""
    chosen = os.environ.get("GOLDPATH_BACKEND") or ("kubernetes" if _IN_CLUSTER.exists() else "local")
    if chosen not in BACKENDS:
        raise SpecError(f"GOLDPATH_BACKEND is {chosen!r}", f"Set it to one of: {', '.join(BACKENDS)}.")
    return chosen


def model_account() -> str:
    """`GOLDPATH_MODEL_ACCOUNT`: the service account whose Secrets read models for services and caches of a namespace;
    empty leaves it to the namespace's default one."""
    return os.environ.get("GOLDPATH_MODEL_ACCOUNT", "").strip()


def run_id() -> str:
    """The run that this process works for; empty outside a run."""
    return os.environ.get("GOLDPATH_RUN", "")


def tracking_uri() -> str:
    """Where MLflow tracks and registers: `MLFLOW_TRACKING_URI`, else SQLite under `home()`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state() / 'mlflow.db'}"


def run_dir() -> Path | None:
    """The folder of the run that this process works for; None outside a run on this machine."""
    folder = os.environ.get("GOLDPATH_RUN_DIR")
    return Path(folder) if folder else None


def compiled_pipeline() -> Path | None:
    """The compiled YAML that the present run runs (`GOLDPATH_PIPELINE`); None where it is not known."""
    file = os.environ.get("GOLDPATH_PIPELINE")
    return Path(file) if file else None
