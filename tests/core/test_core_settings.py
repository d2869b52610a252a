"""Where state lives, which backend, and URIs between steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldpath.core import settings
from goldpath.core.errors import InputError, MachineError, SpecError
from goldpath.core.uris import local_path


def test_home_is_the_variable_else_a_folder_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOLDPATH_HOME", "~/models")
    assert settings.home() == Path.home() / "models"
    monkeypatch.delenv("GOLDPATH_HOME")
    monkeypatch.chdir(tmp_path)
    assert settings.home() == tmp_path / ".goldpath"


def test_state_makes_the_folder(home: Path) -> None:
    assert settings.state("store", "kind") == home / "store" / "kind"
    assert (home / "store" / "kind").is_dir()


@pytest.mark.parametrize("place", ["/sys/goldpath", "/dev/null/goldpath"])
def test_state_where_nothing_can_be_written_names_the_folder(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("GOLDPATH_HOME", place)
    with pytest.raises(MachineError, match=place):
        settings.state("x")


def test_state_in_a_folder_without_write_permission_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as for a user who is not root
    with pytest.raises(MachineError, match="no permission to write"):
        settings.state()


def test_backend_is_chosen_by_variable_then_by_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    monkeypatch.setattr(settings, "_IN_CLUSTER", token)
    monkeypatch.delenv("GOLDPATH_BACKEND", raising=False)
    assert settings.backend() == "local"
    token.touch()
    assert settings.backend() == "kubernetes"
    monkeypatch.setenv("GOLDPATH_BACKEND", "local")
    assert settings.backend() == "local"
    monkeypatch.setenv("GOLDPATH_BACKEND", "mainframe")
    with pytest.raises(SpecError, match=r"'mainframe'.*local, kubernetes"):
        settings.backend()


def test_the_run_is_read_from_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLDPATH_RUN_DIR", raising=False)
    monkeypatch.delenv("GOLDPATH_PIPELINE", raising=False)
    assert (settings.run_id(), settings.run_dir(), settings.compiled_pipeline()) == ("", None, None)
    monkeypatch.setenv("GOLDPATH_RUN", "r1")
    monkeypatch.setenv("GOLDPATH_RUN_DIR", "/runs/r1")
    monkeypatch.setenv("GOLDPATH_PIPELINE", "/runs/r1/pipeline.yaml")
    assert settings.run_id() == "r1"
    assert settings.run_dir() == Path("/runs/r1")
    assert settings.compiled_pipeline() == Path("/runs/r1/pipeline.yaml")


def test_tracking_goes_to_sqlite_unless_a_server_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.tracking_uri() == f"sqlite:///{home}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert settings.tracking_uri() == "http://mlflow:5000"


@pytest.mark.parametrize(
    ("uri", "path"),
    [("file:///a%20b/c", "/a b/c"), ("/plain/path", "/plain/path"), ("relative/path", "relative/path")],
)
def test_a_local_uri_has_a_path(uri: str, path: str) -> None:
    assert local_path(uri) == Path(path)


@pytest.mark.parametrize("uri", ["s3://bucket/model", "hf://org/model"])
def test_a_uri_of_another_machine_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="is not on this machine"):
        local_path(uri)
