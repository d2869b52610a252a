"""The frame around a step, in real processes as KFP starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from goldpath.core import marks
from goldpath.core.errors import EXIT_CODE, InputError
from goldpath.core.reuse import Reused
from goldpath.core.spec import Result
from goldpath.core.steps import step

pytestmark = pytest.mark.counted

BODIES = {
    "good": "running.done(sys.argv[1], Rows(rows=3), '3 rows')\nprint('said')",
    "mistake": "raise DataError('row 7 of chats.jsonl has no answer', 'Add one.')",
    "defect": "raise KeyError('tokens')",
    "journal full": (
        "journal = Path(os.environ['GOLDPATH_EVENTS'])\njournal.unlink()\njournal.symlink_to('/dev/full')\n"
        "raise DataError('row 7 of chats.jsonl has no answer', 'Add one.')"
    ),
    "full disk": "Path('/dev/full').write_text('x' * 10_000)",
    "ctrl-c": "raise KeyboardInterrupt",
    "sigterm": "open(sys.argv[1] + '.up', 'w').close()\ntime.sleep(600)",
}
FRAME = """
import os, sys, time
from pathlib import Path
from goldpath.core.errors import DataError
from goldpath.core.spec import Result
from goldpath.core.steps import step

class Rows(Result):
    rows: int

