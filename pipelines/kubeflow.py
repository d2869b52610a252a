"""What a step needs on Kubeflow and not on this machine; `kfp.local` passes over it, so that the YAML is the same.

The run's id comes from the label that Kubeflow Pipelines puts on each pod; where work is kept and registered comes
from the namespace: the ConfigMap `goldpath-settings` and the Secret `goldpath-storage` (`deploy/base`), both optional.
"""

from __future__ import annotations

from kfp import dsl, kubernetes

SETTINGS = "goldpath-settings"
SETTINGS_KEYS = (
    "GOLDPATH_STORAGE",
    "GOLDPATH_TRAINER_IMAGE",
    "GOLDPATH_MODEL_ACCOUNT",
    "GOLDPATH_KATIB_DB",
    "GOLDPATH_MODEL_REGISTRY",
    "GOLDPATH_FEATURE_STORE",
    "MLFLOW_TRACKING_URI",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
)
SECRET = "goldpath-storage"  # noqa: S105
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
RUN_LABEL = "pipeline/runid"


def prepare(*tasks: dsl.PipelineTask) -> None:
    """Give the tasks their run's id and the namespace's settings."""
    for task in tasks:
        kubernetes.use_field_path_as_env(task, "GOLDPATH_RUN", f"metadata.labels['{RUN_LABEL}']")
        kubernetes.use_config_map_as_env(task, SETTINGS, {key: key for key in SETTINGS_KEYS}, optional=True)
        kubernetes.use_secret_as_env(task, SECRET, {key: key for key in SECRET_KEYS}, optional=True)
