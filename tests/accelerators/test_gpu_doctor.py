"""`goldpath doctor --gpus` against a server that answers as a cluster does, through the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldpath.accelerators import reading
from goldpath.core.errors import MachineError
from tests.accelerators.clusters import CLASSES, SLICES, node
from tests.accelerators.server import PROXIES, Api, doctor, serving, written

pytestmark = pytest.mark.counted

NODES, DRA = "/api/v1/nodes", "/apis/resource.k8s.io/v1/"


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as file:
        Api.lists = {
            NODES: [node(f"n{at}", {"nvidia.com/gpu": "4"}) for at in range(5)],
            f"{DRA}resourceslices": SLICES,
            f"{DRA}deviceclasses": CLASSES,
        }
        yield file


def test_all_pages_of_all_lists_are_read_with_the_users_token(kubeconfig: Path) -> None:
    nodes, slices, classes = reading.read(str(kubeconfig))
    assert [one["metadata"]["name"] for one in nodes] == ["n0", "n1", "n2", "n3", "n4"]
    assert (slices, classes) == (SLICES, CLASSES)
    assert Api.tokens == {"Bearer abc"}


def test_a_cluster_without_dra_has_no_devices_of_it(kubeconfig: Path) -> None:
    Api.lists = {NODES: []}
    assert reading.read(str(kubeconfig), "here") == ([], [], [])


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (NODES, 403, "refuses to show its nodes and devices"),
        (f"{DRA}resourceslices", 401, "refuses to show its nodes and devices"),
        (NODES, 500, "answers 500"),
        (NODES, 404, "answers 404"),
    ],
)
def test_an_answer_that_is_no_list_is_told_apart(
    kubeconfig: Path, path: str, status: int, message: str
) -> None:
    Api.statuses = {path: status}
    with pytest.raises(MachineError, match=message):
        reading.read(str(kubeconfig))


def test_a_kubeconfig_that_leads_nowhere_is_told_apart(tmp_path: Path, kubeconfig: Path) -> None:
    with pytest.raises(MachineError, match="cannot be used"):
        reading.read(str(tmp_path / "missing"))
    with pytest.raises(MachineError, match="cannot be used"):
        reading.read(str(kubeconfig), "elsewhere")
    (tmp_path / "torn").write_text("{")
    with pytest.raises(MachineError, match="cannot be used"):
        reading.read(str(tmp_path / "torn"))
    with pytest.raises(MachineError, match=r"no Kubernetes cluster answers at http://127\.0\.0\.1:9"):
        reading.read(str(written(tmp_path / "dead", "http://127.0.0.1:9")))


def test_the_command_tells_people_and_programs(kubeconfig: Path) -> None:
    shown = doctor("--gpus", "--kubeconfig", str(kubeconfig))
    assert shown.returncode == 0, shown.stderr
    assert "6 nodes with GPUs. Paths, the best first: dra-extended, plugin, dra." in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["mig:1g.10gb", "dra", "2"] in rows
    asked = doctor(
        "--gpus", "--json", "--kubeconfig", str(kubeconfig), "--request", "whole:L4", "--request", "none"
    )
    told = json.loads(asked.stdout)
    assert told["available"] is True
    assert [(one["request"], one["path"], one["devices"]) for one in told["services"]] == [
        ("whole:L4", "dra", 1),
        ("none", None, None),
    ]


def test_a_reason_is_one_line(kubeconfig: Path) -> None:
    Api.lists = {NODES: [node(f"n{at}", {"nvidia.com/gpu": "1"}) for at in range(5)]}
    shown = doctor("--gpus", "--kubeconfig", str(kubeconfig), "--request", "whole*8")
    assert shown.returncode == 0, shown.stderr
    (row,) = shown.stdout.splitlines()[3:]
    assert row.endswith("plugin: no node has 8 of them, the most is 1")


def test_without_a_cluster_the_command_says_so(tmp_path: Path) -> None:
    plain = doctor("--gpus", HOME=str(tmp_path))
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("error: no Kubernetes cluster is configured")
    assert "--kubeconfig" in plain.stderr
    assert plain.stderr.count("\n") == 1
    told = doctor("--gpus", "--json", HOME=str(tmp_path))
    assert told.returncode == 2
    assert json.loads(told.stdout)["available"] is False
    assert json.loads(told.stdout)["remedy"]


def test_mistakes_on_the_command_line_come_before_the_cluster(tmp_path: Path) -> None:
    lost = doctor("--request", "whole", HOME=str(tmp_path))
    assert (lost.returncode, "doctor --gpus" in lost.stderr) == (2, True)
    mixed = doctor("--gpus", "--namespace", "team", HOME=str(tmp_path))
    assert (mixed.returncode, "whole cluster's" in mixed.stderr) == (2, True)
    wrong = doctor("--gpus", "--request", "whole*0", HOME=str(tmp_path))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "a count of 0" in wrong.stderr
