"""Endpoints on a cluster: deployed, adopted, replaced, stopped; and what a deployment that fails leaves behind."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.errors import GoldpathError, InputError, MachineError, ModelError, SpecError, StepError
from goldpath.core.kubernetes import Cluster
from goldpath.serving import endpoints
from goldpath.serving.backends import kubernetes
from goldpath.serving.probe import probe
from goldpath.serving.specs import ProbeSpec, ServeSpec
from tests.kube import QUICK, Refusal, Server
from tests.kube.things import Thing, condition
from tests.serving.cluster.conftest import Keep
from tests.serving.cluster.played import KServe, node


def spec(model: tuple[str, str], overrides: dict[str, Any] | None = None, version: str = "1") -> ServeSpec:
    return ServeSpec.from_form(
        name="bot",
        engine="transformers",
        model_uri=model[0],
        model_version=version,
        model_digest=model[1],
        overrides={"deploy": overrides or {}},
    )


def hurry(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which a minute takes half a second, and looks in place of watches."""
    server.deny("watch", "inferenceservices")
    began = time.monotonic()
    fast = replace(QUICK, clock=lambda: began + 120 * (time.monotonic() - began))
    monkeypatch.setattr(kubernetes, "connect", lambda: Cluster.connect(retry=fast))


def service(server: Server) -> Thing:
    (found,) = server.find("InferenceService")
    return found


