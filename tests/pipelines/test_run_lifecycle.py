"""Runs as a user meets them: they end, fail with a reason, are cancelled, killed and continued; nothing is left."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from goldpath.core import marks
from goldpath.core.errors import DataError, GoldpathError, InputError, MachineError, StepError
from goldpath.core.process import kill_tree
from goldpath.pipelines import launch, runs
from goldpath.reporting.numbers import duration
from tests.pipelines.behaviour import fill
from tests.pipelines.small import make_run


def _events(collected, kind):
    return [event for event in collected if event["kind"] == kind]


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def _family(run_name: str) -> list[psutil.Process]:
    """Every process that belongs to the run, found by its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
            ours = variables.get("GOLDPATH_HOME") == os.environ["GOLDPATH_HOME"]
            ours = ours and variables.get("GOLDPATH_RUN") == run_name
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.pid != os.getpid()]


@pytest.mark.counted
def test_a_run_ends_well_and_keeps_its_journal(home):
    seen = []
    run = launch.execute(make_run("well"), seen.append)
    assert run.status == "succeeded"
    assert run.ended >= run.started > ""
    finished = {event["step"]: event for event in _events(seen, "step-finished")}
    assert set(finished) == {"first", "second"}
    assert finished["first"]["summary"] == "counted"
    assert _events(seen, "progress")[-1]["done"] == 3
    assert runs.load(run.name).status == "succeeded"


def test_the_page_of_a_run_has_the_time_of_its_record(home):
    made = make_run("well")
    made.report.write_text("as its own step left it, before the run had ended")
    run = launch.execute(made, lambda event: None)
    took = (datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.started)).total_seconds()
    assert f'<dd class="number">{duration(took)}</dd>' in run.report.read_text()


@pytest.mark.counted
def test_a_users_mistake_comes_through_as_it_was_said(home):
    seen = []
    with pytest.raises(DataError, match="line 3 has no answer") as caught:
        launch.execute(make_run("mistake"), seen.append)
    assert caught.value.remedy == "Add one."
    run = runs.load("small-1")
    assert (run.status, run.error["type"]) == ("failed", "DataError")
    log = (run.folder / "logs" / "first.log").read_text()
    assert "error: rows.jsonl line 3" in log
    assert "Traceback" not in log


@pytest.mark.counted
def test_a_bug_keeps_its_traceback_in_the_log(home):
    with pytest.raises(StepError, match="ZeroDivisionError: by nought"):
        launch.execute(make_run("bug"), lambda event: None)
    assert "Traceback" in (runs.load("small-1").folder / "logs" / "first.log").read_text()


def test_no_step_starts_after_one_has_failed(home):
    seen = []
    with pytest.raises(DataError, match="has failed") as caught:
        launch.execute(make_run("both-fail"), seen.append)
    (began,) = _events(seen, "step-started")
    assert began["step"] in caught.value.message
    assert runs.load("small-1").error["step"] == began["step"]


def test_a_step_that_is_killed_is_named_and_no_other_starts(home):
    seen = []
    with pytest.raises(StepError, match=r"was killed, .* memory\. .*batch_size") as caught:
        launch.execute(make_run("both-killed"), seen.append)
    (began,), (failed,) = _events(seen, "step-started"), _events(seen, "step-failed")
    assert began["step"] == failed["step"]
    assert caught.value.message.startswith(began["step"])
    assert failed["seconds"] >= 0
    run = runs.load("small-1")
    assert (run.status, run.error["step"]) == ("failed", began["step"])


def test_a_disk_that_is_full_to_the_last_byte_is_named(small_disk):
    run = make_run("full")
    with pytest.raises(MachineError, match=r"the disk is full: .*Free some space"):
        launch.execute(run, lambda event: None)
    assert (run.folder / "ballast").stat().st_size > 500_000
    with pytest.raises(MachineError, match="the disk is full"):  # nor does a second try hide it
        launch.execute(launch.resume(run.name), lambda event: None)
    with pytest.raises(MachineError, match="the disk is full"):
        runs.create("small", {}, "small-2")
    assert not runs.Run(name="small-2", pipeline="small", parameters={}, created="").folder.exists()
    (run.folder / "ballast").unlink()
    run.parameters = {"how": "well"}
    run.save()
    assert launch.execute(launch.resume(run.name), lambda event: None).status == "succeeded"


def test_a_try_that_cannot_begin_does_not_repeat_what_an_earlier_one_said(small_disk):
    with pytest.raises(DataError):
        launch.execute(make_run("mistake"), lambda event: None)
    run = runs.load("small-1")
    run.parameters = {"how": "well"}
    run.save()
    marks.clear(run.folder)  # it would, and have their room
    fill(small_disk / "ballast")
    with pytest.raises(MachineError, match="the disk is full"):
        launch.execute(launch.resume(run.name), lambda event: None)


