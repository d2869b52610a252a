"""Rules of rendering that golden files show and do not explain, and what cannot be rendered."""

from __future__ import annotations

import re
from typing import Any

import pytest

from goldpath.accelerators import products
from goldpath.accelerators.placement import ClusterPaths, Path
from goldpath.accelerators.render import (
    explain,
    inference_service,
    llm_inference_service,
    place,
    pod,
    train_job,
)
from goldpath.accelerators.requests import parse
from goldpath.core.errors import SpecError
from tests.accelerators import workloads
from tests.accelerators.workloads import EVERYTHING, EXTENDED, a_pod, a_runtime, a_train_job, on, placed

DRA = ClusterPaths(paths=(Path.DRA,))
PLUGIN = ClusterPaths(paths=(Path.PLUGIN, Path.MIG_MIXED))


def refused(call: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("text", "cluster", "path"),
    [
        ("whole", EXTENDED, Path.EXTENDED),
        ("whole", EVERYTHING, Path.PLUGIN),
        ("whole:H100", EVERYTHING, Path.PLUGIN),
        ("whole:H100", EXTENDED.model_copy(update={"paths": (Path.EXTENDED, Path.DRA)}), Path.DRA),
        ("mig:1g.10gb", EVERYTHING, Path.MIG_SINGLE),
        ("mig:2g.20gb", EVERYTHING, Path.MIG_MIXED),
        ("shared", EVERYTHING, Path.SHARED),
        ("shared;share=team-a", EVERYTHING, Path.DRA),
        ("mps", EVERYTHING, Path.MPS),
        ("mps:50%", EVERYTHING, Path.DRA),
        ("mig:1g.10gb.mps", EVERYTHING, Path.DRA),
        ("whole+mig:1g.10gb", EVERYTHING, Path.DRA),
        ("whole+mig:1g.10gb", EXTENDED, Path.EXTENDED),
        ("whole*2;same=resource.kubernetes.io/pcieRoot", EVERYTHING, Path.DRA),
        ("dra:gpu.nvidia.com{memory>=40Gi}", EVERYTHING, Path.DRA),
    ],
)
def test_the_first_path_that_can_serve_a_request_does(text: str, cluster: ClusterPaths, path: Path) -> None:
    assert place(parse(text), cluster, name="x").path is path


@pytest.mark.parametrize(
    ("text", "cluster", "reason"),
    [
        ("whole+mig:1g.10gb", PLUGIN, "the device plugin gives a container devices of one kind"),
        ("mig:1g.10gb*2;same=parentUUID", PLUGIN, "it cannot make devices match"),
        ("whole;share=a", PLUGIN, "who shares a device"),
        ("shared", PLUGIN, "the device plugin shares no GPU in turns"),
        ("whole", ClusterPaths(paths=(Path.SHARED,)), "the device plugin hands out shares only"),
        ("dra:gpu.nvidia.com", PLUGIN, "knows no device classes"),
        ("mig:1g.5gb", PLUGIN.model_copy(update={"resources": ("nvidia.com/gpu",)}), "no node offers nvidia.com/mig"),
        ("whole:B200", PLUGIN.model_copy(update={"products": ("NVIDIA-L4",)}), "says B200, they are NVIDIA-L4"),
        ("whole:XYZ1", PLUGIN, "says XYZ1"),
        ("mig:1g.5gb", EXTENDED, "no DeviceClass has the extendedResourceName nvidia.com/mig-1g.5gb"),
        ("whole:H100", EXTENDED, "chooses by class alone"),
        ("shared", EXTENDED, "never shared"),
        ("dra:gpu.intel.com", EXTENDED, "there is no DeviceClass gpu.intel.com"),
        ("dra:gpu.intel.com", DRA.model_copy(update={"classes": ("a",)}), "there is no DeviceClass gpu.intel.com"),
        ("whole*33", DRA, "at most 32 devices"),
        ("whole*2" + "".join(f";same=a.b/x{at}" for at in range(33)), DRA, "(same=) in at most 32 attributes"),
        ("whole+dra:vfio.gpu.nvidia.com" + "".join(f";same=a/x{at}" for at in range(32)), DRA, "at most 31 attributes"),
        ("dra:gpu.nvidia.com+dra:vfio.gpu.nvidia.com", ClusterPaths(paths=(Path.EXTENDED,)), "vfio-pci apart"),
        ("whole+shared;same=uuid", DRA, "all shared or all one's own"),
        ("whole", ClusterPaths(paths=()), "it has no GPUs"),
    ],
)  # fmt: skip
def test_what_no_path_can_serve_is_refused_with_the_reasons(
    text: str, cluster: ClusterPaths, reason: str
) -> None:
    error = refused(lambda: place(parse(text), cluster, name="x"))
    assert reason in error.message
    assert "goldpath doctor --gpus" in error.remedy
    assert all(explain(parse(text), cluster).values())


