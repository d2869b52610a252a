"""What the compiled pipeline carries for Kubeflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl

from goldpath.core import environment, images
from goldpath.pipelines import catalogue, kubeflow


def read(file: Path) -> tuple[dict, dict]:
    steps, platform = yaml.safe_load_all(file.read_text())
    return steps["deploymentSpec"]["executors"], platform["platforms"]["kubernetes"]["deploymentSpec"][
        "executors"
    ]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    file = tmp_path_factory.mktemp("compiled") / "finetune.yaml"
    catalogue.compile_pipeline("finetune", file)
    return read(file)


def given(step: dict) -> dict[str, tuple[str, str]]:
    """Variable to object and key."""
    found = {}
    for kind, name, key in (
        ("configMap", "configMapName", "configMapKey"),
        ("secret", "secretName", "secretKey"),
    ):
        for source in step[f"{kind}AsEnv"]:
            assert source["optional"] is True
            for one in source["keyToEnv"]:
                assert one["envVar"] not in found, "Pipelines merges two of one name into one that is refused"
                found[one["envVar"]] = (source[name], one[key])
    return found


def test_every_step_knows_its_run_and_the_settings_of_its_namespace(compiled):
    steps, platform = compiled
    assert steps.keys() == platform.keys()
    for step in platform.values():
        (run,) = step["fieldPathAsEnv"]
        assert run == {"name": "GOLDPATH_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
        found = given(step)
        assert set(found.values()) == {(at, key.name) for key in environment.KEYS for at in key.sources}
        assert found["MLFLOW_TRACKING_TOKEN"] == ("goldpath-mlflow", "MLFLOW_TRACKING_TOKEN")
        assert found["AWS_REGION"] == ("goldpath-storage", "AWS_REGION")
        (trusted,) = step["configMapAsVolume"]
        assert (trusted["configMapName"], trusted["optional"]) == ("goldpath-certificates", True)


def test_every_step_asks_for_a_place_and_is_no_root(compiled):
    steps, platform = compiled
    for name, step in steps.items():
        asked = step["container"]["resources"]
        computes = step["container"]["image"] == images.trainer()
        wanted = kubeflow.COMPUTES if computes else kubeflow.LAUNCHES
        assert (asked["resourceCpuRequest"], asked["resourceMemoryRequest"]) == wanted
        assert "resourceMemoryLimit" not in asked
        assert platform[name]["securityContext"] == {"runAsNonRoot": True}


def test_a_pipeline_of_ones_own_gets_the_same_and_may_ask_for_more(tmp_path: Path):
    from goldpath.components.run_trainjob import run_trainjob

    @dsl.pipeline
    def mine():
        task = run_trainjob(name="a", image="team/horovod:1")
        kubeflow.for_kubeflow(task)
        task.set_memory_request("3Gi")

    compiler.Compiler().compile(mine, str(tmp_path / "mine.yaml"))
    steps, platform = read(tmp_path / "mine.yaml")
    assert "GOLDPATH_STORAGE" in given(platform["exec-run-trainjob"])
    assert steps["exec-run-trainjob"]["container"]["resources"]["resourceMemoryRequest"] == "3Gi"


def test_steps_that_load_models_run_in_the_trainer_image(compiled):
    steps, _ = compiled
    of = {name: step["container"]["image"] for name, step in steps.items()}
    computing = {name.removeprefix("exec-") for name, image in of.items() if image == images.trainer()}
    assert computing == {"import-model", "build-features", "evaluate"}
    assert set(of.values()) == {images.trainer(), images.launcher()}


@pytest.mark.parametrize("variable", ["GOLDPATH_IMAGE", "GOLDPATH_TRAINER_IMAGE"])
def test_a_name_that_is_no_image_is_refused_before_anything_is_compiled(tmp_path: Path, variable: str):
    out = tmp_path / "finetune.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "goldpath.cli.main", "pipelines", "compile", "finetune", "-o", str(out)],
        env={**os.environ, variable: "bad image"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"{variable} is 'bad image', which names no image. Give registry/" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_the_page_for_platform_engineers_names_the_settings_that_steps_read():
    page = (Path(__file__).parents[2] / "docs" / "from-laptop-to-cluster.md").read_text()
    for name in ("GOLDPATH_STORAGE", environment.SETTINGS, environment.STORAGE):
        assert name in page
