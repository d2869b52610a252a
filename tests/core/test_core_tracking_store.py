"""The embedded MLflow store: whole or not there, and clear about what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from goldpath.core import tracking_store as store
from goldpath.core.errors import GoldpathError, InputError, MachineError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose database two processes made at once."""
    home = tmp_path_factory.mktemp("made")
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    code = "from goldpath.core.tracking_store import tracking_store; print(tracking_store())"
    command = [sys.executable, "-c", code]
    both = [
        subprocess.Popen(command, env={**env, "GOLDPATH_HOME": str(home)}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert {child.communicate()[0] for child in both} == {f"sqlite:///{home}/mlflow.db\n"}
    assert [child.returncode for child in both] == [0, 0]
    return home


@pytest.fixture
def copy(made: Path, home: Path) -> Path:
    """A database of our own under `home`."""
    home.mkdir()
    target = home / "mlflow.db"
    target.write_bytes((made / "mlflow.db").read_bytes())
    return target


def test_two_processes_make_one_database_that_mlflow_accepts(made: Path) -> None:
    from mlflow.tracking import MlflowClient

    left = {path.name for path in made.iterdir()}
    assert left == {"mlflow.db", ".mlflow.db.lock", "mlartifacts"}
    client = MlflowClient(tracking_uri=f"sqlite:///{made}/mlflow.db")
    default = client.get_experiment("0")
    assert default.artifact_location == f"file://{made}/mlartifacts/0"


def test_a_database_that_is_there_is_used_without_importing_mlflow(copy: Path) -> None:
    code = (
        "import sys; from goldpath.core.tracking_store import tracking_store; tracking_store();"
        "assert 'mlflow' not in sys.modules"
    )
    env = {**os.environ, "GOLDPATH_HOME": str(copy.parent)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_a_build_that_fails_leaves_no_database(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", fail)
    with pytest.raises(MachineError, match="the disk is full"):
        store.tracking_store()
    assert [path.name for path in home.iterdir() if not path.name.startswith(".")] == ["mlartifacts"]


def test_a_server_is_left_to_mlflow(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert store.tracking_store() == "http://127.0.0.1:1"
    assert store.database() is None


def test_a_damaged_database_is_named_with_what_to_do(copy: Path) -> None:
    data = bytearray(copy.read_bytes())
    data[5_000:60_000] = b"\xff" * 55_000
    copy.write_bytes(bytes(data))
    with pytest.raises(MachineError, match="is damaged") as raised:
        store.tracking_store()
    assert str(copy) in raised.value.message
    assert "Move it away" in raised.value.remedy


def test_a_file_that_is_no_database_is_named(home: Path) -> None:
    home.mkdir()
    (home / "mlflow.db").write_text("hello " * 1_000)
    with pytest.raises(MachineError, match=r"mlflow\.db is damaged"):
        store.tracking_store()


def test_a_locked_database_is_waited_for_then_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.2)
    with closing(sqlite3.connect(copy)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MachineError, match=r"mlflow\.db is locked by another program"):
            store.tracking_store()
    assert store.tracking_store()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (sqlite3.OperationalError("attempt to write a readonly database"), "no permission to write"),
        (RuntimeError("(sqlite3.OperationalError) unable to open database file"), "no permission to write"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "the disk is full"),
        (RuntimeError("(sqlite3.OperationalError) database is locked [SQL: ...]"), "is locked"),
        (RuntimeError("(sqlite3.DatabaseError) database disk image is malformed"), "is damaged"),
    ],
)
def test_failures_that_mlflow_wraps_are_explained(error: Exception, says: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=says), store.database_errors(tmp_path / "mlflow.db"):
        raise error


@pytest.mark.parametrize("error", [InputError("ours"), ValueError("a defect")])
def test_what_is_no_failure_of_the_database_passes(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, store.database_errors(tmp_path / "mlflow.db"):
        raise error
    assert raised.value is error
    assert isinstance(error, GoldpathError) or store.explained(error, tmp_path) is None


def test_a_place_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////sys/goldpath/mlflow.db")
    with pytest.raises(MachineError, match="no permission to write /sys/goldpath"):
        store.tracking_store()
