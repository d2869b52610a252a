"""What the renderers promise beyond their golden files: arguments that arrive whole, canaries, sizes, refusals."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path as File
from typing import Any

import pytest
import yaml

from goldpath.accelerators.kv_offload import offload
from goldpath.accelerators.models import load
from goldpath.accelerators.placement import ClusterPaths, Path, Placement
from goldpath.accelerators.render import place
from goldpath.accelerators.requests import parse
from goldpath.core.errors import ModelError, SpecError
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.cluster_cache import ClusterCacheSpec, NodeGroupSpec, source_bytes
from goldpath.serving.cluster_parts import KvReuse
from goldpath.serving.manifests import (
    autoscaling,
    engine,
    inference_service,
    llm_inference_service,
    lmcache,
    model_cache,
)
from tests.serving.manifests.cases import KINDS, KV, URI, container, model, placed, rendered, serve_spec

LONG = "x" * 50


def connector(arguments: list[str]) -> dict[str, Any]:
    (text,) = [one.partition("=")[2] for one in arguments if one.startswith("--kv-transfer-config=")]
    found: dict[str, Any] = json.loads(text)
    return found


def through_a_shell(arguments: list[str], folder: File) -> list[str]:
    """What the engine gets: KServe's preset runs `eval "exec vllm serve ... $@"`."""
    engine_there = folder / "vllm"
    engine_there.write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    script = f'eval "exec python3 {engine_there} $@"'
    command = ["bash", "-c", script, "--", *arguments]
    found: list[str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


@pytest.mark.parametrize("mode", ["lmcache-mp", "prefix", "offload"])
def test_arguments_of_an_llm_service_come_out_of_the_presets_shell_as_they_were(
    mode: str, tmp_path: File
) -> None:
    spec = serve_spec("llm-inference-service", gpu="whole", kv=KV[mode], context_length=4096)
    assert through_a_shell(container(rendered(spec)[-1])["args"], tmp_path) == engine.arguments(spec)


def test_the_server_of_lmcache_is_told_what_the_spec_says() -> None:
    spec = serve_spec(gpu="whole", kv=KV["lmcache-mp"])
    extra = connector(container(rendered(spec)[-1])["args"])["kv_connector_extra_config"]
    server = shlex.split(extra["lmcache.mp.autostart.server_args"])
    given = dict(zip(server[::2], server[1::2], strict=True))
    assert given["--l1-size-gb"] == "20.5"
    assert given["--chunk-size"] == "256"
    assert json.loads(given["--l2-adapter"]) == {"type": "fs", "base_path": lmcache.DISK}
    assert not {"--host", "--port", "--http-host"} & set(given), "the connector refuses these"


def test_lmcache_reads_the_file_that_the_config_map_holds() -> None:
    spec = serve_spec(gpu="whole", kv=KV["lmcache-in-process"])
    config, *_, service = rendered(spec)
    seen = container(service)
    variables = {one["name"]: one["value"] for one in seen["env"]}
    (at,) = [one["mountPath"] for one in seen["volumeMounts"] if one["name"] == "lmcache-config"]
    folder, _, file = variables["LMCACHE_CONFIG_FILE"].rpartition("/")
    assert folder == at
    assert yaml.safe_load(config["data"][file])["max_local_cpu_size"] == 20
    (volume,) = [one for one in service["spec"]["predictor"]["volumes"] if one["name"] == "lmcache-config"]
    assert volume["configMap"]["name"] == config["metadata"]["name"]


def test_other_settings_of_lmcache_start_the_pods_again() -> None:
    def annotation(cpu: float) -> str:
        spec = serve_spec(gpu="whole", kv={**KV["lmcache-in-process"], "cpu_gib": cpu})
        found: str = rendered(spec)[-1]["spec"]["predictor"]["annotations"]["goldpath.io/lmcache-settings"]
        return found

    assert annotation(20) == annotation(20) != annotation(21)


@pytest.mark.parametrize("mode", KV)
def test_only_one_way_of_reuse_is_asked_for(mode: str) -> None:
    text = json.dumps(rendered(serve_spec(gpu="whole", kv=KV[mode])))
    wanted = {
        "lmcache-in-process": "LMCacheConnectorV1",
        "lmcache-mp": "LMCacheMPConnector",
        "offload": "OffloadingConnector",
    }
    found = {name for name, class_name in wanted.items() if class_name in text}
    assert found == {mode} & set(wanted)
    assert ("LMCACHE_CONFIG_FILE" in text) == (mode == "lmcache-in-process")
    assert ("--no-enable-prefix-caching" in text) == (mode == "none")
    assert bool(lmcache.render(serve_spec(gpu="whole", kv=KV[mode]))) == (mode == "lmcache-in-process")


def test_an_llm_service_offloads_by_its_own_field_at_the_right_place() -> None:
    (*_, service) = rendered(serve_spec("llm-inference-service", gpu="whole", kv=KV["offload"]))
    assert service["spec"]["kvCacheOffloading"]["cpu"] == "20480Mi"
    assert service["spec"]["kvCacheOffloading"]["secondary"] == [
        {"fileSystem": {"emptyDir": {"size": "50Gi"}}}
    ]
    assert "--kv-transfer-config" not in json.dumps(service), "KServe writes it"


def test_sizes_are_those_of_the_planner() -> None:
    sizes = offload(model(), 100_000, tensor_parallel=2)
    in_process = KvReuse.for_tokens("lmcache-in-process", model(), 100_000, workers=2)
    server = KvReuse.for_tokens("lmcache-mp", model(), 100_000, workers=2, disk=True)
    assert in_process.cpu_gib == sizes.max_local_cpu_size
    assert (server.cpu_gib, server.disk_gib) == (sizes.l1_size_gb, sizes.l1_size_gb)
    assert in_process.pod_gib(2) == pytest.approx(server.pod_gib(2), abs=0.2)
    spec = serve_spec(gpu="whole*2", kv=in_process.model_dump())
    assert spec.pod_memory == "29Gi", "12.4 GiB in all, and 16 for the engine"


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_are_fixed_or_keda_s(kind: str) -> None:
    fixed, scaled = serve_spec(kind, min_replicas=2, max_replicas=2), serve_spec(kind, max_replicas=3)
    assert not autoscaling.render(fixed)
    (one,) = autoscaling.render(scaled)
    assert (one["spec"]["minReplicaCount"], one["spec"]["maxReplicaCount"]) == (1, 3)
    ours, theirs = rendered(fixed, "none")[-1], rendered(scaled, "none")[-1]
    if kind == "llm-inference-service":
        assert ours["spec"]["replicas"] == 2
        assert not {"replicas", "scaling"} & set(theirs["spec"])
    else:
        key = "serving.kserve.io/autoscalerClass"
        assert (ours["metadata"]["annotations"][key], theirs["metadata"]["annotations"][key]) == (
            "none",
            "external",
        )


def test_the_scaled_object_aims_at_the_deployment_that_kserve_makes() -> None:
    def aim(**fields: Any) -> str:
        found: str = autoscaling.render(serve_spec(max_replicas=2, **fields))[0]["spec"]["scaleTargetRef"][
            "name"
        ]
        return found

    assert aim() == "chat-predictor"
    assert aim(revision="v2") == "chat-v2-predictor"
    assert aim(kind="llm-inference-service") == "chat-kserve"


def test_a_canary_is_the_same_service_with_another_model() -> None:
    fields = {
        "canary": {"revision": "v2", "model_uri": "s3://models/chat/2", "percent": 0},
        "gpu": "mig:1g.10gb",
    }
    spec = serve_spec(**fields)
    made = inference_service.render(spec, placed(spec), None, "team")
    assert [item["kind"] for item in made] == ["ResourceClaimTemplate", "InferenceService"]
    stable, (canary,) = made[-1]["spec"]["predictor"], made[-1]["spec"]["canary"]
    assert canary["trafficPercent"] == 0
    assert canary["predictor"]["minReplicas"] == 1, "KServe would start none for 0 %"
    assert "maxReplicas" not in canary["predictor"], "KServe refuses it"
    assert canary["predictor"]["resourceClaims"] == stable["resourceClaims"]
    ours = {key: value for key, value in canary["predictor"]["model"].items() if key != "name"}
    assert ours == {**stable["model"], "storageUri": "s3://models/chat/2"}


def test_weights_of_an_llm_canary_sum_up_in_one_group() -> None:
    canary = {"revision": "v2", "model_uri": "s3://models/chat/2", "percent": 30}
    fields = {"gpu": "whole", "min_replicas": 0, "max_replicas": 4, "scaling": {"wake_query": "vector(1)"}}
    made = rendered(serve_spec("llm-inference-service", **fields, canary=canary))
    assert [item["metadata"]["name"] for item in made] == ["chat-gpu", "chat", "chat-v2"]
    routes = [item["spec"]["router"]["route"] for item in made[1:]]
    assert routes == [{"group": "chat", "weight": 70}, {"group": "chat", "weight": 30}]
    assert {item["spec"]["model"]["name"] for item in made[1:]} == {"chat"}
    assert (made[1]["spec"].get("replicas"), made[2]["spec"]["replicas"]) == (None, 1)


def test_prefill_has_its_own_devices() -> None:
    spec = serve_spec("llm-inference-service", gpu="whole*2", prefill={"gpu": "mig:1g.10gb"})
    cluster = ClusterPaths(paths=(Path.PLUGIN, Path.MIG_MIXED))
    own = place(parse("mig:1g.10gb"), cluster, name="chat-prefill")
    (made,) = llm_inference_service.render(spec, place(spec.gpu, cluster, name="chat"), prefill=own)
    limits = made["spec"]["prefill"]["template"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/mig-1g.10gb"] == "1"
    assert made["spec"]["template"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert made["spec"]["parallelism"] == {"tensor": 2}
    assert "parallelism" not in made["spec"]["prefill"]


def test_the_root_file_system_is_read_only_where_no_gpu_is_put_in() -> None:
    bare, with_gpu = rendered(serve_spec(), "none")[-1], rendered(serve_spec(gpu="whole"))[-1]
    assert container(bare)["securityContext"]["readOnlyRootFilesystem"] is True
    assert container(with_gpu)["securityContext"]["readOnlyRootFilesystem"] is False


def test_a_cache_is_as_large_as_the_files_that_kserve_fetches(tmp_path: File) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"x" * 2**20)
    (tmp_path / "sub" / "pytorch_model.bin").write_bytes(b"x")
    size = source_bytes(str(tmp_path))
    assert size == 2**20 + 1
    spec = ClusterCacheSpec.parse({"name": "a", "model_uri": URI, "bytes": size, "node_groups": ["gpu"]})
    assert model_cache.render(spec)[0]["spec"]["modelSize"] == "2Mi"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no files"):
        source_bytes(str(tmp_path / "empty"))


def test_a_cache_of_the_cluster_has_no_namespace() -> None:
    fields = {"name": "a", "model_uri": URI, "bytes": 1, "node_groups": ["gpu"]}
    assert model_cache.render(ClusterCacheSpec.parse(fields), "team")[0]["metadata"]["namespace"] == "team"
    (made,) = model_cache.render(ClusterCacheSpec.parse({**fields, "namespaced": False}), "team")
    assert "namespace" not in made["metadata"]


def test_a_model_larger_than_the_disk_is_refused() -> None:
    group = NodeGroupSpec.parse({"name": "gpu", "storage": "10Gi", "node_labels": {"a": "b"}})
    cache = {"name": "a", "model_uri": URI, "node_groups": ["gpu"]}
    group.check_fits(ClusterCacheSpec.parse({**cache, "bytes": 10 * 2**30}))
    with pytest.raises(SpecError, match="10241Mi and the node group gpu 10Gi"):
        group.check_fits(ClusterCacheSpec.parse({**cache, "bytes": 10 * 2**30 + 1}))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a path": ({"model_uri": "/models/chat"}, "which a cluster cannot read"),
    "a file": ({"model_uri": "file:///models/chat"}, "which a cluster cannot read"),
    "a name with capitals": ({"name": "Chat"}, 'name is "Chat": use at most 50'),
    "a name that is too long": ({"name": "x" * 51}, "use at most 50"),
    "a name that begins with a digit": ({"name": "1st"}, "the first a letter"),
    "name and revision": ({"name": LONG, "revision": "v10"}, "more than 63 characters"),
    "min above max": ({"min_replicas": 3}, "min_replicas is 3 and max_replicas 1"),
    "zero without a wake-up": ({"min_replicas": 0}, "nothing would wake the service"),
    "memory": ({"memory": "lots"}, "memory is 'lots', no quantity"),
    "cpu": ({"cpu": "0"}, "cpu is '0', no quantity above 0"),
    "too little memory": (
        {"gpu": "whole", "memory": "8Gi", "kv": KV["lmcache-mp"]}, "memory is 8Gi, but KV reuse alone keeps 20.5 GiB",
    ),
    "two slices": ({"gpu": "mig:1g.10gb*2"}, "cannot share its layers among MIG slices"),
    "a connector that needs a GPU": ({"kv": KV["lmcache-in-process"]}, "needs a GPU"),
    "offload on a CPU": ({"kv": KV["offload"]}, "needs a GPU"),
    "in-process with a new KServe": (
        {"gpu": "whole", "kserve": "0.21", "kv": KV["lmcache-in-process"]}, "does not fit KServe 0.21",
    ),
    "in-process with our image": (
        {"gpu": "whole", "runtime": "goldpath-vllm", "kv": KV["lmcache-in-process"]}, "for the images of KServe 0.18",
    ),
    "in-process in an LLM service": (
        {"gpu": "whole", "kind": "llm-inference-service", "kv": KV["lmcache-in-process"]}, "for the images of KServe",
    ),
    "mp with an old image of KServe": (
        {"gpu": "whole", "runtime": "kserve-huggingfaceserver", "kv": KV["lmcache-mp"]}, "does not fit the image",
    ),
    "offload with an old KServe": ({"gpu": "whole", "kserve": "0.19", "kv": KV["offload"]}, "needs KServe 0.20"),
    "an old KServe": ({"kserve": "0.17"}, "kserve is \"0.17\": use 0.18 or a later release"),
    "LLM service with an old KServe": ({"kind": "llm-inference-service", "kserve": "0.19"}, "needs KServe 0.20"),
    "LLM service with a runtime": ({"kind": "llm-inference-service", "runtime": "goldpath-vllm"}, "runtime is for"),
    "prefill elsewhere": ({"prefill": {}}, "prefill is for llm-inference-service"),
    "prefill with LMCache": (
        {"kind": "llm-inference-service", "gpu": "whole", "prefill": {}, "kv": KV["lmcache-mp"]}, "one KV connector",
    ),
    "reuse without room": ({"gpu": "whole", "kv": {"mode": "lmcache-mp"}}, "kv.cpu_gib is 0"),
    "room without reuse": ({"kv": {"cpu_gib": 4}}, "kv.cpu_gib is set, but mode prefix"),
    "remote for mp": (
        {"gpu": "whole", "kv": {**KV["lmcache-mp"], "remote_url": "redis://kv:1"}}, "kv.remote_url is for lmcache-in",
    ),
    "no image": ({"image": "bad image"}, "use repository:tag"),
    "an unknown mode": ({"kv": {"mode": "magic"}}, "kv.mode is \"magic\""),
    "an unknown field": ({"kv": {"size": 4}}, "kv.size is not a field of KvReuse"),
    "reuse that is no object": ({"kv": "prefix"}, 'kv is "prefix"'),
    "percentage": ({"scaling": {"metric": "kv-cache", "target": 101}}, "scaling.target is 101 %"),
    "a canary without a name": ({"canary": {"revision": "", "model_uri": URI}}, "canary.revision is empty"),
    "a canary's name": ({"canary": {"revision": "V2", "model_uri": URI}}, "canary.revision is \"V2\": use at most 20"),
    "a canary's model": ({"canary": {"revision": "v2", "model_uri": "x"}}, "canary.model_uri is 'x'"),
    "a canary that serves already": (
        {"revision": "v2", "canary": {"revision": "v2", "model_uri": URI}}, "which already serves",
    ),
    "a canary with more replicas": (
        {"canary": {"revision": "v2", "model_uri": URI, "replicas": 2}}, "KServe refuses a canary with more",
    ),
    "a canary with an old KServe": (
        {"kserve": "0.19", "canary": {"revision": "v2", "model_uri": URI}}, "canary needs KServe 0.20",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_spec_that_cannot_work_is_refused_with_a_remedy(case: str) -> None:
    fields, message = WRONG[case]
    with pytest.raises(SpecError) as refused:
        ClusterServeSpec.parse({"name": "chat", "model_uri": URI, **fields})
    assert message in refused.value.message
    assert refused.value.remedy
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_uri": "pvc://disk/chat"}, "on the nodes already"),
        ({"bytes": 0}, "bytes is 0"),
        ({"node_groups": []}, "node_groups is []"),
        ({"node_groups": ["a", "a"]}, "node_groups is a, a"),
        ({"storage_key": "a", "service_account": "b"}, "both set"),
    ],
)
def test_a_cache_that_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    whole = {"name": "a", "model_uri": URI, "bytes": 1, "node_groups": ["gpu"], **fields}
    with pytest.raises(SpecError) as refused:
        ClusterCacheSpec.parse(whole)
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "/"}, "an absolute path that is not /"),
        ({"storage": ""}, "storage is empty"),
        ({"storage": "big"}, "no quantity"),
        ({"node_labels": {}}, "node_labels is {}"),
        ({"access": "RWX"}, "access is RWX"),
    ],
)
def test_a_node_group_that_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        NodeGroupSpec.parse({"name": "gpu", "storage": "1Gi", "node_labels": {"a": "b"}, **fields})
    assert message in refused.value.message


