"""Fixtures that every area shares."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.schemas import SHARED

TRACED = "COVERAGE_PROCESS_CONFIG"
"""The variable by which coverage has child processes traced."""
# Two workers test side by side on models of a tenth of a million weights: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell that starts the tests in the background lets them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty GOLDPATH_HOME; no run around."""
    folder = tmp_path / "home"
    monkeypatch.setenv("GOLDPATH_HOME", str(folder))
    for name in (
        "GOLDPATH_RUN",
        "GOLDPATH_RUN_DIR",
        "GOLDPATH_PIPELINE",
        "GOLDPATH_WORKER",
        "GOLDPATH_EVENTS",
        "GOLDPATH_STEP",
        "GOLDPATH_BACKEND",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(autouse=True)
def _uncounted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("uncounted"):
        monkeypatch.delenv(TRACED, raising=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, where the upstream schemas are at hand, a contract that is not checked is a failure."""
    report = yield
    if report.skipped and item.get_closest_marker("contract") and os.environ.get("CI") and SHARED.is_dir():
        report.outcome = "failed"
        report.longrepr = f"a contract test was skipped in CI: {report.longrepr}"
    return report
