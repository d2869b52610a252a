"""Compiled pipelines as versions by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldpath.core.digest import digest_file
from goldpath.core.errors import InputError, MachineError
from goldpath.registry import pipelines, store
from goldpath.registry.lineage import lineage_of_run

COMPILED = """# PIPELINE DEFINITION
pipelineInfo:
  name: finetune
  description: Fine-tune a model.
root: {{dag: {{tasks: {{}}}}}}
schemaVersion: 2.1.0
# {note}
---
platforms: {{}}
"""


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    file = tmp_path / "finetune.yaml"
    file.write_text(COMPILED.format(note="one"))
    return file


def test_a_pipeline_is_a_version_by_its_content(registry: Path, compiled: Path) -> None:
    assert pipelines.pipeline_name(compiled) == "finetune"
    assert pipelines.register_pipeline(compiled, "finetune") == "1"
    first = compiled.read_text()
    compiled.write_text(COMPILED.format(note="two"))
    assert pipelines.register_pipeline(compiled, "finetune") == "2"
    compiled.write_text(first)
    assert pipelines.register_pipeline(compiled, "finetune") == "1"
    assert pipelines.pipeline_file("finetune", "1").read_text() == first
    with store.reading() as client:
        version = client.get_model_version("pipeline-finetune", "1")
    assert version.tags["kind"] == "pipeline"
    assert version.tags["digest"] == digest_file(compiled)


def test_a_lost_file_is_put_back(registry: Path, compiled: Path) -> None:
    pipelines.register_pipeline(compiled, "finetune")
    kept = pipelines.pipeline_file("finetune", "1")
    kept.write_text("damaged")
    assert pipelines.register_pipeline(compiled, "finetune") == "1"
    assert kept.read_text() == compiled.read_text()


def test_an_unknown_version_is_named(home: Path, registry: Path, compiled: Path) -> None:
    with pytest.raises(InputError, match="pipeline-finetune has no version 7"):
        pipelines.pipeline_file("finetune", "7")
    (registry / "mlflow.db").unlink()
    with pytest.raises(InputError, match="pipeline-finetune has no version 1"):
        pipelines.pipeline_file("finetune", "1")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no compiled pipeline at"),
        ("", "is not a compiled pipeline"),
        ("- a\n- b\n", "is not a compiled pipeline"),
        ("pipelineInfo: {}\n", "is not a compiled pipeline"),
        ("{broken", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
    ],
)
def test_what_is_no_pipeline_is_refused(
    registry: Path, tmp_path: Path, content: str | bytes | None, says: str
) -> None:
    file = tmp_path / "p.yaml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=says):
        pipelines.register_pipeline(file, "finetune")


def test_a_folder_is_no_pipeline_either(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="Is a directory"):
        pipelines.register_pipeline(tmp_path, "finetune")


def test_the_lineage_of_a_run_points_to_its_pipeline(
    registry: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "dataset": "d",
        "dataset_digest": "1",
        "base_model": "b",
        "base_model_digest": "2",
        "model_digest": "3",
    }
    monkeypatch.delenv("GOLDPATH_PIPELINE", raising=False)
    assert lineage_of_run(**told).pipeline_version == ""
    monkeypatch.setenv("GOLDPATH_PIPELINE", str(compiled))
    monkeypatch.setenv("GOLDPATH_RUN", "r1")
    made = lineage_of_run(**told)
    assert (made.run, made.pipeline, made.pipeline_version) == ("r1", "finetune", "1")
    assert made.pipeline_digest == digest_file(compiled)
    assert made.model_dump(include=set(told)) == told