def test_auto_has_to_be_planned_before_it_is_rendered() -> None:
    assert "goldpath plan" in refused(lambda: place(parse("auto"), EVERYTHING, name="x")).remedy


def test_whole_gpus_stay_away_from_nodes_where_the_same_name_means_less() -> None:
    assert place(parse("whole"), PLUGIN, name="x").node_expressions == ()
    keys = {
        one["key"]: one["operator"] for one in place(parse("whole"), EVERYTHING, name="x").node_expressions
    }
    assert keys == {"nvidia.com/gpu.sharing-strategy": "NotIn", "nvidia.com/gpu.slices.gi": "DoesNotExist"}


def test_users_who_ask_for_the_same_share_get_the_same_claim_and_others_do_not() -> None:
    names = {}
    for text in ("shared", "shared:L4", "mps", "mps:50%", "mps:5%,1Gi", "shared;interval=long"):
        first, second = (place(parse(text), DRA, name=name) for name in ("one", "two"))
        assert first.shares
        assert first.objects == second.objects
        assert first.pod_claims == (
            {"name": "gpu", "resourceClaimName": first.objects[0]["metadata"]["name"]},
        )
        names[first.objects[0]["metadata"]["name"]] = text
    assert len(names) == 6
    assert all(re.fullmatch(r"[a-z0-9-]{1,63}", name) for name in names)
    assert not place(parse("whole"), DRA, name="x").shares


def test_a_shared_claim_is_the_same_whatever_its_users_ask_for_besides() -> None:
    (alone,) = place(parse("shared"), DRA, name="x").objects
    own, shared = place(parse("whole:L4+shared"), DRA, name="x").objects
    assert shared == alone
    assert own["metadata"]["annotations"] == {"goldpath/gpu-request": "whole:L4"}
    own, shared = place(parse("mig:1g.5gb+shared;interval=long"), DRA, name="x").objects
    assert own["metadata"]["annotations"] == {"goldpath/gpu-request": "mig:1g.5gb"}
    assert shared["metadata"]["annotations"] == {"goldpath/gpu-request": "shared;interval=long"}


@pytest.mark.parametrize("cuda", ["whole", "whole:H100", "dra:gpu.nvidia.com*2"])
def test_a_gpu_for_cuda_and_one_for_vfio_are_two_cards(cuda: str) -> None:
    """The driver offers each card as both; without the constraint the scheduler takes one card twice."""
    made = place(parse(f"{cuda}+mig:1g.10gb+dra:vfio.gpu.nvidia.com"), DRA, name="x").objects[0]
    devices = made["spec"]["spec"]["devices"]
    (apart,) = devices["constraints"]
    assert apart["distinctAttribute"] == "resource.kubernetes.io/pciBusID"
    classes = {one["name"]: one["exactly"]["deviceClassName"] for one in devices["requests"]}
    cards = ["gpu.nvidia.com"] * parse(cuda).count + ["vfio.gpu.nvidia.com"]
    assert [classes[name] for name in apart["requests"]] == cards, "of several in one request one is compared"
    assert not any("count" in one["exactly"] for one in devices["requests"])
    for alone in (cuda, "dra:vfio.gpu.nvidia.com*2"):
        (claim,) = place(parse(alone), DRA, name="x").objects
        assert "constraints" not in claim["spec"]["spec"]["devices"]


