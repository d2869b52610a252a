"""The command line as it is typed: real processes, exit codes, one-line errors."""

import json
import os
import subprocess
import sys
import threading
import time

import click
import pytest
from click.testing import CliRunner

from goldpath.cli.main import COMMANDS, cli
from goldpath.cli.run import parse
from goldpath.core.errors import InputError, StepError
from goldpath.core.files import write_json
from goldpath.pipelines import launch, runs
from tests.cli.typed import goldpath, in_this_process
from tests.pipelines.small import make_run

pytestmark = pytest.mark.counted


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['goldpath', '--help']\n"
        "from goldpath.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'kfp', 'pydantic', 'torch', 'mlflow', 'feast', 'rich', 'transformers', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "goldpath run finetune" in done.stdout
    for name in COMMANDS:
        assert f"\n  {name}" in done.stdout


def every_command() -> list[tuple[str, ...]]:
    """All commands and subcommands, as they are typed."""
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        found.append((name,))
        found += [(name, sub) for sub in command.commands] if isinstance(command, click.Group) else []
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help_for_its_options(words):
    command = cli
    for word in words:
        command = command.get_command(click.Context(command), word)
    answer = CliRunner().invoke(cli, [*words, "--help"])
    assert answer.exit_code == 0
    assert answer.output.startswith(f"Usage: cli {' '.join(words)} ")
    assert command.help
    assert " ".join(command.help.split("\n\n")[0].split()) in " ".join(answer.output.split())
    bare = [option.opts for option in command.params if isinstance(option, click.Option) and not option.help]
    assert not bare, "without help"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run"], "error: which pipeline? Type"),
        (["chat", "-m", " "], "the message is empty"),
        (["run", "finetune", "-p", "name=Not OK"], 'name is "Not OK": use at most 50 lower-case letters'),
        (["run", "nope"], "no pipeline 'nope'"),
        (["run", "finetune", "-p", "dataset"], "is not NAME=VALUE"),
        (["run", "finetune", "-p", "stepz=3"], "no parameter 'stepz'"),
        (["run", "finetune", "-p", "max_steps=x"], "not a whole number"),
        (["run", "finetune", "-p", "max_steps=-3"], "max_steps is -3"),
        (["run", "finetune", "-p", "method=magic"], 'method is "magic"'),
        (["run", "finetune", "-p", "overrides.fine_tune.learning_rate=7"], "learning_rate is 7"),
        (["run", "finetune", "-p", "overrides.cook.heat=7"], "no step 'cook'"),
        (["run", "finetune", "-p", "dataset=missing.jsonl"], "missing.jsonl"),
        (["run", "finetune", "-p", "model=nowhere/model"], "nowhere/model"),
        (["run", "finetune", "-n", "Not OK"], "cannot be the name"),
        (["run", "--resume", "ghost"], "no run 'ghost'"),
        (["run", "finetune", "--resume", "ghost"], "--resume takes no pipeline"),
        (["run", "--rezume", "x"], "No such option"),
        (["runs", "show", "ghost"], "no run 'ghost'"),
        (["runs", "clean"], "which runs?"),
        (["report"], "there are no runs"),
        (["endpoints", "stop", "ghost"], "ghost"),
        (["chat"], "no endpoint"),
        (["ruin"], "Did you mean"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(home, tmp_path, monkeypatch, capfd, words, says):
    monkeypatch.chdir(tmp_path)
    assert in_this_process(monkeypatch, *words) == 2
    said = capfd.readouterr()
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert "Traceback" not in said.out
    assert not list((home / "runs").glob("*/run.json")), "a refused run leaves nothing behind"


def test_a_read_only_home_is_named(tmp_path):
    if os.geteuid() == 0:
        place = "/proc/goldpath"  # root may write anywhere but here
    else:
        place = str(tmp_path / "locked" / "home")
        (tmp_path / "locked").mkdir(mode=0o500)
    done = goldpath("run", "finetune", cwd=tmp_path, env={**os.environ, "GOLDPATH_HOME": place})
    assert done.returncode == 2
    assert place in done.stderr
    assert "GOLDPATH_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_params():
    assert parse(("a=1", "b.c.d=2", "b.e=x=y")) == {"a": "1", "b": {"c": {"d": 2}, "e": "x=y"}}
    for bad in (("a",), ("=1",), ("a=1", "a=2"), ("a=1", "a.b=2")):
        with pytest.raises(InputError):
            parse(bad)


def test_runs_list_show_logs_clean(finished):
    listed = goldpath("runs", "list").stdout
    assert finished.name in listed
    assert "succeeded" in listed
    assert "-31.0%" in listed
    assert "bot v3" in listed
    shown = json.loads(goldpath("runs", "show", finished.name, "--json").stdout)
    assert shown["parameters"] == {"how": "well"}
    assert shown["model"]["version"] == "3"
    assert shown["probe"]["repeat_speedup"] == 21.0
    assert [step["step"] for step in shown["steps"]]
    assert "small-1: small, succeeded" in goldpath("runs", "show", finished.name).stdout
    assert "==> second <==" in goldpath("runs", "logs", finished.name).stdout
    refused = goldpath("runs", "logs", finished.name, "third")
    assert (refused.returncode, "first" in refused.stderr) == (2, True)
    assert goldpath("runs", "clean", finished.name).returncode == 0
    assert runs.all_runs() == []


def test_logs_of_one_step_or_of_all(finished):
    folder = finished.folder / "logs"
    (folder / "first.log").write_bytes(b"one\ntwo, not ended")
    os.utime(folder / "first.log", (1, 1))
    assert goldpath("runs", "logs", finished.name, "first").stdout == "one\ntwo, not ended\n"
    out = goldpath("runs", "logs", finished.name, "-f").stdout
    assert out.startswith("==> first <==\none\ntwo, not ended\n\n==> ")
    assert out.count("==> ") == 3  # first, second, run


def read_until(stream, line: str) -> list[str]:
    """Lines until one is `line`; it waits for as long as that takes."""
    found = []
    for row in stream:
        found.append(row.rstrip("\n"))
        if found[-1] == line:
            return found
    raise AssertionError(f"it ended before {line!r}: {found}")


def test_logs_are_followed_as_they_grow_new_ones_too_until_the_run_ends(home):
    run = make_run("wait")
    runner = threading.Thread(target=launch.execute, args=(run, lambda event: None), daemon=True)
    runner.start()
    while not list((run.folder / "logs").glob("[!r]*.log")):
        time.sleep(0.05)
    (one,) = [file.stem for file in (run.folder / "logs").glob("[!r]*.log")]
    other = {"first": "second", "second": "first"}[one]
    command = [sys.executable, "-m", "goldpath.cli.main", "runs", "logs", "-f", run.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert f"==> {one} <==" in read_until(follower.stdout, f"{one} waits")
        (run.folder / f"go-{one}").touch()
        read_until(follower.stdout, f"{one} goes on")
        assert f"==> {other} <==" in read_until(follower.stdout, f"{other} waits")
        assert follower.poll() is None
        (run.folder / f"go-{other}").touch()
        assert f"{other} goes on" in follower.stdout.read().splitlines()
        assert follower.wait() == 0
    runner.join()
    assert runs.load(run.name).status == "succeeded"


def test_a_report_is_of_the_run_as_it_ended_not_of_an_earlier_try(home):
    run = make_run("well")
    run.report.write_text("of a try that failed before")
    run.status, run.error = "failed", StepError("the second try failed too").to_dict()
    run.save()
    assert goldpath("report", run.name).stdout.strip() == str(run.report)
    assert "the second try failed too" in run.report.read_text()
    run.hold()  # a third try is about to start
    done = goldpath("report", run.name)
    assert (done.returncode, "is running" in done.stderr) == (2, True)
    run.release()
    run.status = "succeeded"
    run.save()
    run.report.write_text("its own")
    assert goldpath("report", run.name).returncode == 0
    assert run.report.read_text() == "its own"


def test_cleaning_leaves_runs_that_are_about_to_start(finished):
    starting = runs.create("small", {}, "starting")
    assert goldpath("runs", "clean", "--all").stdout == "1 run removed.\n"
    assert [run.name for run in runs.all_runs()] == ["starting"]
    starting.release()
    (starting.folder.parents[1] / "store" / "kind" / "slot").mkdir(parents=True)
    done = goldpath("runs", "clean", "--all", "--store")
    assert done.stdout.splitlines() == ["1 run removed.", "0 MB of kept work removed."]


def test_summary_says_what_to_do_next(finished, capsys):
    from goldpath.cli.summary import print_summary

    print_summary(finished)
    out = " ".join(capsys.readouterr().out.split())
    for part in (
        "-31.0%",
        "bot version 3, champion",
        "http://127.0.0.1:8123/v1",
        "goldpath endpoints stop bot",
    ):
        assert part in out
    line = next(part for part in out.split(" Ask it: ")[1:])
    assert line.startswith(
        "curl http://127.0.0.1:8123/v1/chat/completions -H 'Content-Type: application/json' "
        '-d \'{"model": "bot", "max_tokens": 128'
    )


@pytest.mark.parametrize(
    ("passed", "changes", "says"),
    [
        (True, {"champion": "2"}, "bot version 3, accepted; version 2 is champion\n"),
        (
            False,
            {"champion": "2", "accepted": False},
            "rejected by the gate, not served; version 2 is champion\n",
        ),
        (False, {}, "bot version 3, champion as before; this run's gate rejected the same model\n"),
    ],
)
def test_summary_says_what_became_of_the_model(finished, capsys, passed, changes, says):
    from goldpath.cli.summary import print_summary

    for step, changed in (("evaluate", {"passed": passed}), ("register_model", changes)):
        file = finished.folder / "results" / f"{step}.json"
        body = json.loads(file.read_text())
        write_json(file, {**body, "result": {**body["result"], **changed}})
    print_summary(finished)
    assert says in capsys.readouterr().out


def test_pipelines_show_and_compile(tmp_path):
    fields = json.loads(goldpath("pipelines", "show", "finetune", "--json").stdout)
    assert [field["name"] for field in fields][:2] == ["dataset", "model"]
    done = goldpath("pipelines", "compile", "finetune", cwd=tmp_path)
    assert (tmp_path / "finetune.yaml").exists()
    assert "sha256:" in done.stdout
