"""What the compiled pipeline carries for Kubeflow."""

from pathlib import Path

import pytest
import yaml

from goldpath.core import images
from goldpath.pipelines import catalogue, kubeflow


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    file = tmp_path_factory.mktemp("compiled") / "finetune.yaml"
    catalogue.compile_pipeline("finetune", file)
    steps, platform = yaml.safe_load_all(file.read_text())
    return steps["deploymentSpec"]["executors"], platform["platforms"]["kubernetes"]["deploymentSpec"][
        "executors"
    ]


def test_every_step_knows_its_run_and_the_settings_of_its_namespace(compiled):
    steps, platform = compiled
    assert steps.keys() == platform.keys()
    for step in platform.values():
        (run,) = step["fieldPathAsEnv"]
        assert run == {"name": "GOLDPATH_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
        (settings,), (secret,) = step["configMapAsEnv"], step["secretAsEnv"]
        assert {one["envVar"] for one in settings["keyToEnv"]} == set(kubeflow.SETTINGS_KEYS)
        assert {one["envVar"] for one in secret["keyToEnv"]} == set(kubeflow.SECRET_KEYS)
        assert settings["optional"] is secret["optional"] is True


def test_steps_that_load_models_run_in_the_trainer_image(compiled):
    steps, _ = compiled
    of = {name: step["container"]["image"] for name, step in steps.items()}
    computing = {name.removeprefix("exec-") for name, image in of.items() if image == images.trainer()}
    assert computing == {"import-model", "build-features", "evaluate"}
    assert set(of.values()) == {images.trainer(), images.launcher()}


def test_the_page_for_platform_engineers_names_the_settings_that_steps_read():
    page = (Path(__file__).parents[2] / "docs" / "from-laptop-to-cluster.md").read_text()
    for name in ("GOLDPATH_STORAGE", kubeflow.SETTINGS, kubeflow.SECRET):
        assert name in page