@pytest.mark.counted
def test_a_full_disk_is_one_line_on_the_command_line(small_disk):
    run = make_run("full")
    command = [sys.executable, "-m", "goldpath.cli.main", "run", "--resume", run.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert "the disk is full" in told[0]
    assert "Traceback" not in done.stderr


def test_broken_lines_of_the_journal_are_passed_over(tmp_path):
    journal = tmp_path / "events.jsonl"
    journal.write_bytes(b'{"kind": "one"}\n{"kind": "ha\n\n[1]\n"x"\n{"no": "kind"}\n{"kind": "two"}\n')
    assert [event["kind"] for event in launch.follow(journal, 0, lambda: False)] == ["one", "two"]


@pytest.mark.counted
def test_resume_runs_the_same_yaml_again(home):
    run = make_run("mistake")
    with pytest.raises(DataError):
        launch.execute(run, lambda event: None)
    run.parameters = {"how": "well"}  # what was wrong is mended
    run.save()
    assert launch.execute(launch.resume("small-1"), lambda event: None).status == "succeeded"
    with pytest.raises(InputError, match="has succeeded"):
        launch.resume("small-1")


def _start_elsewhere(run: runs.Run) -> subprocess.Popen[bytes]:
    """Drive the run in a process of its own, until its first step sleeps."""
    code = "from goldpath.pipelines import launch, runs; launch.execute(runs.load('small-1'), lambda event: None)"
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log = run.folder / "logs" / "first.log"
    _wait_for(lambda: log.exists() and "sleeping" in log.read_text())
    return driver


@pytest.mark.parametrize("victim", ["worker", "launcher"])
def test_a_run_resumed_at_once_waits_for_what_the_kill_has_left(home, victim):
    run = make_run("ends-slowly")
    driver = _start_elsewhere(run)
    killed = runs.load("small-1")
    os.kill(killed.pid if victim == "worker" else driver.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    left = _family("small-1")
    assert left  # its step is still ending
    run = runs.load("small-1")
    run.parameters = {"how": "well"}
    run.save()
    seen = []
    assert launch.execute(launch.resume("small-1"), seen.append).status == "succeeded"
    assert not set(left) & set(_family("small-1"))
    assert {event["step"] for event in _events(seen, "step-finished")} == {"first", "second"}


@pytest.mark.parametrize("victim", ["worker", "step", "launcher"])
def test_a_kill_leaves_no_process_and_can_be_resumed(home, victim):
    run = make_run("long")
    driver = _start_elsewhere(run)
    assert runs.load("small-1").status == "running"
    with pytest.raises(InputError, match="is running"):
        launch.resume("small-1")
    family = _family("small-1")
    assert len(family) >= 2
    if victim == "launcher":
        os.kill(driver.pid, signal.SIGKILL)
    elif victim == "worker":
        os.kill(runs.load("small-1").pid, signal.SIGKILL)
    else:
        step = next(p for p in family if "kfp.dsl.executor_main" in p.cmdline())
        os.kill(step.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    _wait_for(lambda: not _family("small-1") and runs.load("small-1").status != "running")
    after = runs.load("small-1")
    assert after.status in ("interrupted", "failed", "cancelled")
    after.parameters = {"how": "well"}
    after.save()
    assert launch.execute(launch.resume("small-1"), lambda event: None).status == "succeeded"


@pytest.mark.counted
def test_ctrl_c_cancels_and_leaves_no_process(home):
    run = make_run("long")
    log = run.folder / "logs" / "first.log"

    def interrupt():
        _wait_for(lambda: log.exists() and "sleeping" in log.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        launch.execute(run, lambda event: None)
    assert runs.load(run.name).status == "cancelled"
    assert _family(run.name) == []


@pytest.mark.counted
def test_cancel_from_elsewhere(home, monkeypatch):
    run = make_run("long")
    log = run.folder / "logs" / "first.log"
    failures = []

    def drive():
        try:
            launch.execute(run, lambda event: None)
        except GoldpathError as error:
            failures.append(error)

    thread = threading.Thread(target=drive, daemon=True)
    thread.start()
    _wait_for(lambda: log.exists() and "sleeping" in log.read_text())
    with pytest.raises(InputError, match="is running"):
        runs.remove(runs.load(run.name))

    def kill(pid):
        kill_tree(pid)
        thread.join(30)  # who drives the run finds it ended before we have noted that this was wanted

    monkeypatch.setattr(runs, "kill_tree", kill)
    runs.cancel(runs.load(run.name))
    assert runs.load(run.name).status == "cancelled"
    assert _family(run.name) == []
    (told,) = failures
    assert told.line() == "run 'small-1' was cancelled. Continue with `goldpath run --resume small-1`."
    assert runs.load(run.name).error == told.to_dict()
    with pytest.raises(InputError, match="is not running"):
        runs.cancel(runs.load(run.name))


def test_a_run_that_is_starting_is_cancelled_as_soon_as_its_worker_runs(home):
    run = make_run("long")
    run.hold()
    cancelling = threading.Thread(target=lambda: runs.cancel(runs.load(run.name)), daemon=True)
    cancelling.start()
    with pytest.raises(GoldpathError, match="was cancelled"):
        launch.execute(run, lambda event: None)
    cancelling.join(30)
    assert runs.load(run.name).status == "cancelled"
    assert _family(run.name) == []


def test_a_run_whose_worker_does_not_come_cannot_be_cancelled_yet(home, monkeypatch):
    monkeypatch.setattr(runs, "_START_S", 0.2)
    held = runs.create("small", {})
    with pytest.raises(InputError, match=r"'small-1' is starting and cannot be cancelled yet. Try again"):
        runs.cancel(runs.load(held.name))
    held.release()
    with pytest.raises(InputError, match="is not running"):
        runs.cancel(runs.load(held.name))


def test_a_run_that_there_is_not_is_answered_with_those_that_there_are(home):
    for _ in range(7):
        runs.create("small", {}).release()
    with pytest.raises(InputError) as caught:
        runs.load("smal-6")
    assert caught.value.remedy.startswith("Did you mean 'small-6'? Runs: small-3, ")
    assert caught.value.remedy.endswith("small-7 and 2 older (`goldpath runs list`).")


def test_names(home):
    assert runs.create("small", {}).name == "small-1"
    assert runs.create("small", {}).name == "small-2"
    with pytest.raises(InputError, match="already is a run 'small-2'"):
        runs.create("small", {}, "small-2")
    for bad in ("Up", "a/b", "..", "-a", "a" * 51, ""):
        with pytest.raises(InputError, match="cannot be the name"):
            runs.create("small", {}, bad)
    with pytest.raises(InputError, match=r"no run 'nope'.*small-2"):
        runs.load("nope")


def test_a_run_that_cannot_be_recorded_does_not_block_its_name(home, monkeypatch):
    def refuse(*_):
        raise MachineError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_json", refuse)
        with pytest.raises(MachineError):
            runs.create("small", {}, "mine")
    assert not (home / "runs" / "mine").exists()
    assert runs.create("small", {}, "mine").name == "mine"


def test_a_folder_that_a_kill_left_without_a_record_does_not_block_its_name(home):
    (home / "runs" / "mine").mkdir(parents=True)
    run = runs.create("small", {}, "mine")
    assert runs.load("mine").status == "created"
    with pytest.raises(InputError, match="already is a run 'mine'"):
        runs.create("small", {}, "mine")
    run.release()


def test_a_run_that_was_removed_meanwhile_is_not_made_anew(home):
    made = runs.create("small", {})
    made.release()
    seen = runs.load(made.name)
    runs.remove(made)
    with pytest.raises(InputError, match="there is no run 'small-1'"):
        seen.hold()
    assert not seen.folder.exists()
    assert runs.create("small", {}).name == "small-1"


@pytest.mark.counted
def test_a_worker_whose_command_is_gone_does_not_begin(home):
    run = make_run("well")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-m", "goldpath.pipelines.worker", run.name, str(gone.pid)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGTERM
    assert not (run.folder / "events.jsonl").exists()


def test_a_run_that_never_started_counts_as_interrupted_and_can_be_removed(home):
    code = "from goldpath.pipelines import runs; run = runs.create('small', {})"
    subprocess.run([sys.executable, "-c", code], check=True)
    run = runs.load("small-1")
    assert run.status == "interrupted"
    runs.remove(run)
    assert not Path(run.folder).exists()
    with pytest.raises(InputError, match="there are no runs"):
        runs.latest()


def test_a_run_that_is_about_to_start_is_not_interrupted_and_cannot_be_removed(home, monkeypatch):
    monkeypatch.setattr(runs, "_WAIT_S", 0.2)
    held = runs.create("small", {})
    seen = runs.load(held.name)
    assert (seen.status, seen.busy()) == ("created", True)
    with pytest.raises(InputError, match="is running"):
        runs.remove(seen)
    held.release()
    assert runs.load(held.name).status == "interrupted"
    runs.remove(seen)


def test_who_looks_at_a_run_does_not_keep_it_from_starting(home):
    run = make_run("well")
    (run.folder / ".lock").touch()
    with (run.folder / ".lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.5, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        assert launch.execute(run, lambda event: None).status == "succeeded"


def test_the_run_of_another_is_left_alone(home, monkeypatch):
    monkeypatch.setattr(runs, "_WAIT_S", 0.2)
    held = runs.create("small", {})
    before = (held.folder / "run.json").read_bytes()
    with pytest.raises(InputError, match="'small-1' is running"):
        launch.execute(runs.load(held.name), lambda event: None)
    assert (held.folder / "run.json").read_bytes() == before
    assert not (held.folder / "logs").exists()
