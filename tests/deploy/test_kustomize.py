"""`deploy/base` and its overlays: they build, every object is valid, and nothing is granted that is not used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from goldpath.accelerators.placement import Path as Way
from goldpath.core.checks import needs
from goldpath.core.checks.api import connect
from goldpath.core.checks.needs import Use
from goldpath.pipelines.doctor import diagnose
from tests import schemas
from tests.accelerators.server import Api
from tests.accelerators.workloads import CONSUMERS
from tests.deploy.manifests import DEPLOY, ROOT, Manifest, build, built, only

FOLDERS = ("base", "overlays/device-plugin", "overlays/dra")
NOT_BY_STEPS = {
    "Pod": "rendered for people who bring their own pods",
    "ClusterTrainingRuntime": "applied by an administrator: deploy/runtimes",
    "ServingRuntime": "applied by an administrator: deploy/serving",
    "ClusterServingRuntime": "applied by an administrator: deploy/serving",
    "LocalModelCache": "of the whole cluster: applied by an administrator, steps read it",
    "LocalModelNodeGroup": "of the whole cluster: applied by an administrator, steps read it",
}
"""Kinds that our code renders and no step creates."""
BY_BACKENDS = {"Experiment", "PyTorchJob", "LocalModelNamespaceCache", "ScaledObject", "ConfigMap"}
"""Kinds that the backends of training and serving create, for which there need be no golden file."""


@pytest.mark.contract
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_valid_and_lies_in_its_namespace(folder: str) -> None:
    objects = built(folder)
    assert len({(one["kind"], one["metadata"]["name"]) for one in objects}) == len(objects)
    for one in objects:
        assert not schemas.problems(one)
        assert (
            one["kind"] == "DeviceClass"
            or one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "goldpath"
        )
    assert {one["metadata"].get("namespace") for one in objects} == {None, "goldpath"}


def test_overlays_bring_what_their_gpus_need() -> None:
    plugin, dra = built("overlays/device-plugin"), built("overlays/dra")
    configurations = built("gpus/device-plugin")
    assert not [problem for one in configurations for problem in schemas.problems(one)]
    assert {one["metadata"]["name"]: one["metadata"]["namespace"] for one in configurations} == {
        "goldpath-mig": "gpu-operator",
        "goldpath-device-plugin": "gpu-operator",
    }
    assert not [one for one in plugin if one["kind"] in ("DeviceClass", "ConfigMap")]
    assert only(dra, "DeviceClass", "mig-1g-10gb.gpu.nvidia.com")
    assert not [one for one in dra if one["kind"] == "ConfigMap"]
    for objects, extra in (
        (plugin, "requests.nvidia.com/mig-1g.10gb"),
        (dra, "gpu.nvidia.com.deviceclass.resource.k8s.io/devices"),
    ):
        hard = only(objects, "ResourceQuota", "goldpath")["spec"]["hard"]
        assert {extra, "requests.cpu", "requests.nvidia.com/gpu"} <= set(hard)


@pytest.mark.parametrize("folder", ["overlays/device-plugin", "overlays/dra"])
def test_every_name_of_a_slice_is_limited(folder: str) -> None:
    """A slice that is asked for by name counts by that name alone, and a name that the quota lacks is not limited."""
    classes = [one for one in built("gpus/dra") if one["kind"] == "DeviceClass"]
    names = {f"requests.{one['spec']['extendedResourceName']}" for one in classes}
    hard = only(built(folder), "ResourceQuota", "goldpath")["spec"]["hard"]
    assert len(names) > 40
    assert not names - set(hard)
    assert hard["requests.nvidia.com/mig-1g.10gb"] == "14", "seven on each of two GPUs"


def granted(role: Manifest) -> set[tuple[str, str, str]]:
    """Group, resource and verb, each on its own."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(uses: tuple[Use, ...]) -> set[tuple[str, str, str]]:
    return {(use.group, use.plural, verb) for use in uses for verb in use.verbs}