def test_nodes_are_chosen_by_the_label_of_the_resource_that_they_offer() -> None:
    (single,) = place(parse("mig:1g.10gb"), on(Path.MIG_SINGLE), name="x").node_expressions
    (mixed,) = place(parse("mig:1g.10gb"), on(Path.MIG_MIXED), name="x").node_expressions
    assert single["key"] == "nvidia.com/gpu.sharing-strategy"
    assert mixed["key"] == "nvidia.com/mig-1g.10gb.sharing-strategy"
    renamed = ClusterPaths(paths=(Path.SHARED_RENAMED, Path.MPS_RENAMED))
    for text, strategy in (("shared", "time-slicing"), ("mps", "mps")):
        made = place(parse(text), renamed, name="x")
        assert made.limits == {"nvidia.com/gpu.shared": "1"}
        assert made.node_selector == {"nvidia.com/gpu.sharing-strategy": strategy}


def test_only_nvidias_devices_need_nvidias_toleration() -> None:
    assert place(parse("dra:gpu.amd.com"), DRA, name="x").tolerations == ()
    cluster = DRA.model_copy(update={"taints": ("amd.com/gpu", "nvidia.com/gpu")})
    keys = [one["key"] for one in place(parse("dra:gpu.amd.com"), cluster, name="x").tolerations]
    assert keys == ["amd.com/gpu"]
    assert len(place(parse("mig:1g.10gb"), cluster, name="x").tolerations) == 2


def test_a_capacity_stands_under_the_domain_of_its_driver() -> None:
    made = place(parse("dra:gpu.amd.com{memory>=1Gi,b.c/x>=2}"), DRA, name="x").objects[0]
    cel = [
        one["cel"]["expression"]
        for one in made["spec"]["spec"]["devices"]["requests"][0]["exactly"]["selectors"]
    ]
    assert cel == [
        "device.capacity['gpu.amd.com'].memory.compareTo(quantity('1Gi')) >= 0",
        "device.capacity['b.c'].x.compareTo(quantity('2')) >= 0",
    ]


@pytest.mark.parametrize(
    ("product", "fitting", "other"),
    [
        ("H100", "NVIDIA H100 80GB HBM3", "NVIDIA GH100"),
        ("L4", "NVIDIA L4", "NVIDIA L40S"),
        ("A100-80GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB"),
        ("a100-80gb", "NVIDIA A100 80GB PCIe", "NVIDIA A10"),
        ("H200", "NVIDIA H200 NVL", "NVIDIA GH200 480GB"),
        ("RTX-PRO-6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA RTX A6000"),
    ],
)
def test_a_product_is_found_by_whole_words_of_its_name(product: str, fitting: str, other: str) -> None:
    from goldpath.accelerators.devices import matches

    for name, expected in ((fitting, True), (other, False)):
        device = {
            "driver": "gpu.nvidia.com",
            "attributes": {"gpu.nvidia.com": {"productName": name}},
            "capacity": {},
        }
        assert matches([products.selector(product)], device) is expected
        assert bool(products.labels(product, (name.replace(" ", "-"),))) is expected


def test_slices_and_shares_are_no_whole_gpus_on_a_node_label() -> None:
    known = ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA-A100-SXM4-80GB-SHARED")
    assert products.labels("A100", known) == known[:1]
    assert products.labels("A100", known, "-SHARED") == known[2:]
    assert products.slice_labels("1g.10gb", known) == known[1:2]
    assert "NVIDIA-H100-PCIe-MIG-1g.10gb" in products.slice_labels("1g.10gb")


def test_several_containers_share_devices_through_claims_alone() -> None:
    manifest = a_pod()
    manifest["spec"]["containers"] += [{"name": "side", "image": "x"}, {"name": "log", "image": "x"}]
    made = pod(manifest, placed("mps:50%,10Gi", Path.DRA, "pod"), ["main", "side"])[-1]
    claims = [one.get("resources", {}).get("claims") for one in made["spec"]["containers"]]
    assert claims == [[{"name": "gpu"}], [{"name": "gpu"}], None]
    error = refused(lambda: pod(manifest, placed("whole", Path.PLUGIN, "pod"), ["main", "side"]))
    assert "devices of its own" in error.message
    assert (
        "no container typo"
        in refused(lambda: pod(manifest, placed("whole", Path.PLUGIN, "pod"), ["typo"])).message
    )


