"""Child processes: real ones, ended in every way there is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from goldpath.core import process
from goldpath.core.errors import Interrupted, MachineError, StepError

pytestmark = pytest.mark.counted

# A child that says its pid, starts a grandchild and waits; with "stubborn" both ignore SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"],
                              stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(os.getpid(), grandchild.pid, flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen")


def is_gone(pid: int) -> bool:
    return process.started_at(pid) is None


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_output_comes_line_by_line_with_the_exit_code() -> None:
    lines: list[str] = []
    code = process.run_child(
        python(
            "import os, sys; print(os.environ['ADDED']); print('err', file=sys.stderr); print('é'); sys.exit(3)"
        ),
        what="probe",
        env={"ADDED": "yes", "PYTHONIOENCODING": "utf-8"},
        on_line=lines.append,
    )
    assert code == 3
    assert sorted(lines) == ["err", "yes", "é"]


def test_long_output_without_an_end_of_line_arrives_whole() -> None:
    lines: list[str] = []
    process.run_child(
        python("import sys; sys.stdout.write('x' * 300_000 + '\\n' + 'tail')"),
        what="probe",
        on_line=lines.append,
    )
    assert [len(line) for line in lines] == [300_000, 4]


def test_bytes_that_are_no_text_do_not_break_it(tmp_path: Path) -> None:
    lines: list[str] = []
    code = process.run_child(
        python("import os; os.write(1, b'\\xff\\xfe ok\\r\\n' + os.getcwd().encode())"),
        what="probe",
        cwd=tmp_path,
        on_line=lines.append,
    )
    assert code == 0
    assert lines == ["\ufffd\ufffd ok", str(tmp_path)]


def test_a_program_that_cannot_be_started_is_named() -> None:
    with pytest.raises(StepError, match=r"training could not be started: .*no-such-program"):
        process.run_child(["/no-such-program"], what="training")


def test_stop_ends_the_whole_tree() -> None:
    seen: list[int] = []
    code = process.run_child(
        python(FAMILY),
        what="probe",
        on_line=lambda line: seen.extend(int(pid) for pid in line.split()),
        stop=lambda: bool(seen),
    )
    assert code == -signal.SIGTERM
    assert len(seen) == 2
    assert all(is_gone(pid) for pid in seen)


def test_a_child_that_ends_by_itself_is_not_called_stopped() -> None:
    assert process.run_child(python("pass"), what="probe", stop=lambda: False) == 0


def test_an_error_while_reading_ends_the_tree() -> None:
    seen: list[int] = []

    def fail(line: str) -> None:
        seen.extend(int(pid) for pid in line.split())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run_child(python(FAMILY), what="probe", on_line=fail)
    assert len(seen) == 2
    assert all(is_gone(pid) for pid in seen)


def test_a_process_left_behind_with_our_pipe_does_not_keep_us_waiting() -> None:
    left: list[int] = []
    code = process.run_child(
        python(
            "import subprocess, sys\n"
            "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "print(left.pid)"
        ),
        what="probe",
        on_line=lambda line: left.append(int(line)),
    )
    assert code == 0
    assert not is_gone(left[0])
    process.kill_tree(left[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent_however_that_ends(tmp_path: Path, number: int) -> None:
    said = tmp_path / "pid"
    parent = subprocess.Popen(
        python(
            "import sys\n"
            "from goldpath.core.process import run_child\n"
            "child = 'import os, sys, time; open(sys.argv[1], \"w\").write(str(os.getpid())); time.sleep(600)'\n"
            "run_child([sys.executable, '-c', child, sys.argv[1]], what='child')",
            str(said),
        )
    )
    wait_until(lambda: said.exists() and said.read_text() != "")
    child = int(said.read_text())
    os.kill(parent.pid, number)
    assert parent.wait() == -number
    wait_until(lambda: is_gone(child))


def test_a_parent_that_had_ended_before_is_noticed() -> None:
    done = subprocess.run(
        python("from goldpath.core.process import die_with_parent; die_with_parent(1 << 22); print('alive')"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == ""


def test_where_the_kernel_cannot_tell_a_thread_watches_the_parent() -> None:
    child = python(
        "import time\n"
        "from goldpath.core import process\n"
        "process._LIBC = object()\n"
        "process.die_with_parent()\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen(
        python(
            "import subprocess, sys\n"
            "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)\n"
            "child.stdout.readline()\n"
            "print(child.pid, flush=True)\n"
            "sys.stdin.readline()",
            *child,
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not is_gone(pid)
    parent.communicate("end\n")
    wait_until(lambda: is_gone(pid))


@pytest.mark.parametrize("how", ["gentle", "stubborn"])
def test_kill_tree_ends_a_family(how: str) -> None:
    root = subprocess.Popen(python(FAMILY, how), stdout=subprocess.PIPE, text=True)
    assert root.stdout is not None
    family = [int(pid) for pid in root.stdout.readline().split()]
    process.kill_tree(root.pid, grace_s=0.5 if how == "stubborn" else 10)
    assert all(is_gone(pid) for pid in family)
    root.wait()
    root.stdout.close()


def test_kill_tree_of_a_process_that_is_gone_does_nothing() -> None:
    ended = subprocess.Popen(python("pass"))
    ended.wait()
    process.kill_tree(ended.pid)


def test_sigterm_becomes_interrupted_and_cleans_up(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def work() -> None:
        try:
            with process.sigterm_raises():
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
        finally:
            cleaned.append(True)

    with pytest.raises(Interrupted, match="SIGTERM"):
        work()
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    done: list[object] = []

    def work() -> None:
        with process.sigterm_raises():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGTERM)]


def test_a_detached_process_outlives_who_started_it(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    starter = subprocess.run(
        python(
            "import sys\n"
            "from pathlib import Path\n"
            "from goldpath.core.process import start_detached\n"
            "code = 'import os, time; print(os.environ[\"X\"], flush=True); time.sleep(600)'\n"
            "server = [sys.executable, '-c', code]\n"
            "print(start_detached(server, log=Path(sys.argv[1]), env={'X': 'up'}))",
            str(log),
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    pid = int(starter.stdout)
    wait_until(lambda: log.read_text() == "up\n")
    assert os.getsid(pid) == pid
    assert not is_gone(pid)
    process.kill_tree(pid)
    wait_until(lambda: is_gone(pid))


def test_a_detached_process_is_not_in_the_tree_of_who_started_it(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        python(
            "import sys, time\n"
            "from pathlib import Path\n"
            "from goldpath.core.process import start_detached\n"
            "server = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
            "print(start_detached(server, log=Path(sys.argv[1])), flush=True)\n"
            "time.sleep(600)",
            str(tmp_path / "server.log"),
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    process.kill_tree(starter.pid)
    starter.wait()
    assert not is_gone(pid)
    process.kill_tree(pid)
    assert is_gone(pid)
    starter.stdout.close()


def test_an_interrupted_start_leaves_no_detached_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    def interrupted(line: bytes) -> int:
        pids.append(int(line))
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "int", interrupted, raising=False)  # at the moment that the pid is known
    with pytest.raises(KeyboardInterrupt):
        process.start_detached(["touch", str(tmp_path / "began")], log=tmp_path / "server.log")
    wait_until(lambda: is_gone(pids[0]))
    assert not (tmp_path / "began").exists()


@pytest.mark.parametrize("where", ["no room for one", "no room for the second", "killed"])
def test_a_detached_process_that_cannot_be_started_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    prelude = {
        "no room for the second": f"def refuse(): raise OSError({errno.EAGAIN}, 'Resource unavailable')\n"
        "import os; os.fork = refuse\n",
        "killed": "import os; os.kill(os.getpid(), 9)\n",
    }
    if where == "no room for one":
        monkeypatch.setattr(process.subprocess, "Popen", refuse)
    else:
        monkeypatch.setattr(process, "_DETACH", prelude[where] + process._DETACH)
    with pytest.raises(
        MachineError, match=r"no process can be started \((resource|it was killed).*ulimit -u"
    ):
        process.start_detached(["touch", str(tmp_path / "began")], log=tmp_path / "server.log")
    assert not (tmp_path / "began").exists()


def test_a_detached_program_that_cannot_be_run_is_told_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    pid = process.start_detached(["/no-such-program"], log=log)
    wait_until(lambda: is_gone(pid))
    assert "No such file or directory" in log.read_text()


def test_a_pid_and_its_start_name_a_process() -> None:
    me = os.getpid()
    started = process.started_at(me)
    assert started == pytest.approx(psutil.Process(me).create_time())
    assert process.is_same_process(me, started or 0)
    assert not process.is_same_process(me, (started or 0) - 60)
    zombie = subprocess.Popen(python("pass"))
    wait_until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
    assert process.started_at(zombie.pid) is None
    zombie.wait()
    assert not process.is_same_process(zombie.pid, time.time())


def test_a_process_whose_parent_does_not_look_is_not_waited_for():
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\nsys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    killer = threading.Thread(target=process.kill_tree, args=(child, 60), daemon=True)
    killer.start()
    killer.join(30)
    assert not killer.is_alive()
    assert psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    parent.communicate()