def test_the_roles_grant_what_the_table_says_and_no_more() -> None:
    base = built("base")
    assert granted(only(base, "Role", "goldpath-pipeline")) == used(needs.NAMESPACED)
    assert granted(only(base, "ClusterRole", "goldpath-pipeline")) == used(needs.CLUSTER_WIDE)
    assert {verb for use in needs.CLUSTER_WIDE for verb in use.verbs} <= set(needs.READ)


def test_the_service_account_is_bound_to_those_roles_alone() -> None:
    base = built("base")
    bound = [
        (one["roleRef"]["kind"], one["roleRef"]["name"])
        for one in base
        if one["kind"] in ("RoleBinding", "ClusterRoleBinding")
    ]
    assert sorted(bound) == [
        ("ClusterRole", "goldpath-pipeline"),
        ("Role", "goldpath-kfp-step"),
        ("Role", "goldpath-pipeline"),
    ]
    account = {"kind": "ServiceAccount", "name": needs.SERVICE_ACCOUNT, "namespace": needs.NAMESPACE}
    subjects = [subject for one in base for subject in one.get("subjects", ())]
    assert subjects == [account] * 3
    for rule in only(base, "Role", "goldpath-kfp-step")["rules"]:
        assert rule["apiGroups"] == ["argoproj.io"] or rule["resourceNames"]


def documents() -> Iterator[tuple[Path, Manifest]]:
    """Every object in a golden file and in an example."""
    for file in sorted([*ROOT.glob("tests/**/golden/**/*.yaml"), *DEPLOY.glob("examples/**/*.yaml")]):
        for one in yaml.safe_load_all(file.read_text()):
            if isinstance(one, dict) and "kind" in one and "apiVersion" in one:
                yield file, one


def creatable() -> set[tuple[str, str]]:
    return {(use.api, use.kind) for use in needs.NAMESPACED if "create" in use.verbs}


def test_a_step_may_create_every_kind_that_our_code_renders() -> None:
    rendered = {(one["apiVersion"], one["kind"]) for _, one in documents()}
    assert not {pair for pair in rendered - creatable() if pair[1] not in NOT_BY_STEPS}
    assert {kind for _, kind in creatable() - rendered} <= BY_BACKENDS
    consumed = {
        ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
        ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"),
        ("serving.kserve.io/v1beta1", "InferenceService"),
        ("serving.kserve.io/v1alpha2", "LLMInferenceService"),
        ("resource.k8s.io/v1", "ResourceClaim"),
        ("resource.k8s.io/v1", "ResourceClaimTemplate"),
    }
    assert consumed <= rendered, "the golden files of accelerators/render are read"


def test_the_golden_files_show_every_way_and_every_consumer() -> None:
    """Else the test above holds the Role against less than what is rendered."""
    names = {file.stem for file, _ in documents() if file.parent == ROOT / "tests/accelerators/golden"}
    assert names == {f"{way}.{consumer}" for way in Way for consumer in CONSUMERS}


@pytest.mark.contract
def test_plurals_and_kinds_are_those_of_the_upstream_definitions() -> None:
    if not schemas.CRDS.is_dir():
        pytest.skip(f"no {schemas.CRDS}")
    known = {}
    for file in schemas.CRDS.rglob("*.yaml"):
        definition = yaml.load(file.read_text(), Loader=schemas.FAST)["spec"]
        for version in definition["versions"]:
            api = f"{definition['group']}/{version['name']}"
            known[api, definition["names"]["plural"]] = (definition["names"]["kind"], definition["scope"])
    groups = {api.partition("/")[0] for api, _ in known}
    held = 0
    for scope, uses in (("Namespaced", needs.NAMESPACED), ("Cluster", needs.CLUSTER_WIDE)):
        for use in (use for use in uses if use.group in groups):
            assert known[use.api, use.plural] == (use.kind, scope)
            held += 1
    assert held > 10


