"""What is rendered: kept in files, held against the upstream schemas and Pod Security "restricted".

``GOLDPATH_GOLDEN=write pytest tests/serving/manifests`` writes the files anew; read the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as File

import jsonschema
import pytest
import yaml

from goldpath.accelerators.placement import Path
from goldpath.accelerators.render import place
from goldpath.pipelines.manifests import render
from goldpath.serving.cluster_cache import ClusterCacheSpec, NodeGroupSpec
from goldpath.serving.manifests import (
    autoscaling,
    model_cache,
    node_group,
)
from tests import schemas
from tests.serving.manifests.cases import (
    CLUSTERS,
    GOLDEN,
    KINDS,
    KV,
    Manifest,
    check_golden,
    container,
    model,
    placed,
    rendered,
    serve_spec,
)

DEPLOY = File(__file__).parents[3] / "deploy"
EXAMPLES = sorted((DEPLOY / "examples" / "serving").glob("*.yaml"))
SCALE = {"min_replicas": 1, "max_replicas": 4, "gpu": "whole"}
WAKE = {"wake_query": 'sum(rate(istio_requests_total{destination_service=~"chat.*"}[2m]))'}
CANARY = {"canary": {"revision": "v2", "model_uri": "s3://models/chat/2", "percent": 20}}
PREFILL = {"prefill": {"replicas": 2, "gpu": "mig:3g.40gb"}}
CACHE = {"name": "chat-1", "model_uri": "s3://models/chat/1", "bytes": 16_060_522_240, "node_groups": ["gpu"]}
GROUP = {"name": "gpu", "storage": "500Gi", "node_labels": {"goldpath.io/models": "gpu", "a": "b"}}


def kind_on(kind: str, cluster: str) -> list[Manifest]:
    return rendered(serve_spec(kind, gpu=CLUSTERS[cluster][0], context_length=8192), cluster)


def read_by(kind: str) -> list[Manifest]:
    """As GOLDPATH_MODEL_ACCOUNT=model-reader has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLDPATH_MODEL_ACCOUNT", "model-reader")
        if kind == "model-cache":
            return model_cache.render(ClusterCacheSpec.parse(CACHE), "team")
        return rendered(serve_spec(kind, gpu="mig:1g.10gb"), "plugin-mig")


def reuse(kind: str, mode: str) -> list[Manifest]:
    return rendered(serve_spec(kind, gpu="whole", kv=KV[mode]))


def with_prefill() -> list[Manifest]:
    spec = serve_spec("llm-inference-service", gpu="whole:H100*2", kv=KV["offload"], **PREFILL)
    assert spec.prefill
    assert spec.prefill.gpu
    _, cluster = CLUSTERS["dra"]
    own = place(spec.prefill.gpu, cluster, name=f"{spec.name}-prefill", namespace="team")
    return rendered(spec, prefill=own)


CASES: dict[str, Callable[[], list[Manifest]]] = {
    **{
        f"{kind}.{cluster}": lambda k=kind, c=cluster: kind_on(k, c) for kind in KINDS for cluster in CLUSTERS
    },
    **{
        f"{kind}.kv-{mode}": lambda k=kind, m=mode: reuse(k, m)
        for kind in KINDS
        for mode in KV
        if (kind, mode) != ("llm-inference-service", "lmcache-in-process")
    },
    **{
        f"{kind}.canary": lambda k=kind: rendered(serve_spec(k, gpu="whole:H100*2", **CANARY))
        for kind in KINDS
    },
    **{f"{kind}.account": lambda k=kind: read_by(k) for kind in (*KINDS, "model-cache")},
    "llm-inference-service.prefill": with_prefill,
    "inference-service.node-group": lambda: rendered(
        serve_spec(
            gpu="whole", node_group="gpu", revision="v1", service_account="reader", image="team/vllm:1"
        )
    ),
    **{
        f"autoscaling.{kind}": lambda k=kind: autoscaling.render(serve_spec(k, **SCALE), "team")
        for kind in KINDS
    },
    "autoscaling.to-zero": lambda: autoscaling.render(
        serve_spec(min_replicas=0, scaling={"metric": "in-flight", **WAKE}), "team"
    ),
    "autoscaling.kv-cache": lambda: autoscaling.render(
        serve_spec(**SCALE, revision="v1", scaling={"metric": "kv-cache", "target": 80})
    ),
    "model-cache.namespace": lambda: model_cache.render(ClusterCacheSpec.parse(CACHE), "team"),
    "model-cache.cluster": lambda: model_cache.render(
        ClusterCacheSpec.parse(
            {**CACHE, "namespaced": False, "storage_key": "s3", "storage_parameters": {"type": "s3"}}
        )
    ),
    "node-group": lambda: node_group.render(NodeGroupSpec.parse(GROUP)),
}
# From KEDA's reference of the ScaledObject: what we use of it, and nothing else.
TEXT = {"type": "string", "minLength": 1}
SCALED_OBJECT = schemas.strict(
    {
        "type": "object",
        "required": ["scaleTargetRef", "triggers"],
        "properties": {
            "scaleTargetRef": {
                "type": "object", "required": ["name"], "properties": {"apiVersion": TEXT, "kind": TEXT, "name": TEXT},
            },
            "minReplicaCount": {"type": "integer", "minimum": 0},
            "maxReplicaCount": {"type": "integer", "minimum": 1},
            "pollingInterval": {"type": "integer", "minimum": 1},
            "cooldownPeriod": {"type": "integer", "minimum": 0},
            "fallback": {
                "type": "object",
                "required": ["failureThreshold", "replicas"],
                "properties": {
                    "failureThreshold": {"type": "integer", "minimum": 0},
                    "replicas": {"type": "integer", "minimum": 0},
                    "behavior": {"enum": ["static", "currentReplicas", "currentReplicasIfHigher"]},
                },
            },
            "advanced": {
                "type": "object", "properties": {"horizontalPodAutoscalerConfig": {"type": "object"}},
            },
            "triggers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["type", "metadata"],
                    "properties": {
                        "type": {"enum": ["prometheus"]},
                        "name": TEXT,
                        "metricType": {"enum": ["AverageValue", "Value"]},
                        "metadata": {
                            "type": "object",
                            "required": ["serverAddress", "query", "threshold"],
                            "properties": dict.fromkeys(
                                ("serverAddress", "query", "threshold", "activationThreshold"), TEXT
                            ),
                        },
                    },
                },
            },
        },
    }
)  # fmt: skip


