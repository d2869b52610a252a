"""`deploy/` and `docs/gpus.md`: examples are what the renderer makes of their request; the rest is right upstream."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path as File
from typing import Any

import pytest
import yaml

from goldpath.accelerators.devices import devices, matches
from goldpath.accelerators.expressions import check
from goldpath.accelerators.placement import ClusterPaths, Path
from goldpath.accelerators.profiles import BY_GPU, PROFILES
from goldpath.accelerators.render import (
    inference_service,
    llm_inference_service,
    place,
    pod,
    train_job,
)
from goldpath.accelerators.requests import GpuRequest, parse
from tests import schemas
from tests.accelerators.clusters import SLICES

DEPLOY = File(__file__).parents[2] / "deploy"
EXAMPLES = sorted((DEPLOY / "examples" / "gpus").glob("*.yaml"))
DRA = ClusterPaths(paths=(Path.DRA,))
Manifest = dict[str, Any]


def documents(file: File) -> list[Manifest]:
    return list(yaml.safe_load_all(file.read_text()))


def request_of(file: File) -> GpuRequest:
    (text,) = re.findall(r"^# GPU request: (.+)$", file.read_text(), re.MULTILINE)
    request = parse(text)
    assert str(request) == text, "an example shows the canonical text"
    return request


def without_gpus(manifest: Manifest) -> Manifest:
    """The workload as a person wrote it, before the request was added."""
    bare = deepcopy(manifest)
    spec = bare["spec"]
    for part in (spec, spec.get("predictor", {}), spec.get("template", {})):
        part.pop("resourceClaims", None)
        part.pop("tolerations", None)
    for container in spec.get("containers", []):
        del container["resources"]
    if bare["kind"] == "InferenceService":
        del spec["predictor"]["model"]["resources"], bare["metadata"]["annotations"]
    if bare["kind"] == "LLMInferenceService":
        del spec["template"]
    if bare["kind"] == "TrainJob":
        spec["runtimeRef"] = {"name": "torch-distributed"}
        del spec["trainer"]["numProcPerNode"]
    return bare


def runtime_without_gpus(carrier: Manifest) -> Manifest:
    bare = deepcopy(carrier)
    bare["metadata"] = {
        "name": "torch-distributed",
        "labels": {"trainer.kubeflow.org/framework": "torch"},
    }
    spec = bare["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    del spec["resourceClaims"], spec["tolerations"], spec["containers"][0]["resources"]
    return bare


def rendered(manifest: Manifest, request: GpuRequest, all_of_it: list[Manifest]) -> list[Manifest]:
    placement = place(request, DRA, name=manifest["metadata"]["name"])
    bare = without_gpus(manifest)
    if manifest["kind"] == "Pod":
        return pod(bare, placement, [one["name"] for one in bare["spec"]["containers"]])
    if manifest["kind"] == "TrainJob":
        (carrier,) = [one for one in all_of_it if one["kind"] == "TrainingRuntime"]
        return train_job(bare, placement, runtime_without_gpus(carrier))
    if manifest["kind"] == "InferenceService":
        return inference_service(bare, placement)
    return llm_inference_service(bare, placement)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_what_its_request_is_rendered_to(file: File) -> None:
    shown = documents(file)
    beside = {"ResourceClaim", "ResourceClaimTemplate", "TrainingRuntime"}
    made: list[Manifest] = []
    for workload in [one for one in shown if one["kind"] not in beside]:
        made += [item for item in rendered(workload, request_of(file), shown) if item not in made]
    assert made == shown


@pytest.mark.contract
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_valid_upstream(file: File) -> None:
    for item in documents(file):
        assert not schemas.problems(item)


def test_what_the_device_plugin_cannot_do_has_an_example_that_does_it() -> None:
    requests = {file.stem: request_of(file) for file in EXAMPLES}
    first = {file.stem: documents(file)[0] for file in EXAMPLES}
    plugin = ClusterPaths(paths=tuple(path for path in Path if path.startswith("plugin")))
    by_plugin = {"train-job", "llm-inference-service"}  # shown for where their claims stand
    for name, request in requests.items():
        from goldpath.accelerators.render import explain

        assert all(explain(request, plugin).values()) == (name not in by_plugin), name

    def devices_of(name: str) -> Manifest:
        spec = first[name]["spec"]
        found: Manifest = spec.get("spec", spec)["devices"]
        return found

    assert len(devices_of("two-gpu-types")["requests"]) == 2
    assert devices_of("complex-constraints")["constraints"]
    assert first["shared-by-name"]["kind"] == "ResourceClaim"
    assert devices_of("mps")["config"][0]["opaque"]["parameters"]["sharing"]["strategy"] == "MPS"
    assert devices_of("mig-on-demand")["constraints"] == [{"matchAttribute": "gpu.nvidia.com/parentUUID"}]
    classes = [one["exactly"]["deviceClassName"] for one in devices_of("driver-by-device")["requests"]]
    assert classes == ["gpu.nvidia.com", "vfio.gpu.nvidia.com"]


@pytest.mark.contract
def test_each_profile_of_the_usual_gpus_has_a_class_with_the_plugins_name() -> None:
    classes = documents(DEPLOY / "gpus" / "dra" / "device-classes.yaml")
    names = [one["spec"]["extendedResourceName"] for one in classes]
    assert len(set(names)) == len(names)
    profiles = {name.removeprefix("nvidia.com/mig-") for name in names}
    usual = ("A30", "A100-40GB", "A100-80GB", "H100", "H100-NVL", "GH200", "H200", "B200")
    assert profiles == {profile for gpu in usual for profile in BY_GPU[gpu]}
    for one in classes:
        assert not schemas.problems(one)
        (selector,) = one["spec"]["selectors"]
        check(selector["cel"]["expression"])
        profile = one["spec"]["extendedResourceName"].removeprefix("nvidia.com/mig-")
        taken = [one for one in devices(SLICES) if matches([selector["cel"]["expression"]], one.device)]
        assert len(taken) == {"1g.10gb": 2, "1g.10gb.me": 1}.get(profile, 0)


@pytest.mark.contract
@pytest.mark.parametrize(
    "name", ["gpus/device-plugin/time-slicing", "gpus/device-plugin/mig", "base/doctor-role"]
)
def test_what_an_administrator_applies_is_valid_upstream(name: str) -> None:
    for item in documents(DEPLOY / f"{name}.yaml"):
        assert not schemas.problems(item)


def test_device_plugin_configurations_are_in_its_format() -> None:
    (config,) = documents(DEPLOY / "gpus" / "device-plugin" / "time-slicing.yaml")
    parts = {name: yaml.safe_load(text) for name, text in config["data"].items()}
    assert all(part["version"] == "v1" for part in parts.values())
    assert {part["flags"]["migStrategy"] for part in parts.values()} == {"none", "single", "mixed"}
    known = {"renameByDefault", "failRequestsGreaterThanOne", "resources"}
    for part in parts.values():
        for strategy, sharing in part.get("sharing", {}).items():
            assert strategy in ("timeSlicing", "mps")
            assert set(sharing) <= known - ({"failRequestsGreaterThanOne"} if strategy == "mps" else set())
            for resource in sharing["resources"]:
                assert resource["replicas"] > 1
                assert re.fullmatch(r"nvidia\.com/(gpu|mig-.+)", resource["name"])


def test_mig_layouts_fit_the_gpus_that_they_are_for() -> None:
    (config,) = documents(DEPLOY / "gpus" / "device-plugin" / "mig.yaml")
    layouts = yaml.safe_load(config["data"]["config.yaml"])
    assert layouts["version"] == "v1"
    for name, parts in layouts["mig-configs"].items():
        for part in parts:
            assert set(part) <= {"devices", "mig-enabled", "mig-devices"}
            cut = {profile.replace("+", "."): count for profile, count in part.get("mig-devices", {}).items()}
            assert set(cut) <= PROFILES
            assert part["mig-enabled"] == bool(cut)
            most = 4 if "a30" in name else 7
            assert sum(int(profile[0]) * count for profile, count in cut.items()) <= most


def test_every_request_in_the_documentation_is_one() -> None:
    text = (DEPLOY.parent / "docs" / "gpus.md").read_text()
    table = text.partition("## The string")[2].partition("## ")[0]
    requests = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(requests) > 20
    assert [str(parse(text)) for text in requests] == requests
