"""Kubeflow's Model Registry through its official client: lineage, adoption, the champion, failures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from goldpath.core import storage
from goldpath.core.digest import digest_file
from goldpath.core.errors import InputError, MachineError, ModelError, SpecError, StepError
from goldpath.core.uris import local_path
from goldpath.registry import models, pipelines
from goldpath.registry.kubeflow import client
from goldpath.registry.results import Lineage, RegisteredVersion
from tests.registry.model_registry_server import Fault, Registry, serving
from tests.registry.storing import stored
from tests.registry.test_registry_models import METRICS, PARAMETERS
from tests.registry.test_registry_pipelines import COMPILED

Make = Callable[..., tuple[Path, Lineage]]
NAME = "kube-assistant"


@pytest.fixture
def server(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("GOLDPATH_STORAGE", f"file://{tmp_path}/shared")
    monkeypatch.setattr(client, "WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    with serving() as registry:
        monkeypatch.setenv("GOLDPATH_MODEL_REGISTRY", registry.url)
        yield registry


def put(
    model: Make, seed: int, *, accepted: bool = True, compared_with: str | None = None
) -> RegisteredVersion:
    """Register; compared with the present champion where nothing else is said."""
    folder, lineage = stored(model, seed)
    if compared_with is None:
        best = models.champion(NAME)
        compared_with = best.version if best else ""
    return models.register(NAME, folder, lineage, METRICS, PARAMETERS, accepted, compared_with)


def digits(model: Make, seed: int) -> str:
    return model(seed)[1].model_digest[:12]


def test_a_version_keeps_all_that_is_known_about_it(server: Registry, model: Make, tmp_path: Path) -> None:
    folder, lineage = stored(model, 1)
    found = put(model, 1)
    assert found == RegisteredVersion(
        name=NAME,
        version=digits(model, 1),
        uri=folder.as_uri(),
        accepted=True,
        aliases=["champion"],
        adopted=False,
        champion=digits(model, 1),
        previous_champion="",
        lineage=lineage,
        metrics=METRICS,
        parameters=PARAMETERS,
    )
    assert found.uri.startswith(f"file://{tmp_path}/shared/store/fine-tune/")
    assert models.champion(NAME) == found.model_copy(update={"previous_champion": found.version})
    assert server.props("registered_models", NAME) == {"kind": "model", "champion": found.version}
    version = server.one("model_versions", found.version)
    assert (version["state"], version["author"]) == ("LIVE", "goldpath")
    kept = server.props("model_versions", found.version)
    assert (kept["dataset_digest"], kept["metric.loss"], kept["parameter.method"]) == ("d" * 64, 1.25, "lora")
    held = server.one("model_artifacts", NAME)
    assert (held["uri"], held["artifactType"], held["modelFormatName"]) == (
        found.uri,
        "model-artifact",
        "huggingface",
    )
    assert (held["modelSourceKind"], held["modelSourceId"]) == ("kfp", "20261124-1")


def test_another_pod_finds_the_champion_and_its_files(
    server: Registry, model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(model, 1)
    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "another-pod"))
    best = models.champion(NAME)
    assert best is not None
    weights = local_path(best.uri) / "model.safetensors"
    assert weights.read_bytes() == (model(1)[0] / "model.safetensors").read_bytes()
    for file in (tmp_path / "shared").rglob("model.safetensors"):
        file.unlink()
    with pytest.raises(ModelError, match=r"its champion, are missing at .*: model/model\.safetensors"):
        models.champion(NAME)


def test_the_same_content_is_adopted(server: Registry, model: Make) -> None:
    first = put(model, 1)
    folder, lineage = stored(model, 1)
    again = models.register(
        NAME, folder, lineage.model_copy(update={"run": "another"}), {"loss": 9.0}, {}, True, first.version
    )
    assert again.adopted
    assert again == first.model_copy(update={"adopted": True, "previous_champion": first.version})
    assert len(server.objects["model_versions"]) == len(server.objects["model_artifacts"]) == 1


def test_only_an_accepted_version_becomes_champion(server: Registry, model: Make) -> None:
    first = put(model, 1, accepted=False)
    assert (first.accepted, first.champion, first.aliases) == (False, "", [])
    assert server.one("model_versions", first.version)["state"] == "ARCHIVED"
    assert models.champion(NAME) is None
    second = put(model, 2)
    assert (second.champion, second.previous_champion) == (second.version, "")
    third = put(model, 3, accepted=False)
    assert (third.champion, third.previous_champion) == (second.version, second.version)
    fourth = put(model, 4)
    assert (fourth.champion, fourth.previous_champion) == (fourth.version, second.version)
    assert [(v.version, v.accepted, v.aliases) for v in models.versions(NAME)] == [
        (fourth.version, True, ["champion"]),
        (third.version, False, []),
        (second.version, True, []),
        (first.version, False, []),
    ]
    assert models.get(NAME, third.version).lineage == model(3)[1]
    with pytest.raises(InputError, match=rf"has no version 7.*{fourth.version}"):
        models.get(NAME, "7")


def test_a_champion_is_not_displaced_by_a_model_that_was_never_compared_with_it(
    server: Registry, model: Make
) -> None:
    first, second = put(model, 1), put(model, 2)
    for seed, compared_with in ((3, first.version), (3, ""), (1, first.version)):
        with pytest.raises(StepError, match=rf"version {second.version} of {NAME} became champion meanwhile"):
            put(model, seed, compared_with=compared_with)
    assert len(models.versions(NAME)) == 2
    assert put(model, 3, compared_with=second.version).aliases == ["champion"]


def test_a_champion_that_moves_during_a_registration_is_seen(server: Registry, model: Make) -> None:
    first = put(model, 1)
    put(model, 2, accepted=False)

    def overtake(said: str) -> None:
        if said.startswith("POST model_versions/"):  # the last write before the champion moves
            kept = server.one("model_versions", digits(model, 2))
            kept["state"] = "LIVE"
            kept["customProperties"]["status"]["string_value"] = "accepted"
            server.one("registered_models", NAME)["customProperties"]["champion"]["string_value"] = kept[
                "name"
            ]

    server.before = overtake
    with pytest.raises(StepError, match=rf"version {digits(model, 2)} of {NAME} became champion meanwhile"):
        put(model, 3, compared_with=first.version)
    server.before = lambda _: None
    best = models.champion(NAME)
    assert best is not None
    assert best.version == digits(model, 2)


@pytest.mark.parametrize(
    ("verdicts", "accepted", "champion"),
    [([False, True], True, True), ([True, False], True, True), ([False] * 2, False, False)],
)
def test_a_later_verdict_on_the_same_content(
    server: Registry, model: Make, verdicts: list[bool], accepted: bool, champion: bool
) -> None:
    last = [put(model, 1, accepted=verdict) for verdict in verdicts][-1]
    assert (last.accepted, bool(last.aliases)) == (accepted, champion)
    kept = server.props("model_versions", last.version)
    assert kept["last_verdict"] == ("accepted" if verdicts[-1] else "rejected")
    assert server.one("model_versions", last.version)["state"] == ("LIVE" if accepted else "ARCHIVED")


def test_a_person_takes_the_standing_away_by_archiving(server: Registry, model: Make) -> None:
    first = put(model, 1)
    server.one("model_versions", first.version)["state"] = "ARCHIVED"
    assert models.champion(NAME) is None
    assert put(model, 2, compared_with="").champion == digits(model, 2)
    server.one("registered_models", NAME)["state"] = "ARCHIVED"
    with pytest.raises(InputError, match=rf"{NAME} was archived in the model registry.*Restore it"):
        put(model, 3)


def test_another_content_under_the_same_version_is_refused(server: Registry, model: Make) -> None:
    put(model, 1)
    kept = server.one("model_versions", digits(model, 1))["customProperties"]
    kept["model_digest"]["string_value"] = "f" * 64
    with pytest.raises(
        InputError, match=rf"version {digits(model, 1)} of {NAME} .* another content .f{{64}}; ours"
    ):
        put(model, 1)
    assert len(server.objects["model_artifacts"]) == 1


def test_a_name_that_something_else_has_is_refused(server: Registry, model: Make) -> None:
    server.create("registered_models", "RegisteredModel", {"name": NAME})
    with pytest.raises(InputError, match=r"is taken in the registry by a model that goldpath did not make"):
        put(model, 1)
    assert models.versions(NAME) == []
    assert models.champion("never-seen") is None
    with pytest.raises(InputError, match=r"cannot name a model"):
        models.champion("a/b")


def test_files_that_are_gone_are_pointed_to_anew(server: Registry, model: Make, tmp_path: Path) -> None:
    first = put(model, 1)
    shutil.rmtree(tmp_path / "shared")
    shutil.rmtree(tmp_path / "home" / "store")
    again = put(model, 1, compared_with=first.version)
    assert (again.adopted, again.version) == (True, first.version)
    assert again.uri != first.uri
    assert models.champion(NAME) is not None


@pytest.mark.parametrize(
    ("status", "on", "after"),
    [
        (429, "GET", False),
        (500, "POST registered_models", True),
        (503, "POST model_versions", False),
        (503, "POST model_versions", True),
        (500, "POST model_versions/", True),
        (503, "PATCH registered_models", True),
    ],
)
def test_a_failure_that_passes_leaves_no_trace(
    server: Registry, model: Make, status: int, on: str, after: bool
) -> None:
    """Also where the server did what was asked and could not say so."""
    server.faults.append(Fault(status, 1, on, after=after))
    found = put(model, 1, compared_with="")
    assert (found.champion, found.uri) == (found.version, server.one("model_artifacts", NAME)["uri"])
    assert [len(held) for held in server.objects.values()] == [1, 1, 1]
    assert server.faults[0].times == 0


def test_a_registration_that_broke_off_is_taken_up(server: Registry, model: Make) -> None:
    server.faults.append(Fault(500, 100, "POST model_versions/"))
    with pytest.raises(MachineError, match=r"the model registry at http.* fails \(500: .*a fault"):
        put(model, 1, compared_with="")
    assert [len(held) for held in server.objects.values()] == [1, 1, 0]
    assert models.champion(NAME) is None
    server.faults.clear()
    found = put(model, 1, compared_with="")
    assert (found.adopted, found.champion) == (True, found.version)
    assert models.champion(NAME) is not None


def test_two_pods_meet_in_one_version(server: Registry, model: Make) -> None:
    """The other's version appears between our look and our write."""
    folder, lineage = stored(model, 1)
    put(model, 2, accepted=False)
    other: list[str] = []

    def race(said: str) -> None:
        if said == "POST model_versions" and not other:
            other.append(said)
            models.register(NAME, folder, lineage, METRICS, PARAMETERS, True, "")

    server.before = race
    late = models.register(NAME, folder, lineage, METRICS, PARAMETERS, True, "")
    assert other
    assert (late.adopted, late.champion) == (True, late.version)
    assert len(server.objects["model_versions"]) == 2


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, InputError, "does not know who we are .401.*KF_PIPELINES_SA_TOKEN_PATH"),
        (403, InputError, "does not let us in .403.*service account"),
        (404, InputError, "is no model registry .*Check GOLDPATH_MODEL_REGISTRY"),
        (400, InputError, "refuses what we wrote .400: .*a fault"),
        (409, MachineError, "another object in the way .*a fault.*Run it again"),
        (503, MachineError, "fails .503: .*a fault.*Look at its log"),
    ],
)
def test_what_does_not_pass_is_said_with_its_remedy(
    server: Registry, model: Make, status: int, kind: type[Exception], says: str
) -> None:
    folder, lineage = stored(model, 1)
    server.faults.append(Fault(status, 100))
    with pytest.raises(kind, match=says):
        models.register(NAME, folder, lineage, METRICS, PARAMETERS, True, "")
    assert len(server.requests) == (4 if status in (409, 503) else 1)  # only what may pass is tried again


