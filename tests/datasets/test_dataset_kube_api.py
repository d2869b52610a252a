"""The built-in data set: what it says about the installed packages, and that nothing leaks between its splits."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from goldpath.core.errors import DataError
from goldpath.core.reuse import Reused
from goldpath.training.datasets import check, kube_api, prepare
from goldpath.training.datasets.api_models import bare_kind, read_objects
from goldpath.training.datasets.kube_api import shorten
from goldpath.training.datasets.text import fold
from goldpath.training.results import DataCard
from goldpath.training.specs import DatasetSpec


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Reused[DataCard]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLDPATH_HOME", str(tmp_path_factory.mktemp("kube")))
        return prepare(DatasetSpec())


@pytest.fixture(scope="module")
def rows(prepared: Reused[DataCard]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(prepared.path / "documents.parquet").to_pylist()
    return found


def test_the_real_reference_of_all_four_packages_is_in_it(
    prepared: Reused[DataCard], rows: list[dict[str, object]]
) -> None:
    card = prepared.result
    assert 2_000 < card.rows_out == len(rows) < card.rows_in
    assert card.rows_in == card.rows_out + sum(card.dropped.values())
    assert {str(row["source"]).split("==")[0] for row in rows} == {
        package.name for package in kube_api.PACKAGES
    }
    replicas = next(row for row in rows if row["id"] == "explain:apps/v1/Deployment:spec.replicas")
    assert str(replicas["answer"]).startswith(
        "`spec.replicas` (integer, optional): Number of desired pods. This is a pointer to distinguish"
    )
    assert replicas["group"] == "DeploymentSpec"
    assert replicas["source"] == f"{kube_api.PACKAGES[0].pinned} V1DeploymentSpec.replicas"
    image = next(row for row in rows if row["id"] == "place:v1/Pod:spec.containers[].image")
    assert str(image["answer"]) == (
        "Set `spec.containers[].image` (string, optional) like this:\n\n"
        "```yaml\napiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - image: <string>\n```"
    )
    assert any(
        "trainer.kubeflow.org" in str(row["id"]) and "(RuntimeRef, required)" in str(row["answer"])
        for row in rows
    )


def test_no_group_and_no_description_is_in_two_splits(rows: list[dict[str, object]]) -> None:
    splits, said = defaultdict(set), defaultdict(set)
    for row in rows:
        splits[row["group"]].add(row["split"])
        if str(row["id"]).startswith("explain:"):
            field = str(row["id"]).rpartition(":")[2].rpartition(".")[2]
            said[field, fold(str(row["answer"]).split("): ", 1)[1])].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert all(len(found) == 1 for found in said.values())
    assert {split for found in splits.values() for split in found} == {"train", "validation", "test"}


def test_one_object_of_many_packages_is_one_group() -> None:
    names = (
        "V1ObjectMeta",
        "IoK8sApimachineryPkgApisMetaV1ObjectMeta",
        "K8sIoApimachineryPkgApisMetaV1ObjectMeta",
    )
    assert {bare_kind(name)[0] for name in names} == {"ObjectMeta"}
    assert bare_kind("TrainerV1alpha1TrainJobSpec") == ("TrainJobSpec", "v1alpha1")
    assert bare_kind("V2HorizontalPodAutoscalerSpec") == ("HorizontalPodAutoscalerSpec", "v2")
    assert bare_kind("IoK8sApimachineryPkgApiResourceQuantity") == ("Quantity", "")


def test_every_manifest_is_yaml_and_leads_to_its_field(rows: list[dict[str, object]]) -> None:
    manifests = [row for row in rows if str(row["id"]).startswith("place:")]
    assert len(manifests) > 800
    for row in manifests:
        where = yaml.safe_load(str(row["answer"]).split("```yaml\n")[1].split("```")[0])
        _, resource, path = str(row["id"]).split(":")
        assert f"{where['apiVersion']}/{where['kind']}" == resource
        for step in path.split("."):
            where = where[step.removesuffix("[]")]
            where = where[0] if step.endswith("[]") else where
        assert where is not None


def test_the_same_packages_give_the_same_bytes(
    prepared: Reused[DataCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path))
    again = prepare(DatasetSpec(max_rows=400)), prepare(DatasetSpec(max_rows=401))
    assert not again[0].reused
    assert not again[1].reused
    assert prepare(DatasetSpec(max_rows=400)).reused
    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "other"))
    fresh = prepare(DatasetSpec(max_rows=400))
    assert not fresh.reused
    assert fresh.result == again[0].result
    assert (fresh.path / "documents.parquet").read_bytes() == (
        again[0].path / "documents.parquet"
    ).read_bytes()
    assert again[1].result.rows_in == 401


def test_addresses_in_the_reference_are_not_mangled(
    prepared: Reused[DataCard], rows: list[dict[str, object]]
) -> None:
    text = " ".join(str(row["answer"]) for row in rows)
    assert "127.0.0.0/8" in text
    assert prepared.result.pii == {}


def test_a_package_that_is_missing_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(DatasetSpec())
    missing = (kube_api.Package("kube_api_of_nobody", "models"),)
    monkeypatch.setattr(kube_api, "PACKAGES", missing)
    for call in (check, prepare):
        with pytest.raises(DataError, match=r"needs the package kube_api_of_nobody.*make setup"):
            call(DatasetSpec())
    monkeypatch.setattr(kube_api, "PACKAGES", (kube_api.Package("yaml", "models"),))
    with pytest.raises(DataError, match="yaml"):
        check(DatasetSpec())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One two. Three four.", "One two. Three four."),
        ("One two three. Four five six. Seven.", "One two three."),
        ("One two three four five six seven. Eight.", "One two three four five six seven."),
        ("See e.g. this one, that too.", "See e.g. this one, that too."),
    ],
)
def test_a_long_description_ends_with_a_whole_sentence(text: str, kept: str) -> None:
    assert shorten(text, words=5) == kept


def test_both_kinds_of_generated_client_are_understood(tmp_path: Path) -> None:
    (tmp_path / "v1_box.py").write_text(
        "class V1Box(object):\n"
        '    openapi_types = {"size_gb": "int", "lids": "list[V1Lid]", "tags": "dict(str, str)"}\n'
        '    attribute_map = {"size_gb": "sizeGb", "lids": "lids", "tags": "tags"}\n'
        "    def __init__(self, size_gb=None, lids=None, tags=None):\n"
        "        self._size_gb = None\n"
        "        if tags is not None:\n"
        "            self.tags = tags\n"
        "        self.size_gb = size_gb\n"
        "    @property\n"
        "    def size_gb(self):\n"
        '        """Gets the size_gb of this V1Box.  # noqa: E501\n\n'
        '        How big it is.  # noqa: E501\n\n        :return: The size.\n        """\n'
    )
    (tmp_path / "v1_lid.py").write_text(
        'class V1Lid(BaseModel):\n    """A lid."""\n'
        "    fits: Optional[List[Dict[str, V1Box]]] = "
        'Field(default=None, description="What it\\n fits.", alias="fitsOn")\n'
        "    width: Union[StrictFloat, StrictInt]\n"
        '    __properties: ClassVar[List[str]] = ["fitsOn"]\n'
    )
    box, lid = read_objects(tmp_path)
    assert [(f.name, f.type, f.required, f.description, f.target, f.container) for f in box.fields] == [
        ("sizeGb", "integer", True, "How big it is.", "", ""),
        ("lids", "list of Lid", False, "", "V1Lid", "list"),
        ("tags", "map of string", False, "", "", "map"),
    ]
    assert [(f.name, f.type, f.required, f.description) for f in lid.fields] == [
        ("fitsOn", "list of map of Box", False, "What it fits."),
        ("width", "number", True, ""),
    ]
    assert lid.description == "A lid."
