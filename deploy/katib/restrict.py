"""Lets Katib's pods into namespaces with Pod Security "restricted": a patch for its ConfigMap katib-config.

    kubectl get configmap -n kubeflow katib-config -o yaml | python deploy/katib/restrict.py \\
      | kubectl patch configmap -n kubeflow katib-config --patch-file /dev/stdin
    kubectl rollout restart -n kubeflow deployment/katib-controller

The patch keeps what is configured (images, resources) and adds: a securityContext for each algorithm that has none, the
one of a trial for the metrics collector beside it, TrainJob and PyTorchJob as trials. Kept in a repository, it is a
patch for kustomize, too. An early stopping (medianstop) cannot be given one: EarlyStoppingConfig has no such field.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

KEY = "katib-config.yaml"
TRIALS = ("TrainJob.v1alpha1.trainer.kubeflow.org", "PyTorchJob.v1.kubeflow.org")
CONTEXT: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,  # Katib's images name no user, and would run as root
    "seccompProfile": {"type": "RuntimeDefault"},
}


def restrict(config: dict[str, Any]) -> dict[str, Any]:
    """Change a KatibConfig in place, and return it."""
    controller = config.setdefault("init", {}).setdefault("controller", {})
    controller["injectSecurityContext"] = True
    taken = controller.setdefault("trialResources", ["Job.v1.batch"])
    taken += [kind for kind in TRIALS if kind not in taken]
    for algorithm in config["runtime"]["suggestions"]:
        algorithm["securityContext"] = {**CONTEXT, **(algorithm.get("securityContext") or {})}
    return config


class Plain(yaml.SafeDumper):
    """Writes the same context out each time, and a text of several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        """Nothing is abbreviated."""
        return True


Plain.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, "|" if "\n" in text else None
    ),
)


def main() -> None:
    """Standard input to standard output."""
    try:
        given = yaml.safe_load(sys.stdin)
        config = restrict(yaml.safe_load(given["data"][KEY]))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        sys.exit(f"error: standard input is no ConfigMap with {KEY}: kubectl get configmap ... -o yaml")
    place = {key: given["metadata"][key] for key in ("name", "namespace")}
    patch = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": place}
    text = yaml.dump(config, Dumper=Plain, sort_keys=False)
    yaml.dump({**patch, "data": {KEY: text}}, sys.stdout, Dumper=Plain, sort_keys=False)


if __name__ == "__main__":
    main()