def test_an_account_of_its_own_or_a_key_wins_over_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_MODEL_ACCOUNT", " model-reader ")
    assert ClusterCacheSpec.parse(CACHE).service_account == serve_spec().service_account == "model-reader"
    own = {"service_account": "own"}
    assert (
        ClusterCacheSpec.parse({**CACHE, **own}).service_account == serve_spec(**own).service_account == "own"
    )
    for other in ({"storage_key": "models"}, {"namespaced": False}):
        assert ClusterCacheSpec.parse({**CACHE, **other}).service_account == ""


def test_the_account_to_copy_is_what_kserve_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    account, *secrets = yaml.safe_load_all((DEPLOY / "serving" / "model-reader.yaml").read_text())
    assert [one["name"] for one in account["secrets"]] == [one["metadata"]["name"] for one in secrets]
    for one in (account, *secrets):
        assert not schemas.problems(one)
    (s3, hub) = secrets
    # KServe's pkg/credentials/s3 and hf, v0.20; no Secret may look like another kind's.
    assert set(s3["stringData"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert set(hub["stringData"]) == {"HF_TOKEN"}
    assert set(s3["metadata"]["annotations"]) == {
        f"serving.kserve.io/s3-{name}" for name in ("endpoint", "usehttps", "region")
    }
    assert "://" not in s3["metadata"]["annotations"]["serving.kserve.io/s3-endpoint"]


def problems(item: Manifest) -> list[str]:
    if item["kind"] == "ScaledObject":
        return [
            error.message
            for error in jsonschema.Draft202012Validator(SCALED_OBJECT).iter_errors(item["spec"])
        ]
    return schemas.problems(item)


def pods(item: Manifest) -> list[tuple[Manifest, list[Manifest]]]:
    """Specifications of pods and their containers, in whatever kind they stand."""
    spec = item.get("spec", {})
    if item["kind"] == "InferenceService":
        predictors = [spec["predictor"], *(one["predictor"] for one in spec.get("canary", ()))]
        return [(predictor, [predictor["model"]]) for predictor in predictors]
    if item["kind"] == "LLMInferenceService":
        workloads = [spec, *([spec["prefill"]] if "prefill" in spec else [])]
        return [(one["template"], one["template"]["containers"]) for one in workloads]
    if item["kind"] == "ServingRuntime":
        return [(spec, spec["containers"])]
    return []


def unrestricted(item: Manifest) -> list[str]:
    """What Pod Security "restricted" refuses."""
    found = []
    for pod, containers in pods(item):
        for one in containers:
            security = one.get("securityContext", {})
            whole = pod.get("securityContext", {})
            seccomp = (security.get("seccompProfile") or whole.get("seccompProfile") or {}).get("type")
            rules = {
                "allowPrivilegeEscalation": security.get("allowPrivilegeEscalation") is False,
                "capabilities": security.get("capabilities") == {"drop": ["ALL"]},
                "runAsNonRoot": security.get("runAsNonRoot", whole.get("runAsNonRoot")) is True,
                "runAsUser": 0 not in (security.get("runAsUser"), whole.get("runAsUser")),
                "seccompProfile": seccomp in ("RuntimeDefault", "Localhost"),
                "host": not {"hostNetwork", "hostPID"} & set(pod) and not pod.get("hostIPC"),
                "ports": not any(port.get("hostPort") for port in one.get("ports", ())),
            }
            found += [name for name, kept in rules.items() if not kept]
        allowed = {
            "configMap",
            "emptyDir",
            "persistentVolumeClaim",
            "projected",
            "secret",
            "ephemeral",
            "csi",
        }
        found += [
            volume["name"] for volume in pod.get("volumes", ()) if not (set(volume) - {"name"}) <= allowed
        ]
    return found


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_the_golden_file_says_each_time(name: str) -> None:
    check_golden(name, CASES[name]())
    assert CASES[name]() == CASES[name]()


def test_there_is_no_golden_file_that_nobody_reads() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.contract
@pytest.mark.parametrize("name", CASES)
def test_it_is_valid_upstream(name: str) -> None:
    for item in CASES[name]():
        assert not problems(item)


@pytest.mark.contract
@pytest.mark.parametrize("name", CASES)
def test_every_pod_passes_pod_security_restricted(name: str) -> None:
    for item in CASES[name]():
        assert not unrestricted(item)


def test_the_check_of_pod_security_sees_what_is_wrong() -> None:
    made = rendered(serve_spec(gpu="whole"))[-1]
    predictor = made["spec"]["predictor"]
    container(made)["securityContext"]["capabilities"] = {"add": ["SYS_ADMIN"]}
    del container(made)["securityContext"]["seccompProfile"], predictor["securityContext"]["seccompProfile"]
    predictor["volumes"].append({"name": "node", "hostPath": {"path": "/"}})
    assert unrestricted(made) == ["capabilities", "seccompProfile", "node"]


@pytest.mark.contract
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("inference-service.dra", lambda spec: spec["predictor"].update(claims=[])),
        ("inference-service.canary", lambda spec: spec["canary"][0].update(trafficPercent=101)),
        (
            "llm-inference-service.kv-offload",
            lambda spec: spec.update(workload={"kvCacheOffloading": {"cpu": "1Gi"}}),
        ),
        ("model-cache.cluster", lambda spec: spec.pop("modelSize")),
        ("node-group", lambda spec: spec.update(storageLimit="much")),
        ("autoscaling.to-zero", lambda spec: spec["triggers"][0]["metadata"].update(threshold=4)),
    ],
)
def test_the_schemas_refuse_what_is_wrong(name: str, damage: Callable[[Manifest], None]) -> None:
    made = CASES[name]()[-1]
    assert not problems(made)
    damage(made["spec"])
    assert problems(made)