def test_a_model_is_served_listed_asked_and_stopped(server: Server, kserve: KServe, keep: Keep) -> None:
    model = keep()
    live = endpoints.deploy(spec(model))
    assert (live.url, live.model, live.model_version) == (f"{kserve.url}/v1", "bot", "1")
    assert (live.model_path, live.model_digest, live.adopted) == (*model, False)
    predictor = service(server)["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == model[0]
    assert predictor["model"]["resources"]["limits"]["nvidia.com/gpu"] == "1", "vLLM wants a GPU"
    assert "ownerReferences" not in service(server)["metadata"], "it outlives the run"
    (listed,) = endpoints.list_endpoints()
    assert listed.model_copy(update={"adopted": False, "ready_seconds": live.ready_seconds}) == live
    assert endpoints.get("bot") == listed
    assert endpoints.healthy(live)
    endpoints.stop("bot")
    assert endpoints.list_endpoints() == []
    assert server.left() == []


def test_the_probe_measures_it(kserve: KServe, keep: Keep, home: Path) -> None:
    live = endpoints.deploy(spec(keep()))
    seen = probe(live, ProbeSpec(context_tokens=200, repeats=1, max_new_tokens=4), None, ["What is a Pod?"])
    assert seen.model == "bot"
    assert "What is a Pod" in seen.answers[0]["answer"]
    assert seen.repeat_speedup > 1
    assert not list(home.rglob("*.safetensors")), "the tokenizer is fetched without the weights"


def test_the_same_again_is_adopted_and_touches_nothing(server: Server, kserve: KServe, keep: Keep) -> None:
    model = keep()
    endpoints.deploy(spec(model))
    before = service(server)
    again = endpoints.deploy(spec(model, version="2"))
    assert (again.adopted, again.model_version, again.ready_seconds) == (True, "2", 0.0)
    assert service(server) == before, "a label of the new run would start all pods anew"


def test_another_model_replaces_it_in_place_once_its_pods_serve(
    server: Server, kserve: KServe, keep: Keep
) -> None:
    old, new = keep("old"), keep("new")
    endpoints.deploy(spec(old))
    uid = service(server)["metadata"]["uid"]
    live = endpoints.deploy(spec(new, version="2"))
    assert (live.adopted, live.model_path, live.model_version) == (False, new[0], "2")
    assert service(server)["metadata"]["uid"] == uid
    assert kserve.rolled == [old[0], new[0]]
    (pod,) = server.find("Pod")
    assert pod["metadata"]["annotations"]["goldpath.io/model-uri"] == new[0]


def test_what_the_service_no_longer_needs_goes(server: Server, kserve: KServe, keep: Keep) -> None:
    model = keep()
    endpoints.deploy(spec(model, {"cluster": {"max_replicas": 3}}))
    assert server.left()[1:] == [
        "Pod/" + server.find("Pod")[0]["metadata"]["name"],
        "ScaledObject/bot-predictor",
    ]
    endpoints.deploy(spec(model))
    assert not server.find("ScaledObject")


def test_a_service_that_is_never_ready_is_given_up_and_removed(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    kserve.starts = "never"
    hurry(server, monkeypatch)
    with pytest.raises(StepError, match=r"endpoint bot is not up: .*60 s.*0 of 1.*ready_seconds"):
        endpoints.deploy(spec(keep(), {"cluster": {"ready_seconds": 60}}))
    assert server.left() == []


def test_an_image_that_cannot_be_pulled_is_named(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    kserve.starts = "image"
    hurry(server, monkeypatch)
    with pytest.raises(
        StepError, match=r"ImagePullBackOff: Back-off pulling image goldpath/vllm:1.*not found"
    ):
        endpoints.deploy(spec(keep(), {"cluster": {"ready_seconds": 60}}))
    assert server.left() == []


def test_a_model_that_cannot_be_loaded_fails_at_once(server: Server, kserve: KServe, keep: Keep) -> None:
    kserve.starts = "load"
    with pytest.raises(
        StepError, match=r"endpoint bot is not up: it cannot start: ModelLoadFailed.*no such layer"
    ):
        endpoints.deploy(spec(keep()))
    assert server.left() == []


def test_a_replacement_that_fails_leaves_the_model_that_served(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = keep("old"), keep("new")
    endpoints.deploy(spec(old))
    before = service(server)
    kserve.starts = "never"
    monkeypatch.setattr(kubernetes.time, "monotonic", lambda clock=time.monotonic: clock() * 120)
    with pytest.raises(StepError, match="1 pods of the model before still serve"):
        endpoints.deploy(spec(new, {"cluster": {"ready_seconds": 60}}))
    assert service(server)["spec"] == before["spec"]
    assert endpoints.get("bot").model_path == old[0]


def test_one_that_failed_and_serves_nothing_makes_room(server: Server, kserve: KServe, keep: Keep) -> None:
    model = keep()
    endpoints.deploy(spec(model))
    uid = service(server)["metadata"]["uid"]
    kserve.blind.add(uid)
    server.drop("Pod", server.find("Pod")[0]["metadata"]["name"])
    failed = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"reason": "ModelLoadFailed"}}
    server.edit("InferenceService", "bot", lambda now: now["status"].update(modelStatus=failed))
    assert not endpoints.deploy(spec(model)).adopted
    assert service(server)["metadata"]["uid"] != uid


def test_a_service_that_does_not_answer_is_no_endpoint(server: Server, kserve: KServe, keep: Keep) -> None:
    kserve.url = "http://127.0.0.1:9"
    with pytest.raises(StepError, match=r"is ready, but http://127.0.0.1:9/v1 does not answer from here"):
        endpoints.deploy(spec(keep()))
    assert server.left() == []


def test_one_that_sleeps_is_adopted_without_being_woken(server: Server, kserve: KServe, keep: Keep) -> None:
    model = keep()
    asked = {"cluster": {"min_replicas": 0, "scaling": {"wake_query": "sum(rate(requests_total[2m]))"}}}
    endpoints.deploy(spec(model, asked))
    kserve.blind.add(service(server)["metadata"]["uid"])
    server.drop("Pod", server.find("Pod")[0]["metadata"]["name"])
    asleep = {"url": "http://127.0.0.1:9", "conditions": [condition("Ready")]}
    server.edit("InferenceService", "bot", lambda now: now.update(status=asleep))
    assert endpoints.deploy(spec(model, asked)).adopted


def test_a_step_in_the_cluster_asks_at_the_address_inside(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, kserve.url = kserve.url, "https://bot.example.com"
    serve = kserve.serve

    def with_address(thing: Thing) -> Thing | None:
        status = serve(thing)
        return {**status, "address": {"url": inside}} if status and "url" in status else status

    server._controllers["InferenceService"] = [with_address]

    def connect() -> Cluster:
        cluster = Cluster.connect(retry=QUICK)
        cluster.connection = replace(cluster.connection, in_cluster=True)
        return cluster

    monkeypatch.setattr(kubernetes, "connect", connect)
    assert endpoints.deploy(spec(keep())).url == f"{inside}/v1"
    monkeypatch.setattr(kubernetes, "connect", lambda: Cluster.connect(retry=QUICK))
    assert endpoints.get("bot").url == "https://bot.example.com/v1"


def refuse(code: int, message: str) -> Any:
    def check(new: Thing, old: Thing | None) -> None:
        raise Refusal(code, "Forbidden", message)

    return check


@pytest.mark.parametrize(
    ("prepare", "error", "said"),
    [
        (lambda s: s.lack("InferenceService"), MachineError, "no InferenceService.*KServe 0.20"),
        (lambda s: s.deny("create", "inferenceservices"), StepError, "may not create inferenceservices"),
        (lambda s: s.deny("list", "nodes"), StepError, "may not list nodes"),
        (lambda s: s.drop("Node", "node-1"), SpecError, "cannot serve the GPU request whole.*it has no GPUs"),
        (
            lambda s: s.admit(
                "InferenceService",
                refuse(403, "exceeded quota: team, requested: nvidia.com/gpu=1, used: 8, limited: 8"),
            ),
            StepError,
            "the quota team is exceeded",
        ),
        (
            lambda s: s.admit(
                "InferenceService",
                refuse(400, 'admission webhook "isvc.kserve" denied the request: no runtime goldpath-vllm'),
            ),
            StepError,
            "isvc.kserve refused it: no runtime goldpath-vllm",
        ),
        (
            lambda s: s.put(
                {
                    "apiVersion": "serving.kserve.io/v1beta1",
                    "kind": "InferenceService",
                    "metadata": {"name": "bot"},
                    "spec": {"predictor": {}},
                }
            ),
            InputError,
            "bot exists already, and no deployment of goldpath made it",
        ),
    ],
)
def test_refusals_say_what_to_do_and_leave_nothing(
    server: Server, kserve: KServe, keep: Keep, prepare: Any, error: type[GoldpathError], said: str
) -> None:
    model = keep()
    prepare(server)
    left = server.left()
    server._controllers.clear()
    with pytest.raises(error, match=said) as raised:
        endpoints.deploy(spec(model))
    assert raised.value.remedy
    assert server.left() == left


def test_a_model_of_this_machine_is_refused(kserve: KServe, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lies on this machine, and the nodes of a cluster cannot read it"):
        endpoints.deploy(spec((str(tmp_path), "")))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"min_replicas": 2}, r"overrides\.deploy\.cluster\.min_replicas is 2 and max_replicas 1"),
        ({"cpus": 2}, r"overrides\.deploy\.cluster\.cpus is not a field"),
        ({"model_uri": "s3://x/y"}, r"overrides\.deploy\.cluster\.model_uri cannot be set"),
        ({"gpu": "half"}, r"overrides\.deploy\.cluster\..*half"),
    ],
)
def test_what_no_cluster_could_serve_is_refused_before_anything_starts(
    home: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        spec(("/model", ""), {"cluster": fields})


def test_unknown_endpoints_are_told_with_those_that_there_are(kserve: KServe, keep: Keep) -> None:
    with pytest.raises(InputError, match="Deploy one"):
        endpoints.get("bot")
    endpoints.deploy(spec(keep()))
    for ask in (endpoints.get, endpoints.stop):
        with pytest.raises(InputError, match=r"no endpoint 'bat'.*Did you mean 'bot'\? There are: bot"):
            ask("bat")


def test_a_gpu_by_claim_has_a_template_of_its_own_for_each_request(
    server: Server, kserve: KServe, keep: Keep
) -> None:
    server.drop("Node", "node-1")
    server.put(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": "s"},
            "spec": {"driver": "gpu.nvidia.com", "nodeName": "node-1", "devices": []},
        }
    )
    server.put(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": "gpu.nvidia.com"},
            "spec": {},
        }
    )
    assert node()
    model = keep()
    endpoints.deploy(spec(model, {"cluster": {"gpu": "whole"}}))
    endpoints.deploy(spec(model, {"cluster": {"gpu": "whole*2"}}))
    (template,) = server.find("ResourceClaimTemplate")
    claims = service(server)["spec"]["predictor"]["resourceClaims"]
    assert [claim["resourceClaimTemplateName"] for claim in claims] == [template["metadata"]["name"]]
    endpoints.stop("bot")
    assert not server.find("ResourceClaimTemplate")


