"""With faults all ends as without: nothing twice, nothing left behind; and so when the step itself is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from goldpath.core.errors import StepError
from goldpath.core.kubernetes import Cluster, Ref
from tests.kube import Faults, Server
from tests.kube.conftest import Connect
from tests.kube.things import Thing, advance, complete, config_map, train_job, trains

ROOT = Path(__file__).resolve().parents[2]
RUNS, RATE = 100, 0.2


def run(cluster: Cluster, server: Server, *, cancelled: bool) -> list[object]:
    """What a step does, and what came of it; cancelled in the middle of its wait where asked."""

    def watched(job: Thing) -> None:
        if cancelled and job.get("status"):
            raise StepError("cancelled")
        advance(server, job)

    told: list[object] = []
    try:
        with cluster.children():
            settings = cluster.create_or_adopt(config_map(cluster.name("settings"), color="red"))
            job = cluster.create_or_adopt(train_job(cluster.name(most=40)))
            changed = cluster.change(Ref.of(settings), lambda thing: thing["data"].update(color="blue"))
            told += [changed["data"], cluster.wait(Ref.of(job), complete, 60, watched)]
            told.append(cluster.get(Ref.of(job))["status"]["trainerStatus"])  # type: ignore[index]
            cluster.remove(Ref.of(job))
            cluster.remove(Ref.of(settings), propagation="Background")
    except StepError as error:
        told.append(error.message)
    return told


@pytest.mark.e2e
@pytest.mark.parametrize("cancelled", [False, True], ids=["to its end", "cancelled"])
def test_runs_with_faults_end_as_without(server: Server, connect: Connect, cancelled: bool) -> None:
    without = run(connect(run="without"), server, cancelled=cancelled)
    assert without[-1] == ("cancelled" if cancelled else {"progressPercentage": 100})
    made = len(server.created)
    happened: dict[str, int] = {}
    for seed in range(RUNS):
        server.faults = Faults(rate=RATE, seed=seed)
        cluster = connect(run=f"run-{seed}")
        assert run(cluster, server, cancelled=cancelled) == without, seed
        assert server.left() == [], seed
        assert len(server.created) == made * (seed + 2), seed
        for fault, times in server.faults.done.items():
            happened[fault] = happened.get(fault, 0) + times
    assert set(happened) == {
        "429",
        "500",
        "drop-before",
        "drop-after",
        "conflict",
        "watch-closed",
        "watch-cut",
        "gone",
    }


def test_the_same_faults_come_for_the_same_seed() -> None:
    first, second = (Faults(rate=0.5, seed=3) for _ in range(2))
    asked = [("GET", False), ("POST", False), ("GET", True)] * 50
    assert [first.choose(*one) for one in asked] == [second.choose(*one) for one in asked]


def start(kubeconfig: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kube.step_process"],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def uid_when_waiting(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    word, uid = child.stdout.readline().split()
    assert word == "waiting"
    return uid


@pytest.mark.counted
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_is_stopped_removes_what_it_made(
    server: Server, home: Path, tmp_path: Path, number: signal.Signals
) -> None:
    child = start(server.kubeconfig(tmp_path))
    uid_when_waiting(child)
    assert len(server.left()) == 2
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 2, said
    assert server.left() == []


def test_a_step_that_is_killed_leaves_what_its_retry_adopts(
    server: Server, home: Path, tmp_path: Path
) -> None:
    first = start(server.kubeconfig(tmp_path))
    uid = uid_when_waiting(first)
    first.kill()
    first.communicate(timeout=60)
    assert len(server.left()) == 2
    trains(server)
    server.edit(
        "TrainJob", server.find("TrainJob")[0]["metadata"]["name"], lambda job: job.update(status={"seen": 1})
    )
    second = start(server.kubeconfig(tmp_path))
    out, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert out.split() == ["waiting", uid, "done"]
    assert len(server.created) == 2