with step(NAME) as running:
"""


class Rows(Result):
    rows: int


def run(
    body: str, run_dir: Path, *, in_run: bool = True, name: str = "prepare_data"
) -> subprocess.Popen[str]:
    code = FRAME.replace("NAME", repr(name)) + "".join(f"    {line}\n" for line in BODIES[body].splitlines())
    env = {**os.environ, "GOLDPATH_HOME": str(run_dir / "home")}
    if in_run:
        env |= {"GOLDPATH_RUN_DIR": str(run_dir), "GOLDPATH_EVENTS": str(run_dir / "events.jsonl")}
    else:
        env = {
            name: value for name, value in env.items() if name not in ("GOLDPATH_RUN_DIR", "GOLDPATH_EVENTS")
        }
    command = [sys.executable, "-c", code, str(run_dir / "result.json")]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_a_good_step_leaves_its_result_its_log_and_its_events(tmp_path: Path) -> None:
    child = run("good", tmp_path)
    out, err = child.communicate()
    assert (child.returncode, out, err) == (0, "", "")
    kept = json.loads((tmp_path / "result.json").read_text())
    assert (kept["step"], kept["reused"], kept["result"]) == ("prepare_data", False, {"rows": 3})
    assert kept == json.loads((tmp_path / "results" / "prepare_data.json").read_text())
    assert (tmp_path / "logs" / "prepare_data.log").read_text() == "said\n"
    started, finished = events(tmp_path)
    assert (started["kind"], started["step"]) == ("step-started", "prepare_data")
    assert (finished["kind"], finished["summary"]) == ("step-finished", "3 rows")
    assert finished["seconds"] == kept["seconds"]


@pytest.mark.parametrize(
    ("body", "line", "kind"),
    [
        ("mistake", "error: row 7 of chats.jsonl has no answer. Add one.", "DataError"),
        ("full disk", "error: the disk is full: cannot write", "MachineError"),
        ("ctrl-c", "error: interrupted. Continue with `goldpath run --resume`.", "Interrupted"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, body: str, line: str, kind: str) -> None:
    child = run(body, tmp_path)
    child.communicate()
    assert child.returncode == EXIT_CODE
    log = (tmp_path / "logs" / "prepare_data.log").read_text()
    assert log.startswith(line)
    assert len(log.splitlines()) == 1
    assert (tmp_path / "failed-prepare_data").exists()
    assert not (tmp_path / "result.json").exists()
    failed = events(tmp_path)[-1]
    assert (failed["kind"], failed["error"]["type"]) == ("step-failed", kind)


def test_a_defect_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    child = run("defect", tmp_path)
    child.communicate()
    assert child.returncode == 1
    log = (tmp_path / "logs" / "prepare_data.log").read_text()
    assert "Traceback" in log
    assert "KeyError: 'tokens'" in log
    assert events(tmp_path)[-1]["error"]["type"] == "StepError"


def test_sigterm_ends_a_step_cleanly(tmp_path: Path) -> None:
    child = run("sigterm", tmp_path)
    while not (tmp_path / "result.json.up").exists():
        assert child.poll() is None
        time.sleep(0.02)
    child.terminate()
    child.communicate()
    assert child.returncode == EXIT_CODE
    assert "stopped by SIGTERM" in (tmp_path / "logs" / "prepare_data.log").read_text()
    assert events(tmp_path)[-1]["error"]["type"] == "Interrupted"


def test_after_a_failed_step_the_others_do_nothing(tmp_path: Path) -> None:
    (tmp_path / "failed-import_model").touch()
    child = run("good", tmp_path)
    child.communicate()
    assert child.returncode == EXIT_CODE
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "events.jsonl").exists()


def test_a_step_with_a_full_disk_around_it_still_says_why_it_failed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "prepare_data.log").symlink_to("/dev/full")
    child = run("journal full", tmp_path)
    _, err = child.communicate()
    assert child.returncode != 0
    assert err == ""  # all that it said went to its log
    failure = marks.first_failure(tmp_path)
    assert failure is not None
    assert (failure.step, failure.error.message) == ("prepare_data", "row 7 of chats.jsonl has no answer")


def test_a_journal_that_is_full_from_the_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    child = run("good", tmp_path)
    child.communicate()
    assert child.returncode == EXIT_CODE
    (line,) = (tmp_path / "logs" / "prepare_data.log").read_text().splitlines()
    assert line.startswith(
        f"error: the disk is full: cannot write {tmp_path / 'events.jsonl'}. Free some space"
    )


def test_a_step_that_is_killed_is_noticed_and_the_others_do_nothing(tmp_path: Path) -> None:
    child = run("sigterm", tmp_path)
    while not (tmp_path / "result.json.up").exists():
        assert child.poll() is None
        time.sleep(0.02)
    assert not marks.lost(tmp_path)
    assert marks.first_failure(tmp_path) is None
    child.kill()
    child.communicate()
    other = run("good", tmp_path, name="tune")
    other.communicate()
    assert other.returncode == EXIT_CODE
    assert not (tmp_path / "result.json").exists()
    failure = marks.first_failure(tmp_path)
    assert failure is not None
    assert failure.to_dict()["step"] == "prepare_data"
    assert "prepare_data was killed, most often because the machine ran out of memory" in failure.error.line()
    (tmp_path / "running-prepare_data").rename(tmp_path / "failed-prepare_data")  # killed before it wrote why
    failure = marks.first_failure(tmp_path)
    assert failure is not None
    assert "prepare_data was killed" in failure.error.line()
    marks.clear(tmp_path)
    assert not marks.lost(tmp_path)


def test_a_step_that_ended_well_leaves_no_mark(tmp_path: Path) -> None:
    run("good", tmp_path).communicate()
    assert not marks.lost(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if "prepare_data" in path.name] == []


def test_outside_a_run_a_step_speaks_to_the_terminal(tmp_path: Path) -> None:
    child = run("good", tmp_path, in_run=False)
    out, _ = child.communicate()
    assert (child.returncode, out) == (0, "said\n")
    assert (tmp_path / "result.json").exists()
    assert not (tmp_path / "logs").exists()
    child = run("mistake", tmp_path, in_run=False)
    _, err = child.communicate()
    assert child.returncode == EXIT_CODE
    assert err == "error: row 7 of chats.jsonl has no answer. Add one.\n"


@pytest.fixture
def outside_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLDPATH_RUN_DIR", raising=False)
    monkeypatch.setenv("GOLDPATH_STEP", "")


@pytest.mark.usefixtures("outside_a_run")
def test_reused_work_is_told_as_such(tmp_path: Path) -> None:
    with step("tune") as running:
        running.done(str(tmp_path / "r.json"), Reused(Rows(rows=1), tmp_path, "k", reused=True), "1 row")
    kept = json.loads((tmp_path / "r.json").read_text())
    assert (kept["step"], kept["reused"], kept["result"]) == ("tune", True, {"rows": 1})


@pytest.mark.usefixtures("outside_a_run")
def test_in_the_same_process_a_mistake_exits_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised, step("tune"):
        raise InputError("bad", "Mend it.")
    assert raised.value.code == EXIT_CODE
    assert capsys.readouterr().err == "error: bad. Mend it.\n"
