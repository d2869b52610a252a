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


GROUPS = {
    "golden-path": ("e2e/",),
    "torch": (
        "training/",
        "evaluation/",
        "search/",
        "accelerators/test_kv_real_caches.py",
        "accelerators/test_training_peaks.py",
    ),
    "features": ("feature_repo/",),
    "browser": ("reporting/test_report_browser.py",),
    "registry": ("registry/",),
}
"""What one worker tests alone, longest first: each imports or starts what takes seconds. The rest fills up."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its group, and begin with the groups."""
    places = list(GROUPS)

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        found = next((name for name, starts in GROUPS.items() if path.startswith(starts)), None)
        if found:
            item.add_marker(pytest.mark.xdist_group(found))
        return places.index(found) if found else len(places)

    items.sort(key=place)


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
        "GOLDPATH_MODEL_REGISTRY",
        "GOLDPATH_STORAGE",
        "GOLDPATH_FEATURE_STORE",
    ):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(autouse=True)
def _trace_children_where_asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("counted"):
        monkeypatch.delenv(TRACED, raising=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, where the upstream schemas are at hand, a contract that is not checked is a failure."""
    report = yield
    if report.skipped and item.get_closest_marker("contract") and os.environ.get("CI") and SHARED.is_dir():
        report.outcome = "failed"
        report.longrepr = f"a contract test was skipped in CI: {report.longrepr}"
    return report
