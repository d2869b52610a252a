"""The benchmark of the golden path looks at all processes that it says it looks at."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "bench_golden_path.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_golden_path", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_engine_that_knows_nothing_of_the_home_is_counted(bench: Any, tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "plain = {key: value for key, value in os.environ.items() if key != 'GOLDPATH_HOME'}\n"
        "engine = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, env=plain)\n"
        "print(engine.pid, flush=True)\n"
        "sys.stdin.read()\nengine.communicate()\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "GOLDPATH_HOME": str(tmp_path)},
    )
    assert supervisor.stdout is not None
    engine = int(supervisor.stdout.readline())
    found = {process.pid for process in bench.at_work(tmp_path)}
    supervisor.communicate(b"")
    assert found == {supervisor.pid, engine}
    assert not psutil.pid_exists(engine)


def test_a_missed_bound_is_named(bench: Any) -> None:
    found = {
        "first": {"seconds": 300, "peak_gib": 4.0},
        "again": {"seconds": 30},
        "resumed": {"same_weights": True},
        "ratios": {"loss_tuned_to_base": 0.5, "ttft_cold_to_repeated": 12.0},
    }
    assert bench.missed(found) == []
    found["ratios"]["ttft_cold_to_repeated"] = 9.9
    found["resumed"]["same_weights"] = False
    assert bench.missed(found) == [
        "a repeated context answers 10 times faster",
        "a resumed training ends with the same weights",
    ]
