"""The folder as a Feast repository of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import goldpath.feature_repo
from tests.feature_repo.documents import facts, write

FOLDER = Path(goldpath.feature_repo.__path__[0])


@pytest.mark.e2e
def test_feast_apply_works_as_it_is(tmp_path: Path) -> None:
    repo = tmp_path / "feature_repo"
    shutil.copytree(FOLDER, repo, ignore=shutil.ignore_patterns("__pycache__", ".goldpath"))
    (tmp_path / "features").mkdir()
    write(tmp_path / "features" / "documents.parquet", facts())
    env = {**os.environ, "GOLDPATH_FEATURES": str(tmp_path / "features")}
    feast = [str(Path(sys.executable).parent / "feast"), "apply"]
    with subprocess.Popen(
        feast, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as cli:
        from feast import FeatureStore  # some seconds, beside the command's own

        output, _ = cli.communicate()
    assert cli.returncode == 0, output
    store = FeatureStore(str(repo))
    views = {view.name: view for view in store.list_feature_views()}
    assert set(views) == {"document_chat", "document_embedding"}
    assert [entity.name for entity in store.list_entities() if entity.name != "__dummy"] == ["document"]
    assert [service.name for service in store.list_feature_services()] == ["finetune"]
    assert views["document_chat"].batch_source.path == str(tmp_path / "features" / "documents.parquet")
    assert (repo / ".goldpath" / "registry.db").is_file()
    assert [path.name for path in (repo / ".goldpath" / "online.db" / "collections").iterdir()] == [
        "goldpath_document_embedding"
    ]


def test_feast_reads_the_definitions_alone() -> None:
    library = {path.name for path in FOLDER.glob("*.py")} - {"__init__.py", "features.py"}
    assert library <= set((FOLDER / ".feastignore").read_text().split())
