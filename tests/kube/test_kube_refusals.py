"""Bad input and refusals: one line that names the thing, and a remedy, at once where it can be known at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldpath.core.checks import needs
from goldpath.core.errors import GoldpathError, MachineError, SpecError
from goldpath.core.kubernetes import Cluster, ClusterError, Ref, Retry
from goldpath.core.kubernetes.errors import Answer, explain
from tests.kube import Faults, Refusal, Server
from tests.kube.conftest import Connect
from tests.kube.things import Thing, config_map, train_job

WEBHOOK = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: no runtime "torch"'
QUOTA = "trainjobs is forbidden: exceeded quota: gpus, requested: gpu=8, used: gpu=1, limited: gpu=4"
SECURITY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
UNCOUNTED = 'trainjobs.trainer.kubeflow.org "x" is forbidden: status unknown for quota: goldpath, resources: count/x.y'
NOBODY = (
    'pods "x" is forbidden: error looking up service account team-a/model-reader: '
    'serviceaccount "model-reader" not found'
)
LONG = "Too long: may not be more than 1048576 bytes"


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal(403, "Forbidden", WEBHOOK), r"validator\.trainjob.* refused it: no runtime \"torch\""),
        (Refusal(400, "BadRequest", WEBHOOK), r"validator\.trainjob.* refused it: no runtime \"torch\""),
        (
            Refusal(403, "Forbidden", QUOTA),
            r"the quota gpus is exceeded \(requested: gpu=8.*Ask for less",
        ),
        (Refusal(403, "Forbidden", SECURITY), r"Pod Security 'restricted:latest' forbids it: runAsNonRoot"),
        (
            Refusal(403, "Forbidden", NOBODY),
            r"there is no service account 'model-reader' in team-a.*kubectl create serviceaccount model-reader",
        ),
        (
            Refusal(422, "Invalid", f"ConfigMap is invalid: {LONG}", [{"field": "[]", "message": LONG}]),
            "it is too large",
        ),
        (
            Refusal(
                403, "Forbidden", "unable to create new content in namespace x because it is being terminated"
            ),
            "namespace is being deleted",
        ),
        (
            Refusal(422, "Invalid", "invalid", [{"field": "spec.numNodes", "message": "must be at least 1"}]),
            r"spec\.numNodes: must be at least 1",
        ),
        (
            Refusal(
                422, "Invalid", "invalid", [{"field": "spec.runtimeRef", "message": "Value is immutable"}]
            ),
            r"spec\.runtimeRef cannot be changed once it exists.*Remove the object first",
        ),
        (
            Refusal(400, "BadRequest", 'strict decoding error: unknown field "spec.podSpecOverrides"'),
            r"this cluster's version of the kind has no spec\.podSpecOverrides",
        ),
        (Refusal(413, "RequestEntityTooLarge", "limit is 3145728"), "too large.*URI"),
        (Refusal(401, "Unauthorized", "Unauthorized"), "does not accept the credentials.*Log in"),
    ],
)
def test_a_refusal_says_what_and_what_to_do(
    server: Server, cluster: Cluster, refusal: Refusal, said: str
) -> None:
    def refuse(new: Thing, old: Thing | None) -> None:
        raise refusal

    server.admit("TrainJob", refuse)
    with pytest.raises(ClusterError, match=f"cannot create TrainJob team-a/job: .*{said}") as error:
        cluster.create_or_adopt(train_job())
    assert error.value.remedy
    assert len(error.value.line().splitlines()) == 1
    assert sum(method == "POST" for method, *_ in server.requests) == 1  # a mistake is not tried again


def test_a_field_that_cannot_change_is_refused(server: Server, cluster: Cluster) -> None:
    def immutable(new: Thing, old: Thing | None) -> None:
        if old and new["spec"]["runtimeRef"] != old["spec"]["runtimeRef"]:
            message = 'Invalid value: "object": field is immutable'
            raise Refusal(422, "Invalid", message, [{"field": "spec.runtimeRef", "message": message}])

    server.admit("TrainJob", immutable)
    cluster.create_or_adopt(train_job())
    with pytest.raises(ClusterError, match=r"change TrainJob team-a/job: spec\.runtimeRef cannot be changed"):
        cluster.change(Ref.of(train_job()), lambda job: job["spec"].update(runtimeRef={"name": "mpi"}))


def test_a_field_that_the_cluster_does_not_know_is_refused_not_dropped(
    server: Server, cluster: Cluster
) -> None:
    server.lack_field("TrainJob", "runtimePatches")
    patched = train_job(runtimePatches=[])
    said = r"this cluster's version of the kind has no spec\.runtimePatches"
    with pytest.raises(ClusterError, match=said):
        cluster.create_or_adopt(patched)
    with pytest.raises(ClusterError, match=said):
        cluster.dry_run(patched)
    cluster.create_or_adopt(train_job())
    with pytest.raises(ClusterError, match=said):
        cluster.change(Ref.of(patched), lambda job: job["spec"].update(runtimePatches=[]))


def test_a_verb_that_is_denied_names_it_and_how_to_check(server: Server, cluster: Cluster) -> None:
    server.deny("create", "trainjobs")
    with pytest.raises(ClusterError) as error:
        cluster.create_or_adopt(train_job())
    line = error.value.line()
    assert (
        "system:serviceaccount:team-a:pipeline may not create trainjobs.trainer.kubeflow.org in team-a"
        in line
    )
    assert "kubectl auth can-i create trainjobs.trainer.kubeflow.org" in line


def test_a_cluster_without_the_kind_says_what_brings_it(server: Server, cluster: Cluster) -> None:
    server.lack("TrainJob")
    with pytest.raises(MachineError, match=r"no TrainJob \(trainer.*installed: Kubeflow Trainer 2\.3"):
        cluster.create_or_adopt(train_job())
    assert not cluster.has("trainer.kubeflow.org/v1alpha1", "TrainJob")


@pytest.mark.parametrize(
    ("kind", "api_version", "brings"),
    [
        ("Experiment", "kubeflow.org/v1beta1", needs.KATIB),
        ("PyTorchJob", "kubeflow.org/v1", needs.OPERATOR),
        ("JobSet", "jobset.x-k8s.io/v1alpha2", needs.TRAINER),
        ("LLMInferenceService", "serving.kserve.io/v1alpha2", needs.LLM),
        ("LocalModelNamespaceCache", "serving.kserve.io/v1alpha1", needs.MODEL_CACHE),
        ("Suggestion", "kubeflow.org/v1beta1", needs.KATIB),
    ],
)
def test_what_brings_a_kind_is_what_the_doctor_says(
    server: Server, cluster: Cluster, kind: str, api_version: str, brings: needs.Part
) -> None:
    server.lack(kind)
    with pytest.raises(MachineError, match=rf"no {kind} .*installed: {brings.name}\. `goldpath doctor`"):
        cluster.create_or_adopt({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}})


def test_another_version_is_named(server: Server, cluster: Cluster) -> None:
    server.lack("LLMInferenceService", but="v1alpha1")
    wanted = {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": "x"},
    }
    with pytest.raises(
        MachineError, match=r"LLMInferenceService as serving\.kserve\.io/v1alpha1 only, v1alpha2 is needed"
    ):
        cluster.create_or_adopt(wanted)


@pytest.mark.parametrize(
    ("name", "said"), [("x" * 64, "has 64 characters, 63 are allowed"), ("A_b", "cannot name a TrainJob")]
)
def test_a_name_that_cannot_be_one_is_refused_before_it_is_sent(
    server: Server, cluster: Cluster, name: str, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        cluster.create_or_adopt(train_job(name))
    assert not [method for method, *_ in server.requests if method == "POST"]


def test_a_namespace_that_is_not_there(connect: Connect) -> None:
    with pytest.raises(ClusterError, match=r"has no namespace 'nowhere'.*kubectl create namespace nowhere"):
        connect(namespace="nowhere").create_or_adopt(config_map())


def test_a_server_that_keeps_failing_is_given_up(server: Server) -> None:
    cluster = Cluster.connect(
        run="r", step="s", retry=Retry(limit_s=1, sleep=lambda seconds: None, clock=_ticks())
    )
    assert cluster.get(Ref.of(config_map())) is None
    server.faults = Faults(script=["500"] * 1000, only="GET")
    with pytest.raises(
        ClusterError, match=r"answers 500 \(Internal error occurred: etcdserver: leader changed\)"
    ):
        cluster.get(Ref.of(config_map()))
    server.faults = Faults(script=["429"] * 1000, only="GET")
    with pytest.raises(ClusterError, match="overloaded"):
        cluster.get(Ref.of(config_map()))


def _ticks():  # type: ignore[no-untyped-def]
    """A clock that shows a tenth of a second more each time."""
    now = iter(range(10_000_000))
    return lambda: next(now) / 10


def test_no_server_at_the_address(tmp_path: Path, server: Server) -> None:
    file = server.kubeconfig(tmp_path)
    file.write_text(file.read_text().replace(server.address, "http://127.0.0.1:9"))
    cluster = Cluster.connect(
        kubeconfig=str(file), run="r", step="s", retry=Retry(sleep=lambda s: None, clock=_ticks())
    )
    with pytest.raises(MachineError, match=r"no API server answers at http://127\.0\.0\.1:9"):
        cluster.create_or_adopt(config_map())


@pytest.mark.parametrize("content", ["", "{}", "a: [", "current-context: nothing\ncontexts: []\n"])
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, content: str) -> None:
    file = tmp_path / "broken"
    file.write_text(content)
    with pytest.raises(MachineError, match="broken cannot be used"):
        Cluster.connect(kubeconfig=str(file))


def test_no_cluster_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(MachineError, match=r"missing cannot be used \([^)]*[^.)]\)"):
        Cluster.connect()


def test_the_namespace_is_the_arguments_then_the_settings_then_the_contexts(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Cluster.connect().namespace == "team-a"
    monkeypatch.setenv("GOLDPATH_NAMESPACE", "team-b")
    assert Cluster.connect().namespace == "team-b"
    assert Cluster.connect(namespace="team-c").namespace == "team-c"
    monkeypatch.delenv("GOLDPATH_NAMESPACE")
    server.kubeconfig(tmp_path, namespace="")
    with pytest.raises(MachineError, match=r"no namespace is chosen.*GOLDPATH_NAMESPACE"):
        Cluster.connect()


def test_in_a_pod_the_service_account_is_used(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import incluster_config

    from goldpath.core.kubernetes import client

    (tmp_path / "token").write_text("secret")
    (tmp_path / "namespace").write_text("team-a\n")
    (tmp_path / "ca.crt").write_text("certificate")
    monkeypatch.setattr(client, "ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG")
    made = client.connect()
    assert (made.host, made.namespace, made.in_cluster) == ("https://10.0.0.1:443", "team-a", True)


def test_what_is_no_api_server_is_told(server: Server, cluster: Cluster) -> None:
    answer = Answer.parse(502, "Bad Gateway", b"<html><body><h1>502</h1> nginx</body></html>")
    error = explain(answer, "read it", "http://x")
    assert "answers 502 (502 nginx)" in error.line()
    assert isinstance(error, GoldpathError)


def test_a_quota_that_is_not_counted_yet_is_waited_for(server: Server, connect: Connect) -> None:
    """As a real API server answers in the first minute after the quota, or a kind that it counts, was installed."""
    asked: list[Thing] = []

    def count(new: Thing, old: Thing | None) -> None:
        asked.append(new)
        if len(asked) < 4:
            raise Refusal(403, "Forbidden", UNCOUNTED)

    server.admit("TrainJob", count)
    assert connect().create_or_adopt(train_job("x"))["metadata"]["uid"]
    assert len(asked) == 4


def test_a_quota_that_is_never_counted_is_told(server: Server) -> None:
    def refuse(new: Thing, old: Thing | None) -> None:
        raise Refusal(403, "Forbidden", UNCOUNTED)

    server.admit("TrainJob", refuse)
    cluster = Cluster.connect(run="run-1", step="fine_tune", retry=Retry(limit_s=0.2, base_s=0.01))
    with pytest.raises(
        ClusterError, match=r"the quota goldpath is not counted yet \(count/x\.y\)"
    ) as refused:
        cluster.create_or_adopt(train_job("x"))
    assert refused.value.status == 403
    assert "Try again in five minutes" in refused.value.remedy


def test_that_the_server_stopped_looking_is_no_reason() -> None:
    causes = [
        {"field": "spec.trainer.numNodes", "message": "must be of type integer"},
        {
            "field": "<nil>",
            "message": "Invalid value: null: some validation rules were not checked because ...",
        },
    ]
    told = explain(Answer(422, "Invalid", "invalid", {"causes": causes}), "create TrainJob team-a/x")
    assert told.message == "cannot create TrainJob team-a/x: spec.trainer.numNodes: must be of type integer"


def one_job(server: Server, late: int = 0) -> None:
    """A quota of one TrainJob, which is asked before the name; it counts what is gone for `late` requests more."""
    asked = 0

    def count(new: Thing, old: Thing | None) -> None:
        nonlocal asked
        if old is not None:
            return
        used = len(server.find("TrainJob"))
        if not used and server.created:
            asked += 1
            used = int(asked <= late)
        if used:
            raise Refusal(
                403,
                "Forbidden",
                "x is forbidden: exceeded quota: team, requested: n=1, used: n=1, limited: n=1",
            )

    server.admit("TrainJob", count)


def test_a_full_quota_does_not_hide_what_a_retry_adopts(server: Server, connect: Connect) -> None:
    one_job(server)
    made = connect().create_or_adopt(train_job("x"))
    assert connect().create_or_adopt(train_job("x"))["metadata"]["uid"] == made["metadata"]["uid"]
    with pytest.raises(ClusterError, match="the quota team is exceeded"):
        connect().create_or_adopt(train_job("y"))
    assert server.created == ["TrainJob/x"]


def test_what_makes_room_for_itself_waits_until_the_quota_has_counted(
    server: Server, connect: Connect
) -> None:
    one_job(server, late=3)
    cluster = connect()
    first = cluster.create_or_adopt(train_job("x"))
    assert cluster.remove(Ref.of(train_job("x")))
    assert cluster.create_or_adopt(train_job("x"))["metadata"]["uid"] != first["metadata"]["uid"]
