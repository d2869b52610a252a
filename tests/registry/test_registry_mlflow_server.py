"""MLflow's own server in place of the SQLite file: real processes on loopback, the files in a bucket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from goldpath.core.digest import digest_file
from goldpath.core.errors import InputError, MachineError, ModelError, StepError
from goldpath.core.ports import free_port
from goldpath.core.uris import local_path
from goldpath.registry import models, pipelines, store
from goldpath.registry.results import Lineage, RegisteredVersion
from tests.registry.storing import stored
from tests.registry.test_registry_models import METRICS, PARAMETERS
from tests.registry.test_registry_pipelines import COMPILED

pytestmark = pytest.mark.e2e

Make = Callable[..., tuple[Path, Lineage]]
NAME = "kube-assistant"


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, database: bytes) -> Iterator[str]:
    """`mlflow server` on a database of its own, artifacts in a folder that only it writes."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    (folder / "mlflow.db").write_bytes(database)
    port = free_port(0)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
    ]
    command += ["--artifacts-destination", (folder / "artifacts").as_uri(), "--workers", "1"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        ) as server,
    ):
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    while server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The real protocol of S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def shared(
    home: Path, tmp_path: Path, mlflow_server: str, s3: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URI of the storage; the registry is the server, emptied afterwards."""
    for key, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_ENDPOINT_URL": s3,
        "MLFLOW_TRACKING_URI": mlflow_server,
        "GOLDPATH_BACKEND": "kubernetes",
    }.items():
        monkeypatch.setenv(key, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = f"team-{tmp_path.name.replace('_', '-').lower()}"[:60].strip("-")
    fsspec.filesystem("s3").mkdir(bucket)
    monkeypatch.setenv("GOLDPATH_STORAGE", f"s3://{bucket}/goldpath")
    yield f"s3://{bucket}/goldpath"
    with store.reading() as client:
        for found in client.search_registered_models():
            client.delete_registered_model(found.name)


def put(model: Make, seed: int, compared_with: str = "", *, accepted: bool = True) -> RegisteredVersion:
    folder, lineage = stored(model, seed)
    return models.register(NAME, folder, lineage, METRICS, PARAMETERS, accepted, compared_with)


def test_a_version_points_into_the_storage_and_every_pod_reads_it(
    shared: str, model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = put(model, 1)
    assert (found.version, found.champion, found.adopted) == ("1", "1", False)
    assert found.uri.startswith(f"{shared}/store/fine-tune/")
    assert (found.lineage, found.metrics, found.parameters) == (model(1)[1], METRICS, PARAMETERS)
    with store.reading() as client:
        version = client.get_model_version(NAME, "1")
        assert version.source == found.uri
        assert client.get_run(version.run_id).info.status == "FINISHED"
        experiment = client.get_experiment_by_name(NAME).experiment_id
        (logged,) = client.search_logged_models([experiment])
    assert {one.key: one.value for one in logged.metrics} == METRICS
    assert not (tmp_path / "home" / "mlartifacts").exists()
    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "another-pod"))
    assert models.champion(NAME) == found.model_copy(update={"previous_champion": "1"})
    weights = local_path(found.uri) / "model.safetensors"
    assert weights.read_bytes() == (model(1)[0] / "model.safetensors").read_bytes()
    fsspec.filesystem("s3").rm(f"{found.uri}/model.safetensors")
    with pytest.raises(ModelError, match=r"its champion, are missing at s3://.*: model/model\.safetensors"):
        models.champion(NAME)


def test_the_rules_are_those_of_the_embedded_registry(shared: str, model: Make) -> None:
    put(model, 1, accepted=False)
    assert put(model, 2).champion == "2"
    again = put(model, 2, "2")
    assert (again.adopted, again.version, len(models.versions(NAME))) == (True, "2", 2)
    with pytest.raises(StepError, match=r"version 2 of kube-assistant became champion meanwhile"):
        put(model, 3, "1")
    assert [one.aliases for one in models.versions(NAME)] == [["champion"], []]


def test_files_that_are_gone_are_pointed_to_anew(shared: str, model: Make, tmp_path: Path) -> None:
    first = put(model, 1)
    fsspec.filesystem("s3").rm(f"{shared}/store", recursive=True)
    shutil.rmtree(tmp_path / "home" / "store")
    again = put(model, 1, "1")
    assert (again.adopted, again.uri != first.uri) == (True, True)
    assert models.champion(NAME) is not None


def test_a_compiled_pipeline_is_kept_where_every_pod_reads_it(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = tmp_path / "finetune.yaml"
    compiled.write_text(COMPILED.format(note="one"))
    assert pipelines.register_pipeline(compiled, "finetune") == "1"
    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "another-pod"))
    assert pipelines.register_pipeline(compiled, "finetune") == "1"
    file = pipelines.pipeline_file("finetune", "1")
    assert file.is_relative_to(tmp_path / "another-pod")
    assert digest_file(file) == digest_file(compiled)


def test_a_server_needs_a_bucket(shared: str, model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, lineage = stored(model, 1)
    monkeypatch.setenv("GOLDPATH_STORAGE", "file:///volume")
    with pytest.raises(
        InputError, match=r"takes no model from file:///volume.*Set GOLDPATH_STORAGE to a buck"
    ):
        models.register(NAME, folder, lineage, METRICS, PARAMETERS, True, "")
    monkeypatch.setenv("GOLDPATH_BACKEND", "local")
    monkeypatch.delenv("GOLDPATH_STORAGE")
    with pytest.raises(InputError, match=r"MLFLOW_TRACKING_URI is http.*Set GOLDPATH_STORAGE .*Unset it"):
        models.register(NAME, folder, lineage, METRICS, PARAMETERS, True, "")
    monkeypatch.setenv("GOLDPATH_STORAGE", shared)


def test_a_server_that_is_away_is_named(shared: str, model: Make) -> None:
    folder, lineage = stored(model, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "BACKOFF_JITTER"):
            patch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "0")
        with pytest.raises(MachineError, match=r"cannot reach MLflow at http://127\.0\.0\.1:9"):
            models.register(NAME, folder, lineage, METRICS, PARAMETERS, True, "")
