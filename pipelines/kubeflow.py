"""What a step needs on Kubeflow and not on this machine; `kfp.local` passes over it, so that the YAML is the same.

    task = run_trainjob(...)
    for_kubeflow(task)

The run's id comes from the label that Kubeflow Pipelines puts on each pod; where work is kept and registered comes
from objects of the namespace, all optional (`core/environment.py`; docs/settings.md).
"""

from __future__ import annotations

from kfp import dsl, kubernetes

from goldpath.core import environment, images

RUN_LABEL = "pipeline/runid"
LAUNCHES = ("200m", "1Gi")
"""CPU and memory that a step asks for which starts and watches work, prepares data or brings files."""
COMPUTES = ("2", "8Gi")
"""The same of a step that loads models itself."""


def for_kubeflow(*tasks: dsl.PipelineTask) -> None:
    """Give the tasks what they need on Kubeflow: their run's id, the namespace's settings, a place on a node.

    Steps of goldpath do not work there without it, so call it with each task of a pipeline of your own. Each asks for
    CPU and memory, which a quota wants; what you set on the task afterwards (`set_memory_request`) counts instead.
    There are no limits: what a step takes grows with the model, and a limit would end it there.
    """
    for task in tasks:
        kubernetes.use_field_path_as_env(task, "GOLDPATH_RUN", f"metadata.labels['{RUN_LABEL}']")
        kubernetes.use_config_map_as_env(
            task, environment.SETTINGS, environment.variables(environment.SETTINGS), optional=True
        )
        for secret in (environment.STORAGE, environment.TRACKING):
            kubernetes.use_secret_as_env(task, secret, environment.variables(secret), optional=True)
        kubernetes.use_config_map_as_volume(
            task, environment.CERTIFICATES, environment.CERTIFICATES_AT, optional=True
        )
        # Pod Security "restricted" wants this said; the rest of it Pipelines sets itself.
        kubernetes.set_security_context(task, run_as_non_root=True)
        spec = task.container_spec
        cpu, memory = COMPUTES if spec is not None and spec.image == images.trainer() else LAUNCHES
        task.set_cpu_request(cpu)
        task.set_memory_request(memory)
