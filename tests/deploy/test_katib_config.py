"""The patch for Katib's ConfigMap: what it adds, what it keeps, and that it gives what Pod Security wants."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest
import yaml

from goldpath.core.checks import katib
from goldpath.training.specs import SearchSpec
from tests import schemas
from tests.deploy.conftest import katib_config, restricted
from tests.deploy.manifests import DEPLOY
from tests.training.manifests.test_training_golden import unrestricted


def inside(config: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(config["data"]["katib-config.yaml"]))


def test_each_algorithm_gets_a_pod_that_a_restricted_namespace_takes(ready: dict[str, Any]) -> None:
    before, after = inside(katib_config()), inside(ready)
    for old, new in zip(before["runtime"]["suggestions"], after["runtime"]["suggestions"], strict=True):
        context = new.pop("securityContext")
        assert new == old, "images and resources stay"
        container = {"name": "suggestion", "image": old["image"], "securityContext": context}
        # As the composer makes it: the container of the configuration, and nothing of the pod's own.
        pod = {"securityContext": {key: context[key] for key in ("runAsNonRoot", "seccompProfile")}}
        assert not unrestricted({**pod, "containers": [container]})
        assert not schemas.pod_problems({"containers": [container]})
        assert katib.passes({"securityContext": context})
        assert not katib.passes(old)
    assert after["init"]["controller"].pop("injectSecurityContext") is True
    after["runtime"]["suggestions"] = before["runtime"]["suggestions"]
    assert after == before, "everything else stays"


def test_the_patch_names_its_config_map_and_no_version_of_it(ready: dict[str, Any]) -> None:
    assert ready["metadata"] == {"name": "katib-config", "namespace": "kubeflow"}
    assert restricted(ready)["data"] == ready["data"], "twice is once"


def test_what_somebody_set_wins(ready: dict[str, Any]) -> None:
    config = katib_config()
    text = inside(config)
    text["runtime"]["suggestions"][0]["securityContext"] = {"runAsUser": 65532}
    text["init"]["controller"]["trialResources"] = ["Job.v1.batch"]
    config["data"]["katib-config.yaml"] = yaml.safe_dump(text)
    made = inside(restricted(config))
    assert made["runtime"]["suggestions"][0]["securityContext"]["runAsUser"] == 65532
    assert made["init"]["controller"]["trialResources"] == [
        "Job.v1.batch",
        "TrainJob.v1alpha1.trainer.kubeflow.org",
        "PyTorchJob.v1.kubeflow.org",
    ]


def test_what_is_no_config_of_katib_is_refused_in_a_line() -> None:
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "katib" / "restrict.py")],
        input="kind: List",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: standard input is no ConfigMap with katib-config.yaml")


@pytest.mark.parametrize(
    "harm",
    [
        {"allowPrivilegeEscalation": True},
        {"runAsNonRoot": False},
        {"runAsUser": 0},
        {"privileged": True},
        {"capabilities": {"drop": ["NET_RAW"]}},
        {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
        {"seccompProfile": {"type": "Unconfined"}},
    ],
)
def test_the_doctor_sees_what_pod_security_would_refuse(ready: dict[str, Any], harm: dict[str, Any]) -> None:
    text = inside(ready)
    text["runtime"]["suggestions"][0]["securityContext"] |= harm
    name = text["runtime"]["suggestions"][0]["algorithmName"]
    trial = "TrainJob.v1alpha1.trainer.kubeflow.org"
    (told,) = katib.lacks(yaml.safe_dump(text), restricted=True, trial=trial)
    assert f"the pods of {name}:" in told
    assert katib.lacks(yaml.safe_dump(text), restricted=False, trial=trial) == []


def test_every_algorithm_of_a_search_is_looked_at() -> None:
    known = {one["algorithmName"] for one in inside(katib_config())["runtime"]["suggestions"]}
    asked = get_args(SearchSpec.model_fields["algorithm"].annotation)
    assert set(katib.ALGORITHMS) == {*asked, "hyperband"}
    assert set(katib.ALGORITHMS) <= known
