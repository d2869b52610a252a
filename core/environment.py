"""What the pods of a namespace are told, key by key: which of its objects holds it, and who reads it.

A key that two objects may hold has a variable of its own for each, for the API server refuses two of one name:
`settle` makes one of them as a process begins.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

SETTINGS = "goldpath-settings"
"""The ConfigMap of what is no secret."""
STORAGE = "goldpath-storage"
"""The Secret of the object storage and of the model hub."""
TRACKING = "goldpath-mlflow"
"""The Secret of MLflow's server."""
CERTIFICATES = "goldpath-certificates"
"""The ConfigMap whose `ca.crt` holds the certificates to trust: all of them, the public ones too."""
CERTIFICATES_AT = "/etc/goldpath/certificates"
"""Where it is mounted."""
_BUNDLE = "ca.crt"
_TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""What OpenSSL and httpx, requests (MLflow), and botocore read."""
_OTHERWISE = "GOLDPATH_OTHERWISE_"


@dataclass(frozen=True)
class Key:
    """One variable of a pod's environment."""

    name: str
    sources: tuple[str, ...]
    """ConfigMap and Secrets that may hold it; the first that does wins."""
    jobs: bool = False
    """Whether the pods of trainings read it, besides the pipeline's steps."""

    def variable(self, source: str) -> str:
        """What the variable is called that is read from `source`."""
        return self.name if source == self.sources[0] else f"{_OTHERWISE}{self.name}"


KEYS = (
    Key("GOLDPATH_STORAGE", (SETTINGS,)),
    Key("GOLDPATH_TRAINER_IMAGE", (SETTINGS,)),
    Key("GOLDPATH_MODEL_ACCOUNT", (SETTINGS,)),
    Key("GOLDPATH_KATIB_DB", (SETTINGS,)),
    Key("GOLDPATH_MODEL_REGISTRY", (SETTINGS,)),
    Key("GOLDPATH_FEATURE_STORE", (SETTINGS,)),
    Key("MLFLOW_TRACKING_URI", (SETTINGS,)),
    Key("MLFLOW_TRACKING_TOKEN", (TRACKING,)),
    Key("MLFLOW_TRACKING_USERNAME", (TRACKING,)),
    Key("MLFLOW_TRACKING_PASSWORD", (TRACKING,)),
    Key("AWS_ACCESS_KEY_ID", (STORAGE,), jobs=True),
    Key("AWS_SECRET_ACCESS_KEY", (STORAGE,), jobs=True),
    Key("AWS_SESSION_TOKEN", (STORAGE,), jobs=True),
    Key("AWS_ENDPOINT_URL", (STORAGE, SETTINGS), jobs=True),
    Key("AWS_REGION", (STORAGE, SETTINGS), jobs=True),
    Key("HF_TOKEN", (STORAGE,), jobs=True),
)


def variables(source: str, *, jobs: bool = False) -> dict[str, str]:
    """Key in an object of the namespace to the variable that it becomes.

    Args:
        source: name of the object.
        jobs: only what the pods of trainings read.
    """
    return {
        key.name: key.variable(source) for key in KEYS if source in key.sources and (key.jobs or not jobs)
    }


def settle(environ: MutableMapping[str, str] | None = None) -> None:
    """Make one variable of each key, and set what libraries read under names of their own.

    Args:
        environ: this process's by default. What is set stays.
    """
    here = os.environ if environ is None else environ
    for key in KEYS:
        if not here.get(key.name) and (other := here.get(f"{_OTHERWISE}{key.name}")):
            here[key.name] = other
    if region := here.get("AWS_REGION"):
        here.setdefault("AWS_DEFAULT_REGION", region)  # the only one that botocore reads
    bundle = Path(CERTIFICATES_AT, _BUNDLE)
    if bundle.is_file():
        for name in _TRUST:
            here.setdefault(name, str(bundle))