@pytest.mark.parametrize("mode", ["lmcache-in-process", "lmcache-mp"])
def test_lmcache_is_refused_for_models_that_it_garbles_or_that_nobody_knows(mode: str) -> None:
    spec = serve_spec(gpu="whole", kv=KV[mode])
    with pytest.raises(SpecError, match="Bamba-9B has 29 layers that keep a state"):
        inference_service.render(spec, placed(spec), load("Bamba-9B"))
    with pytest.raises(SpecError, match="nothing is known about the layers"):
        inference_service.render(spec, placed(spec))
    own = serve_spec(gpu="whole")
    assert inference_service.render(own, placed(own), load("Bamba-9B"))


def test_more_context_than_the_model_takes_is_refused() -> None:
    spec = serve_spec(gpu="whole", context_length=131_073)
    with pytest.raises(SpecError, match="context_length is 131,073"):
        rendered(spec)


def test_gpus_that_the_heads_cannot_be_shared_among_are_refused() -> None:
    with pytest.raises(SpecError, match="3"):
        rendered(serve_spec(gpu="whole*3"))


def test_a_placement_of_another_request_is_refused() -> None:
    spec = serve_spec(gpu="whole*2")
    with pytest.raises(SpecError, match="the placement is of none"):
        inference_service.render(spec, Placement(request=parse("none")))
    prefill = serve_spec("llm-inference-service", gpu="whole", prefill={"gpu": "mig:1g.10gb"})
    with pytest.raises(SpecError, match=r"prefill\.gpu is mig:1g.10gb, which is not placed"):
        llm_inference_service.render(prefill, placed(prefill))


def test_each_kind_is_rendered_as_what_it_is() -> None:
    with pytest.raises(SpecError, match="kind is llm-inference-service"):
        inference_service.render(serve_spec("llm-inference-service"), Placement(request=parse("none")))
    with pytest.raises(SpecError, match="kind is inference-service"):
        llm_inference_service.render(serve_spec(), Placement(request=parse("none")))


def test_a_spec_survives_being_written_down() -> None:
    canary = {"revision": "v2", "model_uri": URI}
    spec = serve_spec(gpu="whole:H100*2", kv=KV["lmcache-mp"], canary=canary, max_replicas=2)
    assert ClusterServeSpec.parse(json.loads(spec.model_dump_json())) == spec
