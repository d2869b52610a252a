"""What the command says of runs and endpoints, and of itself."""

import json
import os
import sys

import pytest
from click.testing import CliRunner

from goldpath.cli import program, show, summary
from goldpath.cli.main import cli
from goldpath.core.errors import StepError
from goldpath.core.files import write_json
from goldpath.core.process import started_at
from goldpath.pipelines import catalogue, runs
from tests.cli.typed import goldpath
from tests.pipelines.small import make_run

pytestmark = pytest.mark.counted


def test_a_list_of_runs_fits_a_terminal_and_cuts_nothing(finished):
    record = json.loads((finished.folder / "run.json").read_text())
    long = "a" * 50
    for name in ("finetune-12", long):
        (finished.folder.parent / name).mkdir()
        write_json(
            finished.folder.parent / name / "run.json", {**record, "name": name, "status": "interrupted"}
        )
    lines = goldpath("runs", "list", env={**os.environ, "COLUMNS": "40"}).stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"RUN", "small-1", long, "finetune-12"}
    assert max(len(line) for line in lines) - (len(long) - len("finetune-12")) <= 80


def test_a_list_of_endpoints_names_model_and_version(home):
    endpoint = {
        "name": "bot", "url": "http://127.0.0.1:9/v1", "model": "bot", "model_version": "3", "model_path": "/m",
        "model_digest": "0123456789abcdef", "engine": "transformers", "pid": os.getpid(),
        "pid_started": started_at(os.getpid()), "ready_seconds": 1.0, "adopted": False, "log": "/log",
    }  # fmt: skip
    for name, version in (("bot", "3"), ("by-hand", "")):
        record = {
            "generation": "g",
            "settings": "",
            "endpoint": {**endpoint, "name": name, "model_version": version},
        }
        write_json(home / "endpoints" / name / "endpoint.json", record)
        write_json(home / "endpoints" / name / "g" / "state.json", {"status": "ready"})
    lines = goldpath("endpoints", "list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "MODEL", "URL", "HEALTHY"]
    assert lines[1].split() == ["bot", "bot", "v3", "http://127.0.0.1:9/v1", "no"]
    assert lines[2].split() == ["by-hand", "bot", "0123456789ab", "http://127.0.0.1:9/v1", "no"]


def test_a_failed_run_says_which_step_and_how_to_go_on(home):
    run = make_run("mistake")
    done = goldpath("run", "--resume", run.name, "--json")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "line 3 has no answer. Add one. To go on with the run as it is: " in line
    assert line.endswith("goldpath run --resume small-1`.")
    assert json.loads(done.stdout)["resume"] == "goldpath run --resume small-1"
    shown = goldpath("runs", "show", run.name).stdout
    assert "small-1: small, failed\n" in shown
    assert "     failed  first\n" in shown
    assert "  error    rows.jsonl line 3 has no answer. Add one.\n" in shown
    assert "goldpath run --resume small-1\n" in shown
    told = json.loads(goldpath("runs", "show", run.name, "--json").stdout)
    assert (told["failed_step"], told["resume"]) == ("first", "goldpath run --resume small-1")


def test_a_run_is_shown_with_its_name_in_the_remedy(home):
    run = make_run("well")
    run.status = "failed"
    run.error = {
        **StepError("first was killed", "Go on with `goldpath run --resume`.").to_dict(),
        "step": "first",
    }
    run.save()
    out = goldpath("runs", "show", run.name).stdout
    assert out.count("goldpath run --resume small-1") == 2  # in the remedy, and as the line to type


def test_a_general_remedy_is_told_with_the_runs_name():
    killed = StepError("tune was killed", "Free memory, then go on with `goldpath run --resume`.")
    assert summary.resumable(killed, "x").remedy == "Free memory, then go on with `goldpath run --resume x`."
    assert type(summary.resumable(killed, "x")) is StepError
    named = StepError("it was cancelled", "Continue with `goldpath run --resume x`.")
    assert summary.resumable(named, "x").line() == named.line()


def test_a_run_is_shown_with_defaults_verdict_version_and_endpoint(finished):
    finished.parameters = {}
    finished.save()
    file = finished.folder / "results" / "evaluate.json"
    body = json.loads(file.read_text())
    body["result"]["checks"] = [{"passed": False, "text": "Leaks are 3%, at most 2% are allowed."}]
    write_json(file, body)
    out = goldpath("runs", "show", finished.name).stdout
    assert "  how = well (default)\n" in out
    assert "  verdict  accepted" in out
    assert "  model    bot version 3, champion\n" in out
    assert "  endpoint bot, http://127.0.0.1:8123/v1\n" in out
    assert "go on" not in out
    body["result"]["passed"] = False
    write_json(file, body)
    out = goldpath("runs", "show", finished.name).stdout
    assert "  verdict  rejected by the gate (Leaks are 3%, at most 2% are allowed)\n" in out
    assert json.loads(goldpath("runs", "show", finished.name, "--json").stdout)["defaults"] == {"how": "well"}


def test_whole_numbers_of_a_form_are_shown_as_such(home):
    run = runs.create("finetune", {"max_steps": 5})
    catalogue.compile_pipeline("finetune", run.folder / "pipeline.yaml")
    used = show.defaults(run)
    assert (used["max_trials"], used["min_loss_drop"], used["overrides"]) == (3, 0.1, {})
    assert isinstance(used["max_trials"], int)
    assert "max_steps" not in used


@pytest.mark.parametrize("words", [(), ("runs",), ("endpoints",)])
def test_a_command_that_is_typed_alone_says_what_there_is(words):
    done = goldpath(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    assert "Commands:" in done.stdout


def test_commands_are_told_so_that_they_work_as_typed(tmp_path, monkeypatch):
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(bin_ / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert program.program() == f"{bin_ / 'python'} -m goldpath.cli.main"
    (bin_ / "goldpath").write_text("#!/bin/sh\n")
    (bin_ / "goldpath").chmod(0o755)
    assert program.program() == ".venv/bin/goldpath"
    assert program.as_typed("Type `goldpath run`.") == "Type `.venv/bin/goldpath run`."
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert program.program() == str(bin_ / "goldpath")
    monkeypatch.setenv("PATH", str(bin_))
    assert program.program() == "goldpath"
    other = tmp_path / "other" / "goldpath"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    assert program.program() == str(bin_ / "goldpath"), "another installation comes first"


def test_cleaning_says_what_it_leaves_and_how_that_is_removed():
    out = CliRunner().invoke(cli, ["runs", "clean", "--help"]).output
    for part in ("goldpath endpoints stop", "--store", "models/", "mlartifacts/", "make clean-state"):
        assert part in out


def test_every_command_writes_the_time_of_a_run_in_the_same_way(finished, capsys):
    from goldpath.cli.summary import print_summary

    finished.started, finished.ended = "2026-01-01T00:00:00+00:00", "2026-01-01T00:06:11+00:00"
    finished.save()
    print_summary(finished)
    assert "small-1 succeeded in 6 min 11 s\n" in capsys.readouterr().out
    assert "  6 min 11 s  " in goldpath("runs", "list").stdout
    file = finished.folder / "results" / "probe.json"
    write_json(file, json.loads(file.read_text()) | {"seconds": 93.64})
    assert "  1 min 34 s  probe\n" in goldpath("runs", "show", finished.name).stdout
