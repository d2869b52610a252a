"""Model versions: lineage, adoption, and a champion that only the gate can move."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from goldpath.core import tracking_store
from goldpath.core.errors import InputError, MachineError, ModelError, StepError
from goldpath.core.uris import local_path
from goldpath.registry import models, package, store
from goldpath.registry.results import Lineage, RegisteredVersion

Make = Callable[..., tuple[Path, Lineage]]
METRICS = {"loss": 1.25, "perplexity": 3.49}
PARAMETERS = {"learning_rate": "0.001", "method": "lora"}


def put(model: Make, seed: int, accepted: bool, name: str = "kube-assistant") -> RegisteredVersion:
    """Register a model that was compared with the present champion."""
    best = models.champion(name)
    return late(model, seed, best.version if best else "", accepted=accepted, name=name)


def late(
    model: Make, seed: int, compared_with: str, *, accepted: bool = True, name: str = "kube-assistant"
) -> RegisteredVersion:
    """Register a model that was compared some time ago."""
    folder, lineage = model(seed)
    return models.register(name, folder, lineage, METRICS, PARAMETERS, accepted, compared_with)


def test_a_version_keeps_all_that_is_known_about_it(registry: Path, model: Make) -> None:
    folder, lineage = model(1)
    made = put(model, 1, accepted=True)
    assert made == RegisteredVersion(
        name="kube-assistant",
        version="1",
        uri=made.uri,
        accepted=True,
        aliases=["champion"],
        adopted=False,
        champion="1",
        previous_champion="",
        lineage=lineage,
        metrics=METRICS,
        parameters=PARAMETERS,
    )
    kept = local_path(made.uri)
    assert registry / "mlartifacts" in kept.parents
    assert sorted(path.name for path in kept.iterdir()) == sorted(path.name for path in folder.iterdir())
    assert (kept / "model.safetensors").samefile(folder / "model.safetensors")
    assert models.champion("kube-assistant") == made.model_copy(update={"previous_champion": "1"})


def test_the_files_outlive_the_folder_they_came_from(registry: Path, model: Make) -> None:
    folder, _ = model(1)
    weights = (folder / "model.safetensors").read_bytes()
    made = put(model, 1, accepted=True)
    shutil.rmtree(folder)
    assert (local_path(made.uri) / "model.safetensors").read_bytes() == weights
    assert models.champion("kube-assistant") is not None


def test_only_an_accepted_version_becomes_champion(registry: Path, model: Make) -> None:
    first = put(model, 1, accepted=False)
    assert (first.accepted, first.champion, first.aliases) == (False, "", [])
    assert models.champion("kube-assistant") is None
    second = put(model, 2, accepted=True)
    assert (second.version, second.champion, second.previous_champion) == ("2", "2", "")
    third = put(model, 3, accepted=False)
    assert (third.version, third.champion, third.previous_champion) == ("3", "2", "2")
    fourth = put(model, 4, accepted=True)
    assert (fourth.champion, fourth.previous_champion) == ("4", "2")
    assert [(v.version, v.accepted, v.aliases) for v in models.versions("kube-assistant")] == [
        ("4", True, ["champion"]),
        ("3", False, []),
        ("2", True, []),
        ("1", False, []),
    ]
    assert models.get("kube-assistant", "3").lineage == model(3)[1]


def test_the_same_content_is_adopted(registry: Path, model: Make) -> None:
    made = put(model, 1, accepted=True)
    folder, lineage = model(1)
    again = models.register(
        "kube-assistant",
        folder,
        lineage.model_copy(update={"run": "another"}),
        {"loss": 9.0},
        {"method": "full"},
        accepted=True,
        compared_with="1",
    )
    assert again.adopted
    assert (again.version, again.uri, again.metrics, again.parameters, again.lineage) == (
        made.version,
        made.uri,
        METRICS,
        PARAMETERS,
        lineage,
    )
    assert len(models.versions("kube-assistant")) == 1
    assert put(model, 1, accepted=True, name="another-name").adopted is False


def test_a_champion_is_not_displaced_by_a_model_that_was_never_compared_with_it(
    registry: Path, model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(model, 1, accepted=True)
    put(model, 2, accepted=True)
    monkeypatch.setenv("GOLDPATH_RUN", "finetune-3")
    for seed, compared_with, shown in ((3, "1", "version 1"), (3, "", "none"), (1, "1", "version 1")):
        with pytest.raises(
            StepError, match=f"version 2 of kube-assistant became champion .* compared with {shown}"
        ) as caught:
            late(model, seed, compared_with)
        assert "`goldpath run --resume finetune-3`" in caught.value.remedy
    assert [(v.version, v.aliases) for v in models.versions("kube-assistant")] == [
        ("2", ["champion"]),
        ("1", []),
    ]
    assert late(model, 3, "2").champion == "3"


def test_what_displaces_nobody_is_registered(registry: Path, model: Make) -> None:
    assert late(model, 1, "").champion == "1"
    again = late(model, 1, "")  # another run with the same content was first
    assert (again.adopted, again.champion) == (True, "1")
    rejected = late(model, 2, "", accepted=False)
    assert (rejected.accepted, rejected.champion) == (False, "1")
    with store.writing() as client:
        client.delete_registered_model_alias("kube-assistant", "champion")
    assert late(model, 3, "1").champion == "3"


@pytest.mark.parametrize(
    ("verdicts", "accepted", "champion"),
    [
        ([False, True], True, "1"),  # a looser gate lets it through
        ([True, False], True, "1"),  # a stricter gate does not end what is being served
        ([False, False], False, ""),
    ],
)
def test_a_later_verdict_on_the_same_content(
    registry: Path, model: Make, verdicts: list[bool], accepted: bool, champion: str
) -> None:
    last = [put(model, 1, verdict) for verdict in verdicts][-1]
    assert (last.accepted, last.champion) == (accepted, champion)


def test_a_former_champion_can_lose_its_standing_and_get_it_back(registry: Path, model: Make) -> None:
    put(model, 1, accepted=True)
    put(model, 2, accepted=True)
    rejected = put(model, 1, accepted=False)
    assert (rejected.version, rejected.accepted, rejected.champion) == ("1", False, "2")
    back = put(model, 1, accepted=True)
    assert (back.accepted, back.champion, back.previous_champion) == (True, "1", "2")


def test_mlflow_sees_a_chat_model_with_a_signature(registry: Path, model: Make) -> None:
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

    put(model, 1, accepted=True)
    uri = f"sqlite:///{registry}/mlflow.db"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version_by_alias("kube-assistant", "champion")
    info = Model.load(str(local_path(version.source)))
    assert info.signature.inputs.input_names()[0] == "messages"
    assert "choices" in info.signature.outputs.input_names()
    assert set(info.flavors) == {"python_function", "transformers"}
    assert version.tags["status"] == "accepted"
    assert version.tags["dataset_digest"] == "d" * 64
    logged = client.get_logged_model(info.model_id)
    assert logged.status.value == "READY"
    assert {metric.key: metric.value for metric in logged.metrics} == METRICS
    assert logged.params == PARAMETERS
    assert client.get_run(version.run_id).info.status == "FINISHED"


def test_mlflow_loads_it_and_it_answers(registry: Path, model: Make) -> None:
    """In a process of its own: it sets MLflow's global address."""
    put(model, 1, accepted=True)
    code = f"""
import mlflow
mlflow.set_tracking_uri("sqlite:///{registry}/mlflow.db")
pipeline = mlflow.transformers.load_model("models:/kube-assistant@champion", device=-1)
told = pipeline([{{"role": "user", "content": "What is a Pod?"}}], max_new_tokens=3)
assert told[0]["generated_text"][-1]["role"] == "assistant", told
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


REGISTER = """
import sys
from pathlib import Path
from goldpath.registry import models
from goldpath.registry.results import Lineage
made = models.register(
    "kube-assistant", Path(sys.argv[1]), Lineage.model_validate_json(sys.argv[2]), {"loss": 1.0}, {}, True, ""
)
print(made.version, made.adopted)
"""


@pytest.mark.e2e
def test_two_registrations_at_once_make_one_version(registry: Path, model: Make) -> None:
    folder, lineage = model(1)
    command = [sys.executable, "-c", REGISTER, str(folder), lineage.model_dump_json()]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(child.communicate()[0] for child in both)
    assert [child.returncode for child in both] == [0, 0]
    assert said == ["1 False\n", "1 True\n"]


def test_a_champion_without_its_files_is_named_with_what_to_do(registry: Path, model: Make) -> None:
    made = put(model, 1, accepted=True)
    (local_path(made.uri) / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"kube-assistant version 1, its champion, .* model\.safetensors"
    ) as raised:
        models.champion("kube-assistant")
    assert "goldpath ui" in raised.value.remedy
    shutil.rmtree(local_path(made.uri).parent)
    with pytest.raises(ModelError, match=r"manifest\.json"):
        models.champion("kube-assistant")


def test_registering_again_puts_lost_files_back(registry: Path, model: Make) -> None:
    made = put(model, 1, accepted=True)
    weights = local_path(made.uri) / "model.safetensors"
    weights.unlink()
    weights.write_bytes(b"short")
    assert late(model, 1, "1").adopted
    assert weights.samefile(model(1)[0] / "model.safetensors")
    assert models.champion("kube-assistant") is not None


def test_registering_again_puts_a_flipped_bit_right(registry: Path, model: Make) -> None:
    made = put(model, 1, accepted=True)
    weights = local_path(made.uri) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.unlink()
    weights.write_bytes(data)
    assert put(model, 1, accepted=True).adopted
    assert weights.samefile(model(1)[0] / "model.safetensors")


def test_a_failed_registration_leaves_nothing(
    registry: Path, model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package, "_write_requirements", fail)
    with pytest.raises(MachineError, match="the disk is full"):
        put(model, 1, accepted=True)
    assert [path for path in (registry / "mlartifacts").rglob("*") if path.is_file()] == []
    assert models.versions("kube-assistant") == []
    monkeypatch.undo()
    monkeypatch.setenv("GOLDPATH_HOME", str(registry))
    made = put(model, 1, accepted=True)
    assert (made.version, made.adopted) == ("1", False)


def test_a_folder_that_is_not_what_the_lineage_says_is_refused(registry: Path, model: Make) -> None:
    folder, lineage = model(1)
    wrong = lineage.model_copy(update={"model_digest": "0" * 64})
    with pytest.raises(ModelError, match="its lineage says 000000000000"):
        models.register("kube-assistant", folder, wrong, {}, {}, accepted=True, compared_with="")
    assert models.versions("kube-assistant") == []


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "pytorch_model.bin",
        ),
        (lambda folder: (folder / "config.json").write_text("{}"), "architectures"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_what_is_no_safe_model_is_refused(
    registry: Path, model: Make, spoil: Callable[[Path], None], says: str
) -> None:
    from goldpath.core.digest import digest_manifest, manifest

    folder, lineage = model(1)
    spoil(folder)
    lineage = lineage.model_copy(update={"model_digest": digest_manifest(manifest(folder))})
    with pytest.raises(ModelError, match=says):
        models.register("kube-assistant", folder, lineage, {}, {}, accepted=True, compared_with="")
    assert models.versions("kube-assistant") == []


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "-a", "a.", "..", "a b", "a'b", "x" * 101, "naïve"])
def test_a_bad_name_is_refused(registry: Path, model: Make, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a model"):
        late(model, 1, "", name=name)
    with pytest.raises(InputError, match="cannot name a model"):
        models.champion(name)


def test_a_name_that_something_else_has_is_refused(registry: Path, model: Make) -> None:
    with store.writing() as client:
        client.create_registered_model("taken")
        client.create_registered_model("pipeline-x", tags={"kind": "pipeline"})
    with pytest.raises(
        InputError, match="taken is taken in the registry by a model that goldpath did not make"
    ):
        late(model, 1, "", name="taken")
    with pytest.raises(InputError, match="by a pipeline"):
        late(model, 1, "", name="pipeline-x")
    assert models.versions("pipeline-x") == []


def test_before_anything_is_registered_there_is_nothing(home: Path) -> None:
    assert models.champion("kube-assistant") is None
    assert models.versions("kube-assistant") == []
    assert not (home / "mlflow.db").exists()
    with pytest.raises(
        InputError, match=r"kube-assistant has no version 3.*Versions of kube-assistant: none"
    ):
        models.get("kube-assistant", "3")


def test_a_deleted_experiment_is_brought_back(registry: Path, model: Make) -> None:
    put(model, 1, accepted=True)
    with store.writing() as client:
        experiment = client.get_experiment_by_name("kube-assistant")
        client.delete_experiment(experiment.experiment_id)
    assert put(model, 2, accepted=True).version == "2"


def test_a_damaged_database_is_named(registry: Path, model: Make) -> None:
    (registry / "mlflow.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 50_000)
    with pytest.raises(MachineError, match=r"mlflow\.db is damaged"):
        late(model, 1, "")
    with pytest.raises(MachineError, match=r"mlflow\.db is damaged"):
        models.champion("kube-assistant")


def test_a_locked_database_is_named(registry: Path, model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "LOCK_TIMEOUT_S", 0.2)
    with closing(sqlite3.connect(registry / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MachineError, match="is locked by another program"):
            late(model, 1, "")
    assert late(model, 1, "").version == "1"


def test_a_registration_that_never_ends_is_named(registry: Path) -> None:
    with store.writing():
        code = (
            "from goldpath.registry import store\n"
            "store.LOCK_TIMEOUT_S = 0.1\n"
            "from goldpath.core.errors import MachineError\n"
            "try:\n"
            "    with store.writing(): pass\n"
            "except MachineError as error: print(error.line())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("another registration has held the registry")


def test_a_server_is_no_embedded_registry(
    registry: Path, model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "BACKOFF_JITTER"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "0")
    with pytest.raises(InputError, match=r"MLFLOW_TRACKING_URI is http://127\.0\.0\.1:9"):
        late(model, 1, "")
    with pytest.raises(MachineError, match=r"cannot reach MLflow at http://127\.0\.0\.1:9"):
        models.champion("kube-assistant")