def test_the_other_kind_takes_over_under_the_same_name(server: Server, kserve: KServe, keep: Keep) -> None:
    model = keep()
    endpoints.deploy(spec(model))
    live = endpoints.deploy(spec(model, {"cluster": {"kind": "llm-inference-service"}}, version="2"))
    assert (live.model_version, live.model_digest) == ("2", model[1])
    assert "app.kubernetes.io/name=bot" in live.log
    assert server.left() == ["LLMInferenceService/bot"]
    assert endpoints.deploy(spec(model, {"cluster": {"kind": "llm-inference-service"}})).adopted
    endpoints.stop("bot")
    assert server.left() == []


def test_lmcache_is_refused_for_a_model_that_it_would_garble(
    server: Server, kserve: KServe, keep: Keep, tmp_path: Path
) -> None:
    uri, digest = keep()
    config = Path(os.environ["TEST_BUCKETS"]) / uri.removeprefix("s3://") / "config.json"
    reuse = {"cluster": {"kv": {"mode": "lmcache-mp", "cpu_gib": 4}}}
    assert not endpoints.deploy(spec((uri, digest), reuse)).adopted, "the model's own config.json tells"
    config.write_text(
        json.dumps(
            {
                "model_type": "mamba",
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "state_size": 16,
                "vocab_size": 512,
                "expand": 2,
                "conv_kernel": 4,
            }
        )
    )
    with pytest.raises(GoldpathError, match="would silently garble"):
        endpoints.deploy(spec((uri, "0" * 64), reuse))
    assert endpoints.get("bot").model_digest == digest
