"""Every example of `deploy/examples` works as it is: rendered twice, kept in files, held against upstream schemas.

``GOLDPATH_GOLDEN=write pytest tests/render`` writes the files anew; read the difference.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from goldpath.accelerators.render.claims import API as CLAIMS
from goldpath.pipelines import manifests
from tests import schemas

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
FOLDER = ROOT / "deploy" / "examples"
EXAMPLES = sorted(FOLDER.rglob("*.yaml"))
KINDS = {
    "TrainJob", "TrainingRuntime", "Experiment", "InferenceService", "LLMInferenceService", "ScaledObject", "ConfigMap",
    "LocalModelCache", "LocalModelNamespaceCache", "LocalModelNodeGroup", "ResourceClaim", "ResourceClaimTemplate",
    "Pod",
}  # fmt: skip


def named(file: Path) -> str:
    return ".".join(file.relative_to(FOLDER).with_suffix("").parts)


def rendered(file: Path) -> list[manifests.Manifest]:
    return manifests.render(file.read_text(), str(file.relative_to(ROOT)))


def written(file: Path) -> str:
    return "---\n".join(manifests.to_yaml(one) for one in rendered(file))


each = pytest.mark.parametrize("file", EXAMPLES, ids=named)


@each
def test_an_example_is_what_its_golden_file_says_each_time(file: Path) -> None:
    text = written(file)
    golden = GOLDEN / f"{named(file)}.yaml"
    if os.environ.get("GOLDPATH_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
    assert text == written(file)
    assert list(yaml.safe_load_all(text)) == rendered(file), "what is printed is what was rendered"


def test_no_golden_file_is_left_over_and_every_kind_is_shown() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == {named(file) for file in EXAMPLES}
    assert {one["kind"] for file in EXAMPLES for one in rendered(file)} == KINDS


@pytest.mark.contract
@each
def test_an_example_is_valid_upstream(file: Path) -> None:
    for one in rendered(file):
        if one["kind"] == "ScaledObject":
            continue  # tests/serving/manifests holds them against KEDA's reference
        assert not schemas.problems(one)
        if one["kind"] == "Experiment":
            assert not schemas.problems({"metadata": {}, **one["spec"]["trialTemplate"]["trialSpec"]})


@each
def test_objects_come_after_what_they_refer_to(file: Path) -> None:
    objects = rendered(file)
    for number, one in enumerate(objects):
        names = {(x["kind"], x["metadata"]["name"]) for x in objects[:number]}
        text = yaml.safe_dump(one)
        for later in objects[number + 1 :]:
            if later["apiVersion"] == CLAIMS or later["kind"] == "TrainingRuntime":
                assert f"emplateName: {later['metadata']['name']}\n" not in text
                assert f"Name: {later['metadata']['name']}\n" not in text
        if one["kind"] == "TrainJob" and one["spec"]["runtimeRef"].get("kind") == "TrainingRuntime":
            assert ("TrainingRuntime", one["spec"]["runtimeRef"]["name"]) in names


def test_another_process_with_another_hash_seed_prints_the_same_bytes() -> None:
    file = FOLDER / "whole-path.yaml"
    printed = [
        subprocess.run(
            [sys.executable, "-m", "goldpath.cli.main", "render", "all", "-f", str(file)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1] == written(file).encode()