@pytest.mark.contract
def test_the_serving_runtime_of_deploy_is_valid_and_restricted_and_its_image_is_ours() -> None:
    from goldpath.serving.manifests import engine

    (runtime,) = yaml.safe_load_all((DEPLOY / "serving" / "serving-runtime.yaml").read_text())
    assert not schemas.problems(runtime)
    assert not unrestricted(runtime)
    assert runtime["metadata"]["name"] == serve_spec().serving_runtime
    (engine_container,) = runtime["spec"]["containers"]
    assert engine_container["image"] == engine.IMAGE
    (served,) = runtime["spec"]["supportedModelFormats"]
    assert (
        served["name"]
        == rendered(serve_spec(gpu="whole"))[-1]["spec"]["predictor"]["model"]["modelFormat"]["name"]
    )
    recipe = (DEPLOY / "serving" / "vllm.Dockerfile").read_text()
    vllm, _, lmcache = engine.IMAGE.rpartition(":")[2].partition("-lmcache")
    assert f"ARG VLLM_VERSION={vllm}\n" in recipe
    assert f"ARG LMCACHE_VERSION={lmcache}\n" in recipe
    (kustomization,) = yaml.safe_load_all((DEPLOY / "serving" / "kustomization.yaml").read_text())
    assert f"{kustomization['images'][0]['name']}:{kustomization['images'][0]['newTag']}" == engine.IMAGE
    assert all((DEPLOY / "serving" / file).is_file() for file in kustomization["resources"])


@pytest.mark.contract
def test_the_node_group_of_deploy_is_what_its_spec_is_rendered_to() -> None:
    spec = (DEPLOY / "examples" / "serving" / "node-group.yaml").read_text()
    shown = list(yaml.safe_load_all((DEPLOY / "serving" / "node-group.yaml").read_text()))
    assert render(spec, "node-group.yaml") == shown


@pytest.mark.contract
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_works_as_it_is(file: File) -> None:
    for item in render(file.read_text(), file.name):
        assert not problems(item)
        assert not unrestricted(item)


def test_there_is_an_example_of_everything_that_can_be_asked_for() -> None:
    files = [yaml.safe_load(file.read_text()) for file in EXAMPLES]
    sections = ("serve", "cache", "node_group")
    specs = [one.get(section, {}) for one in files for section in sections if section in one]
    assert {spec.get("kv", {}).get("mode", "prefix") for spec in specs} >= set(KV) - {"none"}
    for field in ("canary", "prefill", "scaling", "node_group", "node_labels", "bytes"):
        assert any(field in spec for spec in specs), field
    assert {spec.get("kind", "inference-service") for spec in specs} == set(KINDS)
    assert any(spec.get("min_replicas") == 0 for spec in specs)
    assert model().max_positions
    assert placed(serve_spec(gpu="whole")).path is Path.DRA