def test_a_manifest_that_asks_for_gpus_itself_is_refused() -> None:
    manifest = a_pod()
    manifest["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = 1
    for path in (Path.PLUGIN, Path.DRA):
        error = refused(lambda path=path: pod(manifest, placed("whole", path, "pod")))
        assert "asks for nvidia.com/gpu itself" in error.message
    job = a_train_job()
    job["spec"]["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/mig-1g.10gb"] = 1
    assert "itself" in refused(lambda: train_job(job, placed("whole", Path.PLUGIN, "trainjob"))).message


def test_what_the_manifest_says_of_nodes_stays_and_contradictions_are_refused() -> None:
    manifest = a_pod()
    zones = {"key": "zone", "operator": "In", "values": ["a"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [zones]}, {"matchFields": []}]}
    manifest["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
    }
    manifest["spec"]["tolerations"] = [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    manifest["spec"]["nodeSelector"] = {"disk": "ssd"}
    placement = placed("whole", Path.PLUGIN, "pod")
    spec = pod(manifest, placement)[-1]["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert terms[0]["matchExpressions"] == [zones, *placement.node_expressions]
    assert terms[1]["matchExpressions"] == list(placement.node_expressions)
    assert len(spec["tolerations"]) == 1
    assert spec["nodeSelector"] == {"disk": "ssd"}
    manifest["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    one = EVERYTHING.model_copy(update={"products": ("NVIDIA-B200",)})
    error = refused(lambda: pod(manifest, place(parse("whole:B200"), one, name="x")))
    assert "needs NVIDIA-B200" in error.message
    manifest["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "x"}]
    assert "of its own" in refused(lambda: pod(manifest, placed("shared", Path.DRA, "pod"))).message


def test_the_expressions_that_are_rendered_are_checked_like_those_that_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "selector", lambda product: f"device.name == '{product}'")
    error = refused(lambda: place(parse("whole:L4"), DRA, name="x"))
    assert "reads device.name, which there is not" in error.message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("shared+mig:1g.10gb.shared", "mig:1g.10gb.shared+shared"),
        ("whole*2+mig:1g.5gb;share=a", "mig:1g.5gb+whole*2;share=a"),
        ("whole*2;same=uuid;same=a.b/c;share=a", "whole*2;same=a.b/c;same=uuid;share=a"),
    ],
)
def test_a_shared_claim_is_the_same_in_whatever_order_it_is_asked_for(one: str, other: str) -> None:
    first, second = (place(parse(text), DRA, name="x").objects for text in (one, other))
    assert first == second


def test_rendering_leaves_its_input_alone() -> None:
    for consumer, make in workloads.CONSUMERS.items():
        for text, path in (("mig:1g.10gb", Path.DRA), ("mig:1g.10gb", Path.MIG_SINGLE)):
            placement = placed(text, path, consumer)
            before = placement.model_dump_json()
            first, second = make(placement), make(placement)
            assert first == second
            first[0]["metadata"]["labels"] = {"changed": "yes"}
            first[-1]["spec"].clear()
            assert placement.model_dump_json() == before


def test_a_train_job_says_how_many_processes_since_the_trainer_cannot_count_slices_and_claims() -> None:
    for text, path in (("mig:2g.20gb*2", Path.MIG_MIXED), ("whole:H100*2", Path.DRA)):
        made = train_job(a_train_job(), placed(text, path, "trainjob"), a_runtime())[-1]
        assert made["spec"]["trainer"]["numProcPerNode"] == 2
    job = a_train_job()
    job["spec"]["trainer"]["numProcPerNode"] = 1
    made = train_job(job, placed("mig:2g.20gb*2", Path.MIG_MIXED, "trainjob"))[-1]
    assert made["spec"]["trainer"]["numProcPerNode"] == 1


def test_a_train_job_with_claims_has_a_runtime_of_its_own_that_carries_its_resources_too() -> None:
    claim, runtime, job = train_job(a_train_job(), placed("whole:H100*2", Path.DRA, "trainjob"), a_runtime())
    assert claim["kind"] == "ResourceClaimTemplate"
    assert runtime["kind"] == "TrainingRuntime"
    assert set(runtime["metadata"]) == {"name", "namespace", "labels"}
    assert runtime["metadata"]["labels"]["trainer.kubeflow.org/framework"] == "torch"
    initializer, node = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert "resourceClaims" not in initializer["template"]["spec"]["template"]["spec"]
    (container,) = node["template"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"cpu": "4", "memory": "32Gi"}, "claims": [{"name": "gpu"}]}
    assert "resourcesPerNode" not in job["spec"]["trainer"]
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert "runtimePatches" not in job["spec"]


