"""What people write into manifests and the API server reads as nothing, or would refuse beside a GPU request."""

from __future__ import annotations

import pytest

from goldpath.accelerators.placement import Path
from goldpath.accelerators.render import inference_service, llm_inference_service, pod, train_job
from goldpath.core.errors import SpecError
from tests.accelerators import workloads
from tests.accelerators.workloads import a_pod, a_train_job, placed


def test_null_in_a_manifest_is_as_if_it_were_not_there() -> None:
    manifest = a_pod()
    plain = a_pod()
    del plain["spec"]["containers"][0]["resources"]
    manifest["spec"] |= dict.fromkeys(("tolerations", "nodeSelector", "affinity", "resourceClaims"))
    manifest["spec"]["containers"][0]["resources"] = {"limits": None, "requests": None, "claims": None}
    for text, path in (("whole", Path.PLUGIN), ("whole", Path.DRA), ("shared", Path.SHARED)):
        made = pod(manifest, placed(text, path, "pod"))[-1]["spec"]
        wanted = pod(plain, placed(text, path, "pod"))[-1]["spec"]
        assert made["tolerations"] == wanted["tolerations"]
        for key in ("limits", "claims"):
            assert made["containers"][0]["resources"].get(key) == wanted["containers"][0]["resources"].get(
                key
            )
        for key in ("affinity", "nodeSelector", "resourceClaims"):
            assert made[key] == wanted.get(key)
    job = a_train_job()
    job["spec"] |= {"trainer": None, "runtimePatches": None}
    made = train_job(job, placed("whole", Path.PLUGIN, "trainjob"))[-1]["spec"]
    assert made["trainer"] == {"numProcPerNode": 1, "resourcesPerNode": {"limits": {"nvidia.com/gpu": "1"}}}
    assert len(made["runtimePatches"]) == 1
    service = workloads.an_inference_service()
    service["metadata"]["annotations"] = service["spec"]["predictor"]["model"]["resources"] = None
    made = inference_service(service, placed("whole", Path.DRA, "inferenceservice"))[-1]
    assert made["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Standard"}
    llm = workloads.an_llm_service()
    llm["spec"] |= {"template": None, "worker": None, "prefill": None}
    made = llm_inference_service(llm, placed("whole", Path.PLUGIN, "llminferenceservice"))[-1]["spec"]
    assert made["template"]["containers"] == [
        {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    ]
    assert made["worker"] is None


def test_a_manifest_that_requests_gpus_without_a_limit_is_refused() -> None:
    manifest = a_pod()
    manifest["spec"]["containers"][0]["resources"]["requests"] = {"nvidia.com/gpu": "4"}
    with pytest.raises(SpecError, match=r"asks for nvidia\.com/gpu itself"):
        pod(manifest, placed("whole", Path.PLUGIN, "pod"))


@pytest.mark.parametrize("terms", [[], None])
def test_an_affinity_without_terms_does_not_drop_the_nodes_that_the_request_needs(terms: object) -> None:
    manifest = a_pod()
    required = {"nodeSelectorTerms": terms}
    manifest["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
    }
    placement = placed("whole:H100*2", Path.PLUGIN, "pod")
    node_affinity = pod(manifest, placement)[-1]["spec"]["affinity"]["nodeAffinity"]
    (term,) = node_affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchExpressions": list(placement.node_expressions)}
