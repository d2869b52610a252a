"""Fixtures that every area shares."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty GOLDPATH_HOME; no run around."""
    folder = tmp_path / "home"
    monkeypatch.setenv("GOLDPATH_HOME", str(folder))
    for name in (
        "GOLDPATH_RUN",
        "GOLDPATH_EVENTS",
        "GOLDPATH_STEP",
        "GOLDPATH_BACKEND",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    return folder
