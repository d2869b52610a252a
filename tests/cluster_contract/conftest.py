"""Collected by `make test-cluster` alone; one namespace for all, and a summary of what was checked and what was not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster_contract.bench import GONE_S, Bench

ASKED = "GOLDPATH_TEST_CLUSTER"
collect_ignore_glob = [] if os.environ.get(ASKED) else ["test_*.py"]
_benches: list[Bench] = []


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    if not os.environ.get("KUBECONFIG"):
        pytest.exit("KUBECONFIG is not set: name the cluster, for these tests write to it.", returncode=2)
    made = Bench(float(os.environ.get("GOLDPATH_TEST_GONE_S") or GONE_S))
    _benches.append(made)
    try:
        made.open()
        yield made
    finally:
        made.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for one in _benches:
        line = terminalreporter.write_line
        terminalreporter.section(f"cluster contract: {one.cluster.connection.host}")
        for told, count in sorted(one.done.items()):
            line(f"{told}: {count}")
        for told, count in sorted(one.skipped.items()):
            line(f"skipped {count}: {told}")
        for told in dict.fromkeys(one.notes):
            line(f"note: {told}")