def test_mpi_nodes_and_the_launcher_that_is_one_both_get_the_devices() -> None:
    runtime = a_runtime()
    jobs = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    launcher = {**jobs[1], "name": "launcher"}
    node = {"name": "node", "template": {"spec": {"template": {"spec": {"containers": [{"name": "node"}]}}}}}
    runtime["spec"]["template"]["spec"]["replicatedJobs"] = [jobs[0], node, launcher]
    carrier = train_job(a_train_job(), placed("whole:H100", Path.DRA, "trainjob"), runtime)[1]
    with_claims = [
        job["name"]
        for job in carrier["spec"]["template"]["spec"]["replicatedJobs"]
        if "resourceClaims" in job["template"]["spec"]["template"]["spec"]
    ]
    assert with_claims == ["node", "launcher"]
    job = train_job(a_train_job(), placed("whole:L4", Path.PLUGIN, "trainjob"), runtime)[-1]
    patched = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert [one["name"] for one in patched] == ["node", "launcher"]


def test_a_train_job_refuses_unequal_devices_and_claims_without_its_runtime() -> None:
    mixed = place(parse("whole+mig:1g.10gb"), on(Path.DRA), name="x")
    assert (
        "its processes need equal ones"
        in refused(lambda: train_job(a_train_job(), mixed, a_runtime())).message
    )
    claims = placed("whole:H100", Path.DRA, "trainjob")
    assert "not at hand" in refused(lambda: train_job(a_train_job(), claims)).message
    other = a_runtime()
    other["metadata"]["name"] = "another"
    assert "not at hand" in refused(lambda: train_job(a_train_job(), claims, other)).message


def test_an_inference_service_with_claims_is_in_standard_mode() -> None:
    service = workloads.an_inference_service()
    claims, limits = (placed("whole", path, "inferenceservice") for path in (Path.DRA, Path.PLUGIN))
    mode = "serving.kserve.io/deploymentMode"
    assert inference_service(service, claims)[-1]["metadata"]["annotations"] == {mode: "Standard"}
    assert "annotations" not in inference_service(service, limits)[-1]["metadata"]
    service["metadata"]["annotations"] = {mode: "RawDeployment"}
    assert inference_service(service, claims)[-1]["metadata"]["annotations"] == {mode: "RawDeployment"}
    service["metadata"]["annotations"] = {mode: "Knative"}
    assert "Knative, which refuses" in refused(lambda: inference_service(service, claims)).message


def test_an_inference_service_of_several_nodes_and_one_of_containers() -> None:
    service = workloads.an_inference_service()
    service["spec"]["predictor"]["workerSpec"] = {}
    predictor = inference_service(service, placed("whole", Path.DRA, "inferenceservice"))[-1]["spec"][
        "predictor"
    ]
    assert predictor["workerSpec"]["containers"] == [
        {"name": "worker-container", "resources": {"claims": [{"name": "gpu"}]}}
    ]
    assert predictor["workerSpec"]["resourceClaims"] == predictor["resourceClaims"]
    service["spec"]["predictor"] = {"containers": [{"name": "agent"}, {"name": "kserve-container"}]}
    predictor = inference_service(service, placed("whole", Path.PLUGIN, "inferenceservice"))[-1]["spec"][
        "predictor"
    ]
    assert ["resources" in one for one in predictor["containers"]] == [False, True]
    service["spec"]["predictor"] = {}
    assert (
        "no model" in refused(lambda: inference_service(service, placed("whole", Path.PLUGIN, "pod"))).message
    )


def test_prefill_pods_can_have_other_gpus_than_those_that_decode() -> None:
    service = workloads.an_llm_service()
    service["spec"]["prefill"] = {"replicas": 1, "worker": {"containers": [{"name": "main"}]}}
    decode, prefill = (
        place(parse(text), on(Path.DRA), name=name) for text, name in (("whole:H100", "d"), ("whole:L4", "p"))
    )
    *claims, made = llm_inference_service(service, decode, prefill)
    assert [one["metadata"]["name"] for one in claims] == ["d-gpu", "p-gpu"]
    assert made["spec"]["template"]["resourceClaims"][0]["resourceClaimTemplateName"] == "d-gpu"
    for part in ("template", "worker"):
        assert made["spec"]["prefill"][part]["resourceClaims"][0]["resourceClaimTemplateName"] == "p-gpu"
    assert len(llm_inference_service(service, decode)) == 2