def test_the_token_of_the_pod_is_shown(
    server: Registry, model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "secret"
    with pytest.raises(InputError, match=r"does not know who we are"):
        models.champion(NAME)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match=r"cannot be asked .*token.*Set KF_PIPELINES_SA_TOKEN_PATH"):
        models.champion(NAME)
    (tmp_path / "token").write_text("secret")
    assert models.champion(NAME) is None


def test_a_server_that_is_away_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAITS_S", (0.0,))
    monkeypatch.setenv("GOLDPATH_MODEL_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(
        MachineError,
        match=r"cannot reach the model registry at http://127\.0\.0\.1:9 .*Check GOLDPATH_MODEL_REGISTRY",
    ):
        models.champion(NAME)


@pytest.mark.parametrize("page", [b'{"login": "here"}', b"<!doctype html><title>Sign in</title>", b"{", b""])
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_a_page_that_is_no_registry_is_named(server: Registry, page: bytes, kind: str) -> None:
    server.page_instead = page, kind
    with pytest.raises(
        InputError, match=r"what answers at .* is no model registry.*Check GOLDPATH_MODEL_REG"
    ):
        models.champion(NAME)


@pytest.mark.parametrize("address", ["registry:8080", "http://", "ftp://x", "http://x/path", "http://x:port"])
def test_what_is_no_address_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("GOLDPATH_MODEL_REGISTRY", address)
    with pytest.raises(SpecError, match=r"GOLDPATH_MODEL_REGISTRY is .*Give http://HOST:PORT"):
        models.champion(NAME)