def test_the_namespace_takes_restricted_pods_alone() -> None:
    labels = only(built("base"), "Namespace", "goldpath")["metadata"]["labels"]
    modes = {f"pod-security.kubernetes.io/{mode}" for mode in ("enforce", "audit", "warn")}
    assert {labels[mode] for mode in modes} == {"restricted"}


def reaches(
    policies: list[Manifest], labels: dict[str, str], way: str, peer: dict[str, Any], port: int
) -> bool:
    """Whether a pod may be reached from (`ingress`) or reach (`egress`) a peer: {namespace} or {address}."""
    return any(
        _selects(policy["spec"]["podSelector"], labels)
        and any(
            _port(rule, port)
            and any(_is_peer(one, peer) for one in rule["from" if way == "ingress" else "to"])
            for rule in policy["spec"].get(way, ())
        )
        for policy in policies
    )


def _selects(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        one["key"] in labels and (one["operator"] == "Exists" or labels[one["key"]] in one["values"])
        for one in selector.get("matchExpressions", ())
    )


def _port(rule: Manifest, port: int) -> bool:
    return "ports" not in rule or port in [one["port"] for one in rule["ports"]]


def _is_peer(one: Manifest, peer: dict[str, Any]) -> bool:
    import ipaddress

    if "ipBlock" in one:
        address = ipaddress.ip_address(
            peer.get("address", "::1" if ":" in one["ipBlock"]["cidr"] else "0.0.0.1")
        )
        nets = [
            ipaddress.ip_network(net) for net in (one["ipBlock"]["cidr"], *one["ipBlock"].get("except", ()))
        ]
        return "address" in peer and address in nets[0] and not any(address in net for net in nets[1:])
    if "namespaceSelector" in one:
        labels = {"kubernetes.io/metadata.name": peer.get("namespace", "")}
        return _selects(one["namespaceSelector"], labels)
    return peer.get("namespace") == "goldpath"


@pytest.mark.parametrize(
    ("labels", "way", "peer", "port", "allowed"),
    [
        ({}, "ingress", {"namespace": "goldpath"}, 29500, True),
        ({}, "ingress", {"namespace": "kubeflow"}, 8080, False),
        ({}, "ingress", {"namespace": "team"}, 29500, False),
        ({"serving.kserve.io/inferenceservice": "m"}, "ingress", {"namespace": "istio-system"}, 8080, True),
        ({"serving.kserve.io/inferenceservice": "m"}, "ingress", {"namespace": "team"}, 8080, False),
        (
            {"app.kubernetes.io/part-of": "llminferenceservice"},
            "ingress",
            {"namespace": "monitoring"},
            8000,
            True,
        ),
        ({}, "egress", {"namespace": "kube-system"}, 53, True),
        ({}, "egress", {"namespace": "kube-system"}, 10250, False),
        ({}, "egress", {"namespace": "openshift-dns"}, 5353, True),
        ({}, "egress", {"address": "169.254.20.10"}, 53, True),
        ({}, "egress", {"address": "169.254.20.10"}, 443, False),
        ({}, "egress", {"namespace": "envoy-gateway-system"}, 10080, True),
        ({}, "egress", {"namespace": "kubeflow"}, 6789, True),
        ({}, "egress", {"namespace": "kubeflow-system"}, 10443, True),
        ({"katib.kubeflow.org/suggestion": "s"}, "ingress", {"namespace": "kubeflow"}, 6789, True),
        ({"katib.kubeflow.org/suggestion": "s"}, "ingress", {"namespace": "kubeflow"}, 6788, True),
        ({"katib.kubeflow.org/suggestion": "s"}, "ingress", {"namespace": "kubeflow"}, 8080, False),
        ({"katib.kubeflow.org/suggestion": "s"}, "ingress", {"namespace": "team"}, 6789, False),
        ({}, "ingress", {"namespace": "kubeflow"}, 6789, False),
        ({}, "egress", {"namespace": "team"}, 8080, False),
        ({}, "egress", {"address": "10.96.0.1"}, 443, True),
        ({}, "egress", {"address": "203.0.113.7"}, 25, False),
        ({}, "egress", {"address": "169.254.169.254"}, 443, False),
        ({}, "egress", {"address": "fd00:ec2::254"}, 443, False),
        ({}, "egress", {"address": "2001:db8::1"}, 443, True),
    ],
)
def test_pods_reach_what_they_need_and_nothing_else(
    labels: dict[str, str], way: str, peer: dict[str, Any], port: int, allowed: bool
) -> None:
    policies = [one for one in built("base") if one["kind"] == "NetworkPolicy"]
    closed = only(policies, "NetworkPolicy", "goldpath-default-deny")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert reaches(policies, labels, way, peer, port) == allowed


