"""What each consumer gets on each path: kept in files, and held against the upstream schemas.

``GOLDPATH_GOLDEN=write pytest tests/accelerators/test_gpu_golden.py`` writes the files anew; read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path as File

import pytest
import yaml

from goldpath.accelerators.placement import Path, Placement
from goldpath.accelerators.requests import parse
from tests import schemas
from tests.accelerators.workloads import CASES, CONSUMERS, EVERYTHING, placed

GOLDEN = File(__file__).parent / "golden"
MANY_KINDS = {"whole:H100+mig:1g.10gb", "whole+shared;interval=short"}


def rendered(path: Path, consumer: str) -> dict[str, list[dict[str, object]]]:
    """Each request of the path that the consumer can take, and its objects."""
    texts = [text for text in CASES[path] if consumer != "trainjob" or text not in MANY_KINDS]
    return {text: CONSUMERS[consumer](placed(text, path, consumer)) for text in texts}


def written(path: Path, consumer: str) -> str:
    parts = []
    for text, objects in rendered(path, consumer).items():
        documents = [yaml.safe_dump(item, sort_keys=False, width=1000) for item in objects]
        parts.append(f"# {text}\n---\n" + "---\n".join(documents))
    return "".join(parts)


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("path", list(Path))
def test_each_consumer_on_each_path_gets_what_the_golden_file_says(path: Path, consumer: str) -> None:
    file = GOLDEN / f"{path}.{consumer}.yaml"
    text = written(path, consumer)
    if os.environ.get("GOLDPATH_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()
    assert text == written(path, consumer), "the order changes from one rendering to the next"


def test_there_is_no_golden_file_that_nobody_reads() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {
        f"{path}.{consumer}.yaml" for path in Path for consumer in CONSUMERS
    }


@pytest.mark.contract
def test_the_upstream_schemas_are_at_hand() -> None:
    if not schemas.CRDS.is_dir():
        pytest.skip(
            f"no {schemas.CRDS}: the Trainer's and KServe's objects are held against typed models alone"
        )
    damaged = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {},
        "spec": {"a": 1},
    }
    assert schemas.upstream_problems(damaged)


@pytest.mark.contract
@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("path", list(Path))
def test_what_is_rendered_is_valid_upstream(path: Path, consumer: str) -> None:
    for text, objects in rendered(path, consumer).items():
        for item in objects:
            assert not schemas.problems(item), text


@pytest.mark.contract
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_no_gpu_leaves_the_workload_as_it_is(consumer: str) -> None:
    (made,) = CONSUMERS[consumer](Placement(request=parse("none")))
    assert not schemas.problems(made)
    assert "nvidia" not in yaml.safe_dump(made)
    assert EVERYTHING.taints[0] not in yaml.safe_dump(made)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("consumer", "damage"),
    [
        ("pod", lambda item: item["spec"].update(resourceClaim=[])),
        ("pod", lambda item: item["spec"]["resourceClaims"][0].update(template="x")),
        ("trainjob", lambda item: item["spec"].update(podSpecOverrides=[])),
        ("trainjob", lambda item: item["spec"]["trainer"].update(numProcPerNode="two")),
        ("inferenceservice", lambda item: item["spec"]["predictor"].update(claims=[])),
        ("llminferenceservice", lambda item: item["spec"]["template"].update(resourceClaims={})),
    ],
)
def test_the_schemas_refuse_what_is_wrong(consumer: str, damage: object) -> None:
    made = CONSUMERS[consumer](placed("mig:1g.10gb.me", Path.DRA, consumer))[-1]
    assert not schemas.problems(made)
    damage(made)  # type: ignore[operator]
    assert schemas.problems(made)


@pytest.mark.contract
@pytest.mark.parametrize(
    "damage",
    [
        lambda devices: devices["requests"][0].update(deviceClassName="gpu.nvidia.com"),
        lambda devices: devices["requests"][0]["exactly"].update(amount=2),
        lambda devices: devices.update(constraint=[]),
        lambda devices: devices["requests"][0]["exactly"].update(count="two"),
    ],
)
def test_the_schema_of_claims_refuses_what_is_wrong(damage: object) -> None:
    template = CONSUMERS["pod"](placed("mig:1g.10gb.me", Path.DRA, "pod"))[0]
    assert not schemas.problems(template)
    damage(template["spec"]["spec"]["devices"])  # type: ignore[operator]
    assert schemas.problems(template)