def test_without_a_storage_nothing_is_registered(
    server: Registry, model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lineage = stored(model, 1)
    monkeypatch.delenv("GOLDPATH_STORAGE")
    with pytest.raises(InputError, match=r"there is no storage that its readers reach.*Set GOLDPATH_STORAGE"):
        models.register(NAME, folder, lineage, METRICS, PARAMETERS, True, "")
    monkeypatch.setenv("GOLDPATH_STORAGE", "file:///elsewhere")
    with pytest.raises(InputError, match=r"is not in the storage"):
        models.register(NAME, *model(1), METRICS, PARAMETERS, True, "")
    assert server.requests == []


def test_figures_are_tracked_by_mlflow_besides(
    registry: Path, server: Registry, model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{registry}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = put(model, 1)
    put(model, 1)
    tracked = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (run,) = tracked.search_runs([tracked.get_experiment_by_name(NAME).experiment_id])
    assert server.props("model_versions", found.version)["mlflow_run"] == run.info.run_id
    assert (run.data.metrics, run.data.params, run.info.status) == (METRICS, PARAMETERS, "FINISHED")
    assert run.data.tags["model_digest"] == found.lineage.model_digest
    assert tracked.search_registered_models() == []


def test_a_figure_that_is_no_number_is_kept(server: Registry, model: Make) -> None:
    folder, lineage = stored(model, 1)
    found = models.register(NAME, folder, lineage, {"loss": float("inf")}, {}, True, "")
    assert found.metrics == {"loss": float("inf")}


def test_the_compiled_pipeline_is_a_version_by_its_content(
    server: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = tmp_path / "finetune.yaml"
    compiled.write_text(COMPILED.format(note="one"))
    version = pipelines.register_pipeline(compiled, "finetune")
    assert version == digest_file(compiled)[:12] == pipelines.register_pipeline(compiled, "finetune")
    assert server.props("model_versions", version)["digest"] == digest_file(compiled)
    held = server.one("model_artifacts", "pipeline-finetune")
    assert (held["artifactType"], storage.read(held["uri"])) == ("doc-artifact", compiled.read_bytes())
    monkeypatch.setenv("GOLDPATH_HOME", str(tmp_path / "another-pod"))
    assert pipelines.pipeline_file("finetune", version).read_text() == compiled.read_text()
    storage.write(b"damaged", held["uri"])
    with pytest.raises(InputError, match=r"is gone or was changed"):
        pipelines.pipeline_file("finetune", version)
    with pytest.raises(InputError, match=r"pipeline-finetune has no version 7"):
        pipelines.pipeline_file("finetune", "7")
    compiled.write_text(COMPILED.format(note="two"))
    assert pipelines.register_pipeline(compiled, "finetune") != version
    assert len(server.objects["model_versions"]) == 2