def test_a_pod_that_says_nothing_of_its_size_is_not_refused_by_the_quota() -> None:
    base = built("base")
    hard = only(base, "ResourceQuota", "goldpath")["spec"]["hard"]
    (limit,) = only(base, "LimitRange", "goldpath")["spec"]["limits"]
    asked = {name.removeprefix("requests.") for name in hard if re.fullmatch(r"requests\.(cpu|memory)", name)}
    assert asked == set(limit["defaultRequest"]) == {"cpu", "memory"}
    assert not [name for name in hard if name.startswith("limits.")]
    assert "default" not in limit, "it would refuse a container that asks for more"


def test_the_doctor_may_read_all_that_it_reads(cluster: Path) -> None:
    diagnose(connect(str(cluster)))
    role = granted(only(built("base"), "ClusterRole", "goldpath-doctor"))
    discovery = ("/version", "/apis/*.*", "/apis/*/v*")
    read = set()
    for path in Api.paths:
        parts = path.strip("/").split("/")
        if any(fnmatch(path, one) for one in discovery) and len(parts) <= 3:
            continue
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        if len(rest) > 2 and rest[0] == "namespaces":
            rest = rest[2:]
        read.add((group, rest[0], "list" if len(rest) == 1 else "get"))
    secrets = {("", "secrets", "get")}  # whoever may see that one is there may read it
    assert read == role | secrets
    assert not secrets & role
    rules = only(built("base"), "ClusterRole", "goldpath-doctor")["rules"]
    (settings,) = [rule for rule in rules if rule["resources"] == ["configmaps"]]
    assert set(settings["resourceNames"]) == {
        path.rsplit("/")[-1] for path in Api.paths if "/configmaps/" in path
    }


def test_the_docs_overlay_moves_everything_to_another_namespace(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "from-laptop-to-cluster.md").read_text()
    (text,) = re.findall(r"```yaml\n(# deploy/overlays/team-a/kustomization\.yaml\n.+?)```", page, re.DOTALL)
    for source in ("base", "gpus", "overlays"):
        for file in (DEPLOY / source).rglob("*.yaml"):
            copy = tmp_path / file.relative_to(DEPLOY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(file.read_text())
    place = tmp_path / "overlays" / "team-a"
    place.mkdir()
    (place / "kustomization.yaml").write_text(text)
    objects = build(place)
    assert {one["metadata"].get("namespace") for one in objects} == {None, "team-a"}
    assert only(objects, "Namespace", "team-a")
    subjects = [subject["namespace"] for one in objects for subject in one.get("subjects", ())]
    assert subjects == ["team-a"] * 3
    bindings = [one["metadata"]["name"] for one in objects if one["kind"] == "ClusterRoleBinding"]
    assert bindings == ["goldpath-pipeline-team-a"], "one of the same name would take the other team's away"
    assert only(objects, "ResourceQuota", "goldpath")["spec"]["hard"]["requests.cpu"] == "16"
