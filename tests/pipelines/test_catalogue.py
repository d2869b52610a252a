"""Forms and compiled YAML."""

import subprocess
import sys

import pytest
import yaml

from goldpath.core.errors import InputError, SpecError
from goldpath.pipelines import catalogue, launch, preflight


def test_every_pipeline_has_a_form_that_a_person_can_fill():
    for name in catalogue.names():
        fields = catalogue.form(name)
        assert 1 <= len(fields) <= 13
        for field in fields:
            assert field.default is not None, f"{name}.{field.name} has no default"
            assert len(field.help) > 15, f"{name}.{field.name} has no help"


def test_compiling_is_byte_stable_across_processes(tmp_path):
    one = catalogue.compile_pipeline("finetune", tmp_path / "one.yaml")
    target = str(tmp_path / "two.yaml")
    code = f"from goldpath.pipelines import compile_pipeline; print(compile_pipeline('finetune', {target!r}))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert one == other
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()


def test_the_compiled_pipeline_installs_nothing_and_runs_on_our_images(tmp_path):
    catalogue.compile_pipeline("finetune", tmp_path / "p.yaml")
    spec = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
    executors = spec["deploymentSpec"]["executors"]
    assert len(executors) >= 12
    for executor in executors.values():
        assert executor["container"]["image"].startswith(("goldpath/launcher:", "goldpath/trainer:"))
        assert "pip install" not in " ".join(executor["container"]["command"])
    for task in (
        "prepare-data",
        "plan-resources",
        "evaluate",
        "register-model",
    ):  # these read what a cache key does not show
        assert not spec["root"]["dag"]["tasks"][task]["cachingOptions"].get("enableCache", False)


def test_the_training_gets_the_gpu_that_was_planned_for_it(tmp_path):
    catalogue.compile_pipeline("finetune", tmp_path / "p.yaml")
    spec = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["plan-resources"]["dependentTasks"] == ["import-model"]
    assert tasks["plan-resources"]["inputs"]["parameters"]["gpu"] == {"componentInputParameter": "gpu"}
    for task in ("tune", "fine-tune"):
        given = tasks[task]["inputs"]["parameters"]["gpu"]["taskOutputParameter"]
        assert given == {"outputParameterKey": "Output", "producerTask": "plan-resources"}


def test_unknown_pipeline():
    with pytest.raises(InputError, match=r"no pipeline 'nope'.*finetune"):
        catalogue.load("nope")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_steps": "40"}, {"max_steps": 40}),
        ({"max_steps": 40.0}, {"max_steps": 40}),
        ({"min_loss_drop": "0.3"}, {"min_loss_drop": 0.3}),
        ({"min_loss_drop": 0}, {"min_loss_drop": 0.0}),
        ({"dataset": "12"}, {"dataset": "12"}),
        ({"overrides": '{"tune": {"trial_steps": 2}}'}, {"overrides": {"tune": {"trial_steps": 2}}}),
    ],
)
def test_values_are_cast_to_the_form(given, expected):
    cast = launch.parameters_for("finetune", given)
    assert cast == expected
    assert [type(value) for value in cast.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"stepz": "4"}, "no parameter 'stepz'"),
        ({"max_steps": "many"}, "max_steps is 'many', which is not a whole number"),
        ({"max_steps": "4.5"}, "which is not a whole number"),
        ({"max_steps": "true"}, "which is not a whole number"),
        ({"min_loss_drop": "NaN"}, "which is not a number"),
        ({"min_loss_drop": "[1]"}, "which is not a number"),
        ({"overrides": "[1]"}, "which is not a JSON object"),
        ({"overrides": "{"}, "such as"),
    ],
)
def test_values_that_do_not_fit_the_form(given, says):
    with pytest.raises(InputError, match=says.replace("[", r"\[")):
        launch.parameters_for("finetune", given)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"fine_tun": {}}, "no step 'fine_tun'"),
        ({"tune": 4}, "overrides.tune is 4"),
    ],
)
def test_overrides_name_steps(overrides, says):
    with pytest.raises(SpecError, match=says):
        preflight.sections(overrides)
