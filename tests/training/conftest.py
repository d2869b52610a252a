"""What tests of trainings share: a tiny model, a frame, and a worker in this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from goldpath.training import worker
from tests.models import make_frame, make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_frame(tmp_path_factory.mktemp("frame"))


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker in a process of its own would have to itself."""
    monkeypatch.setattr(worker, "die_with_parent", lambda: None)
    for name in worker.QUIET:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "KATIB_TRIAL_NAME"):
        monkeypatch.delenv(name, raising=False)
