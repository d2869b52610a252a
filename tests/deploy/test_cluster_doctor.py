"""`goldpath doctor` against a server that answers as a cluster does, through the real client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from goldpath.core.checks import needs
from goldpath.core.checks.api import connect
from goldpath.core.checks.results import Check, State
from goldpath.core.errors import MachineError
from goldpath.pipelines.doctor import Diagnosis, diagnose, namespace_of
from tests.accelerators.server import REVIEWS, Api, doctor, written
from tests.deploy.conftest import (
    CLASSES_OF_STORAGE,
    KATIB,
    KSERVE,
    NODE_GROUPS,
    SECRET,
    SETTINGS,
    SPACE,
    TRAINER,
    katib_config,
    lacks,
    named,
    restricted,
)

pytestmark = pytest.mark.counted


def looked(cluster: Path, account: str = "", namespace: str = "") -> Diagnosis:
    return diagnose(connect(str(cluster)), namespace, account)


def one(found: Diagnosis, name: str) -> Check:
    (check,) = [check for check in found.checks if check.name == name]
    return check


def missing(found: Diagnosis) -> dict[str, str]:
    return {check.name: check.note for check in found.checks if check.state is State.MISSING}


def test_a_cluster_with_everything_can_run_the_golden_path(cluster: Path) -> None:
    found = looked(cluster)
    assert found.can_run
    assert {check.state for check in found.checks} == {State.OK}
    assert not [check for check in found.checks if check.remedy]
    assert one(found, "Kubernetes").note.startswith("v1.36.2 at http://127.0.0.1")
    assert one(found, "Pod Security of goldpath").note == "enforces restricted"
    assert one(found, "training runtimes").note == "goldpath-torch"
    assert one(found, "serving runtimes").note == "goldpath-vllm"
    assert one(found, "default storage class").note == "fast"
    assert one(found, "node groups of the model cache").note == "gpu-nodes"
    assert "dra-extended, plugin, dra" in one(found, "GPUs").note


def test_every_verb_of_the_table_is_asked_once_where_it_counts(cluster: Path) -> None:
    looked(cluster)
    asked = sorted(
        (
            wanted["group"],
            "/".join(filter(None, [wanted["resource"], wanted.get("subresource")])),
            wanted["verb"],
            wanted.get("namespace", ""),
        )
        for wanted in Api.asked
    )
    assert asked == sorted(
        (use.group, use.plural, verb, "goldpath" if use in needs.NAMESPACED else "")
        for use in needs.NAMESPACED + needs.CLUSTER_WIDE
        for verb in use.verbs
    )
    assert Api.impersonated == {None}


def test_a_refused_verb_is_named(cluster: Path) -> None:
    Api.denied = {
        ("create", "trainjobs"),
        ("delete", "trainjobs"),
        ("get", "pods/log"),
        ("create", "scaledobjects"),
    }
    found = looked(cluster)
    assert not found.can_run
    assert missing(found) == {
        "you may: trainjobs": "not allowed in goldpath: create, delete",
        "you may: pods/log": "not allowed in goldpath: get",
        "you may: scaledobjects": "not allowed in goldpath: create",
    }
    assert "kubectl apply -k deploy/overlays" in one(found, "you may: trainjobs").remedy
    Api.denied = {("create", "scaledobjects")}
    assert looked(cluster).can_run, "the golden path does not need KEDA"


def test_permissions_of_the_service_account_are_asked_in_its_name(cluster: Path) -> None:
    assert looked(cluster, "goldpath-pipeline").can_run
    assert Api.impersonated == {"system:serviceaccount:goldpath:goldpath-pipeline"}
    Api.statuses = {REVIEWS: 403}
    found = looked(cluster, "goldpath-pipeline")
    assert not found.can_run
    asked = one(found, "goldpath-pipeline may: trainjobs")
    assert (asked.state, "impersonate" in asked.remedy) == (State.UNKNOWN, True)


@pytest.mark.parametrize(
    ("group", "first", "part"),
    [
        ("jobset.x-k8s.io", "jobsets (jobset.x-k8s.io/v1alpha2)", "Kubeflow Trainer 2.3"),
        ("serving.kserve.io", "inferenceservices (serving.kserve.io/v1beta1)", "KServe 0.20"),
    ],
)
def test_what_is_not_installed_is_named_with_its_command(
    cluster: Path, group: str, first: str, part: str
) -> None:
    lacks(group)
    if group == "jobset.x-k8s.io":
        lacks("kubeflow.org")  # with the old operator the Trainer would not be needed
    found = looked(cluster)
    assert not found.can_run
    assert one(found, first).note == f"{part} is not installed"
    assert one(found, first).required
    assert "kubectl apply" in one(found, first).remedy or "helm install" in one(found, first).remedy
    assert (
        not [check for check in found.checks if check.name == "you may: inferenceservices"]
        or "jobset" in group
    )


def test_what_the_golden_path_can_do_without_does_not_stop_it(cluster: Path) -> None:
    lacks("keda.sh")
    lacks("resource.k8s.io")
    Api.lists = {path: found for path, found in Api.lists.items() if "resource.k8s.io" not in path}
    Api.lists["/api/v1/nodes"], Api.lists[CLASSES_OF_STORAGE] = [], [named("slow")]
    Api.objects[SPACE] = named("goldpath")
    found = looked(cluster)
    assert found.can_run
    told = missing(found)
    assert told["scaledobjects (keda.sh/v1alpha1)"] == "KEDA is not installed"
    assert told["default storage class"] == "none of slow is the default"
    assert told["Pod Security of goldpath"] == "enforces nothing"
    assert told["GPUs"] == "no node offers any"
    assert all(one(found, name).remedy for name in told)


def test_an_older_release_is_told_from_none(cluster: Path) -> None:
    del Api.objects["/apis/serving.kserve.io/v1beta1"]
    Api.objects["/apis/serving.kserve.io"] = {"versions": [{"version": "v1alpha1"}, {"version": "v1alpha2"}]}
    note = one(looked(cluster), "inferenceservices (serving.kserve.io/v1beta1)").note
    assert note == "the cluster has v1alpha1, v1alpha2: another release than KServe 0.20"
    Api.objects["/apis/serving.kserve.io/v1alpha1"] = {"resources": [{"name": "servingruntimes"}]}
    cache = one(looked(cluster), "localmodelnamespacecaches (serving.kserve.io/v1alpha1)").note
    assert "without LocalModelNamespaceCache" in cache


def test_the_old_operator_trains_where_the_trainer_is_missing(cluster: Path) -> None:
    lacks("trainer.kubeflow.org")
    found = looked(cluster)
    assert found.can_run
    assert not one(found, "trainjobs (trainer.kubeflow.org/v1alpha1)").required
    assert one(found, "pytorchjobs (kubeflow.org/v1)").required
    assert one(found, "you may: pytorchjobs").required
    assert not [check for check in found.checks if check.name == "training runtimes"]
    del Api.objects["/apis/kubeflow.org/v1"]
    neither = looked(cluster)
    assert not neither.can_run
    assert one(neither, "trainjobs (trainer.kubeflow.org/v1alpha1)").required
    assert "pytorchjobs (kubeflow.org/v1)" in missing(neither)


def test_nobody_misses_the_old_operator_where_the_trainer_is(cluster: Path) -> None:
    del Api.objects["/apis/kubeflow.org/v1"]
    found = looked(cluster)
    assert found.can_run
    assert not missing(found)


def test_a_namespace_account_runtime_or_node_group_that_is_not_there_is_missing(cluster: Path) -> None:
    del Api.objects[f"{SPACE}/serviceaccounts/goldpath-pipeline"]
    Api.lists[f"{TRAINER}/clustertrainingruntimes"] = [named("torch-distributed")]
    made_by_a_step = {"app.kubernetes.io/part-of": "goldpath", "goldpath.io/run": "finetune-1"}
    Api.lists[f"{TRAINER}/namespaces/goldpath/trainingruntimes"] = [named("job-gpu", labels=made_by_a_step)]
    Api.lists[f"{KSERVE}/namespaces/goldpath/servingruntimes"] = []
    Api.lists[NODE_GROUPS] = []
    found = looked(cluster)
    assert set(missing(found)) == {
        "service account goldpath-pipeline",
        "training runtimes",
        "serving runtimes",
        "node groups of the model cache",
    }
    assert not found.can_run
    assert one(found, "serving runtimes").remedy == "kubectl apply -n goldpath -k deploy/serving"
    gone = looked(cluster, namespace="team")
    assert missing(gone)["namespace team"] == "not there"
    assert "`namespace: team`" in one(gone, "namespace team").remedy
    assert not [
        check.name for check in gone.checks if "goldpath " in check.remedy.replace("goldpath doctor", "")
    ]
    assert {wanted.get("namespace", "team") for wanted in Api.asked[-20:]} == {"team"}


def test_without_a_storage_the_golden_path_cannot_run(cluster: Path) -> None:
    name = "GOLDPATH_STORAGE in ConfigMap goldpath-settings"
    assert one(looked(cluster), name).note == "s3://bucket/goldpath"
    for data, said in (
        (None, "not set"),
        ({"GOLDPATH_STORAGE": " "}, "not set"),
        ({"GOLDPATH_STORAGE": "/mnt/models"}, "no bucket that every pod reaches"),
        ({"GOLDPATH_STORAGE": "file:///mnt/models"}, "no bucket that every pod reaches"),
        ({"GOLDPATH_STORAGE": "gs://team/models"}, "no bucket that every pod reaches by S3"),
    ):
        Api.objects[SETTINGS] = {"data": data}
        found = looked(cluster)
        assert (found.can_run, list(missing(found))) == (False, [name])
        assert said in missing(found)[name]
        assert "kubectl edit configmap -n goldpath goldpath-settings" in one(found, name).remedy
    del Api.objects[SETTINGS]
    found = looked(cluster)
    assert not found.can_run
    assert "kubectl create configmap -n goldpath goldpath-settings" in one(found, name).remedy


def test_settings_that_no_step_could_use_are_told(cluster: Path) -> None:
    storage = {"GOLDPATH_STORAGE": "s3://bucket/goldpath"}
    for data, said, can_run in (
        ({"GOLDPATH_TRAINER_IMAGE": "bad image"}, "'bad image' names no image", False),
        ({"GOLDPATH_KATIB_DB": "foo"}, "'foo' is no host:port", False),
        ({"MLFLOW_TRACKING_URL": "http://m"}, "no step reads it; near it: MLFLOW_TRACKING_URI", True),
    ):
        Api.objects[SETTINGS] = {"data": {**storage, **data}}
        found = looked(cluster)
        name = f"{next(iter(data))} in ConfigMap goldpath-settings"
        assert (found.can_run, missing(found)) == (can_run, {name: said})
    Api.objects[SETTINGS] = {"data": {**storage, "GOLDPATH_KATIB_DB": "katib-db.kubeflow:6789"}}
    assert looked(cluster).can_run


def test_credentials_are_looked_for_and_not_at(cluster: Path) -> None:
    assert one(looked(cluster), "Secret goldpath-storage").state is State.OK
    assert "PartialObjectMetadata" in Api.accepted[SECRET]
    del Api.objects[SECRET]
    found = looked(cluster)
    assert found.can_run, "pods may have an identity of their own"
    assert (
        "kubectl create secret generic -n goldpath goldpath-storage"
        in one(found, "Secret goldpath-storage").remedy
    )
    Api.statuses[SECRET] = 403
    assert one(looked(cluster), "Secret goldpath-storage").state is State.UNKNOWN


def test_katib_as_it_comes_is_refused_by_a_restricted_namespace(cluster: Path) -> None:
    Api.objects[KATIB] = katib_config()
    found = looked(cluster)
    told = one(found, "configuration of Katib")
    assert (found.can_run, told.state, told.required) == (False, State.MISSING, True)
    assert told.note == (
        "Pod Security restricted refuses the pods of random, grid, tpe, cmaes, bayesianoptimization, hyperband: "
        "no securityContext for them"
    )
    assert "python deploy/katib/restrict.py" in told.remedy
    Api.objects[SPACE] = named("goldpath", labels={"pod-security.kubernetes.io/enforce": "baseline"})
    assert looked(cluster).can_run


def test_katib_has_to_take_the_trials_that_the_cluster_can_run(cluster: Path) -> None:
    config = restricted(katib_config())
    text = config["data"]["katib-config.yaml"].replace("- PyTorchJob.v1.kubeflow.org\n", "")
    config["data"]["katib-config.yaml"] = text
    Api.objects[KATIB] = config
    assert looked(cluster).can_run
    lacks("trainer.kubeflow.org")
    note = one(looked(cluster), "configuration of Katib").note
    assert note == "trialResources has no PyTorchJob.v1.kubeflow.org"
    Api.objects[KATIB] = {"data": {"katib-config.yaml": "runtime: 7"}}
    assert one(looked(cluster), "configuration of Katib").state is State.MISSING


def test_a_katib_elsewhere_is_not_judged_and_without_katib_there_is_nothing_to_judge(cluster: Path) -> None:
    del Api.objects[KATIB]
    found = looked(cluster)
    assert found.can_run
    assert one(found, "configuration of Katib").state is State.UNKNOWN
    lacks("kubeflow.org")
    assert not [check for check in looked(cluster).checks if check.name == "configuration of Katib"]


def test_what_is_hidden_is_not_called_missing(cluster: Path) -> None:
    hidden = [SPACE, f"{TRAINER}/clustertrainingruntimes", CLASSES_OF_STORAGE, NODE_GROUPS, "/api/v1/nodes"]
    Api.statuses = dict.fromkeys(hidden, 403)
    Api.statuses |= dict.fromkeys([SETTINGS, KATIB], 403)
    Api.statuses["/apis/keda.sh/v1alpha1"] = 503
    found = looked(cluster)
    assert not missing(found)
    unknown = {check.name for check in found.checks if check.state is State.UNKNOWN}
    assert unknown == {
        "namespace goldpath",
        "GOLDPATH_STORAGE in ConfigMap goldpath-settings",
        "configuration of Katib",
        "training runtimes",
        "default storage class",
        "node groups of the model cache",
        "GPUs",
        "scaledobjects (keda.sh/v1alpha1)",
    }
    assert all(one(found, name).remedy for name in unknown)
    assert found.gpus is None
    assert not found.can_run, "whether it can is not known"


def test_who_asks_and_where_is_told_before_anything_else(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Api.statuses = {"/version": 401}
    with pytest.raises(MachineError, match="does not know you"):
        looked(cluster)
    Api.statuses, Api.objects["/version"] = {}, {"hello": "world"}
    with pytest.raises(MachineError, match="no Kubernetes API"):
        looked(cluster)
    elsewhere = connect(str(written(tmp_path / "team", "http://127.0.0.1:9", namespace="team")))
    assert namespace_of(elsewhere) == "team"
    assert namespace_of(connect(str(cluster))) == "goldpath"
    monkeypatch.setenv("GOLDPATH_NAMESPACE", "prod")
    assert (namespace_of(elsewhere), namespace_of(elsewhere, "given")) == ("prod", "given")


def test_the_command_shows_a_table_remedies_and_an_exit_code(cluster: Path) -> None:
    shown = doctor("--kubeconfig", str(cluster))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0].split() == ["CHECK", "STATE", "NEEDED", "NOTE"]
    assert "The golden path can run in goldpath." in shown.stdout
    lacks("kubeflow.org")
    poor = doctor("--kubeconfig", str(cluster))
    assert (poor.returncode, poor.stderr) == (1, "")
    assert "The golden path cannot run in goldpath yet: 2 of the needed checks are not ok." in poor.stdout
    katib = poor.stdout.partition("experiments (kubeflow.org/v1beta1), trials (kubeflow.org/v1beta1):\n")[2]
    assert katib.startswith("  kubectl apply -k 'https://github.com/kubeflow/katib")


def test_the_command_tells_programs(cluster: Path) -> None:
    Api.denied = {("create", "experiments")}
    asked = doctor(
        "--json", "-n", "goldpath", "--service-account", "goldpath-pipeline", "--kubeconfig", str(cluster)
    )
    told = json.loads(asked.stdout)
    assert (asked.returncode, told["available"], told["can_run"], told["namespace"]) == (
        1,
        True,
        False,
        "goldpath",
    )
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert states["goldpath-pipeline may: experiments"] == "missing"
    assert states["goldpath-pipeline may: trainjobs"] == "ok"
    assert told["gpus"]["nodes"] == 2


def test_without_a_cluster_it_says_so_in_one_line(tmp_path: Path) -> None:
    plain = doctor(HOME=str(tmp_path))
    assert (plain.returncode, plain.stdout, plain.stderr.count("\n")) == (2, "", 1)
    assert plain.stderr.startswith("error: no Kubernetes cluster is configured")
    assert "--kubeconfig" in plain.stderr
    dead = doctor("--json", "--kubeconfig", str(written(tmp_path / "dead", "http://127.0.0.1:9")))
    assert dead.returncode == 2
    assert json.loads(dead.stdout)["available"] is False
