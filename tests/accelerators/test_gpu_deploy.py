"""`deploy/` and `docs/gpus.md`: what examples show, and that the rest is right upstream."""

from __future__ import annotations

import re
from pathlib import Path as File
from typing import Any

import pytest
import yaml

from goldpath.accelerators.devices import devices, matches
from goldpath.accelerators.expressions import check
from goldpath.accelerators.placement import ClusterPaths, Path
from goldpath.accelerators.profiles import BY_GPU, PROFILES
from goldpath.accelerators.requests import GpuRequest, parse
from goldpath.pipelines.manifests import render
from tests import schemas
from tests.accelerators.clusters import SLICES

DEPLOY = File(__file__).parents[2] / "deploy"
EXAMPLES = sorted((DEPLOY / "examples" / "gpus").glob("*.yaml"))
Manifest = dict[str, Any]


def documents(file: File) -> list[Manifest]:
    return list(yaml.safe_load_all(file.read_text()))


def request_of(file: File) -> GpuRequest:
    text = yaml.safe_load(file.read_text())["gpu"]
    request = parse(text)
    assert str(request) == text, "an example shows the canonical text"
    return request


def test_what_the_device_plugin_cannot_do_has_an_example_that_does_it() -> None:
    requests = {file.stem: request_of(file) for file in EXAMPLES}
    first = {file.stem: render(file.read_text(), file.name)[0] for file in EXAMPLES}
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
