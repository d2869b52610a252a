"""A fake engine that is a real process with a real server, for faults that the real one does not have on demand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldpath.serving import endpoints, engines
from goldpath.serving.backends import local
from goldpath.serving.specs import ServeSpec
from tests.models import make_tiny_model

SCRIPT = Path(__file__).with_name("fake_engine.py")


class FakeEngine:
    name = "transformers"
    health = "/health"
    reset: str | None = "/forget"

    def __init__(self, faults: Path) -> None:
        self.faults = faults
        faults.mkdir()

    def prepare(self, spec: ServeSpec, model: Path, folder: Path) -> None:
        (folder / "prepared").touch()

    def command(self, spec: ServeSpec, model: Path, folder: Path, port: str) -> list[str]:
        return [sys.executable, "-S", "-u", str(SCRIPT), port, spec.model_name, str(self.faults)]

    def environment(self, spec: ServeSpec, folder: Path) -> dict[str, str]:
        return {}


@pytest.fixture
def fake(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "faults")
    monkeypatch.setitem(engines.ENGINES, "transformers", engine)
    monkeypatch.setattr(local, "PAUSE_S", 0.05)
    monkeypatch.setattr(local, "HEALTH_S", 0.1)
    monkeypatch.setattr(local, "MAX_RESTARTS", 2)
    yield engine
    for endpoint in endpoints.list_endpoints():
        if endpoint.status not in ("dead", "failed"):
            endpoints.stop(endpoint.name)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "tiny")
