"""Model versions: registered with their lineage, adopted if known, `champion` only through the gate.

What happens to the same content (name and model digest) registered again:

- its version is adopted: files, lineage, metrics and parameters stay as they were first recorded; lost files are
  put back;
- a later verdict replaces the earlier one, but never a champion's: a stricter gate does not end what is being
  served, only a better model does. The verdict itself is kept in the tag `last_verdict`;
- accepted, it becomes champion, whichever version was it before.

A model takes over only from the champion that it was compared with. Where another became champion meanwhile, nothing
is registered: the run compares anew.

Where it is all kept: MLflow's SQLite file and `mlartifacts/` on this machine; an MLflow server, the files staying
where they are in the storage of the pods; or Kubeflow's Model Registry (`goldpath.registry.kubeflow`), with the same
rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goldpath.core import settings
from goldpath.core.errors import InputError, ModelError
from goldpath.core.uris import local_path
from goldpath.registry import kubeflow, place
from goldpath.registry.package import WEIGHTS, Content, is_whole, missing_files, package, read_content
from goldpath.registry.results import Lineage, RegisteredVersion
from goldpath.registry.rules import ACCEPTED, REJECTED, overtaken
from goldpath.registry.store import (
    CHAMPION,
    MODEL,
    check_name,
    exists,
    reading,
    registered,
    require_kind,
    tagged_versions,
    writing,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_STATUS, _LAST, _URI = "status", "last_verdict", "uri"


def register(
    name: str,
    folder: Path,
    lineage: Lineage,
    metrics: Mapping[str, float],
    parameters: Mapping[str, str],
    accepted: bool,
    compared_with: str,
    description: str = "",
) -> RegisteredVersion:
    """Register a model, or adopt the version that has the same content; an accepted one becomes champion.

    The version is an MLflow model of the flavour `transformers` with the signature of a chat model
    (`mlflow.transformers.load_model("models:/NAME/VERSION")` loads it); its files are hard links to `folder`'s.
    Away from this machine the version points to the folder's place in the storage, and nothing is copied.

    Args:
        name: the registered model.
        folder: safetensors, config and tokenizer.
        lineage: where it comes from; kept as the version's tags.
        metrics: figures of the evaluation.
        parameters: hyperparameters.
        accepted: whether it passed the gate.
        compared_with: version of the champion that the gate compared it with; empty where there was none.
        description: shown on the version's page.

    Raises:
        InputError: the name cannot be used, or is taken by another kind of thing.
        ModelError: the folder is not a model, or is not the one that `lineage` describes.
        StepError: it was accepted, but another version is champion now than the one it was compared with.
        MachineError: the database is damaged or locked; the disk is full or read-only; the server is away.
    """
    check_name(name)
    content = read_content(Path(folder).absolute())
    if content.digest != lineage.model_digest:
        raise ModelError(
            f"{folder} has the digest {content.digest[:12]}, its lineage says {lineage.model_digest[:12]}",
            "It was changed after training: fine-tune again, or register it with the right digest.",
        )
    if kubeflow.address():
        from goldpath.registry.kubeflow import models as elsewhere

        return elsewhere.register(
            name, content, lineage, metrics, parameters, accepted, compared_with, description
        )
    with writing() as client:
        require_kind(client, name, MODEL, "A language model, registered by goldpath.")
        before = _champion_version(client, name)
        version = _same_content(client, name, lineage.model_digest)
        adopted = version is not None
        if accepted and before not in ("", compared_with, str(version.version) if version else ""):
            raise overtaken(name, before, compared_with)
        if version is None:
            version = _create(client, name, content, lineage, metrics, parameters, accepted, description)
        else:
            _adopt(client, name, version, content, accepted, champion=before == str(version.version))
        if accepted:
            client.set_registered_model_alias(name, CHAMPION, version.version)
        return _describe(client, name, version.version, adopted=adopted, previous=before)


def champion(name: str) -> RegisteredVersion | None:
    """The version that is served, None if there is none yet.

    Raises:
        ModelError: its files are gone.
        MachineError: the database is damaged or locked; the server is away.
    """
    check_name(name)
    if kubeflow.address():
        from goldpath.registry.kubeflow import models as elsewhere

        return elsewhere.champion(name)
    if not exists():
        return None
    with reading() as client:
        version = _champion_version(client, name)
        if not version:
            return None
        found = _describe(client, name, version)
    if not place.embedded():
        place.require_files(found)
        return found
    package_folder = local_path(found.uri).parent
    if gone := missing_files(package_folder):
        raise ModelError(
            f"files of {name} version {version}, its champion, are missing or damaged below {package_folder}: "
            f"{', '.join(gone[:3])}",
            "Restore them, or take the alias 'champion' from it on `goldpath ui` and run the pipeline again.",
        )
    return found


def versions(name: str) -> list[RegisteredVersion]:
    """All versions, newest first; empty if nothing has that name."""
    check_name(name)
    if kubeflow.address():
        from goldpath.registry.kubeflow import models as elsewhere

        return elsewhere.versions(name)
    if not exists():
        return []
    with reading() as client:
        found = registered(client, name)
        if found is None or found.tags.get("kind") != MODEL:
            return []
        return [_describe(client, name, version.version) for version in tagged_versions(client, name)]


def get(name: str, version: str) -> RegisteredVersion:
    """One version.

    Raises:
        InputError: there is no such version.
    """
    found = versions(name)
    for one in found:
        if one.version == str(version):
            return one
    known = ", ".join(one.version for one in found) or "none"
    raise InputError(f"{name} has no version {version}", f"Versions of {name}: {known}.")


def _champion_version(client: MlflowClient, name: str) -> str:
    found = registered(client, name)
    return str(found.aliases.get(CHAMPION, "")) if found else ""


def _same_content(client: MlflowClient, name: str, digest: str) -> Any:
    same = [v for v in tagged_versions(client, name) if v.tags.get("model_digest") == digest]
    return same[0] if same else None


def _create(
    client: MlflowClient,
    name: str,
    content: Content,
    lineage: Lineage,
    metrics: Mapping[str, float],
    parameters: Mapping[str, str],
    accepted: bool,
    description: str,
) -> Any:
    """Files first, the version last and in one transaction, so that no version lacks its files or its lineage."""
    tags = {key: str(value) for key, value in lineage.model_dump().items()}
    experiment = _experiment(client, name)
    run = client.create_run(experiment, run_name=f"register {lineage.model_digest[:12]}", tags=tags)
    run_id, model_id, target = run.info.run_id, "", None
    try:
        model = client.create_logged_model(
            experiment, name=name, source_run_id=run_id, tags=tags, params=dict(parameters), model_type="chat"
        )
        model_id = model.model_id
        _log(client, run_id, model_id, metrics, parameters)
        if place.embedded():
            target = local_path(model.artifact_location)
            package(content, target, model_id)
            source, uri = target.as_uri(), (target / WEIGHTS).as_uri()
        else:
            source = uri = place.stored(content.folder)
        client.finalize_logged_model(model_id, "READY")
        client.set_terminated(run_id)
        verdict = ACCEPTED if accepted else REJECTED
        return client.create_model_version(
            name,
            source=source,
            run_id=run_id,
            model_id=model_id,
            tags={
                **tags,
                "kind": MODEL,
                _STATUS: verdict,
                _LAST: verdict,
                "bytes": str(content.bytes),
                _URI: uri,
            },
            description=description or f"{lineage.base_model} tuned on {lineage.dataset}",
        )
    except BaseException:
        _undo(client, run_id, model_id, target)
        raise


def _log(
    client: MlflowClient,
    run_id: str,
    model_id: str,
    metrics: Mapping[str, float],
    parameters: Mapping[str, str],
) -> None:
    import time

    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0, model_id=model_id or None) for key, value in metrics.items()],
        params=[Param(key, str(value)) for key, value in parameters.items()],
    )


def record_run(
    name: str, lineage: Lineage, metrics: Mapping[str, float], parameters: Mapping[str, str]
) -> str:
    """Figures and lineage as a finished run of MLflow's, beside a registry that is not MLflow's; returns its id.

    Raises:
        MachineError: MLflow's server is away; its database is damaged or locked.
    """
    tags = {key: str(value) for key, value in lineage.model_dump().items()}
    with reading() as client:
        run = client.create_run(
            _experiment(client, name), run_name=f"register {lineage.model_digest[:12]}", tags=tags
        )
        _log(client, run.info.run_id, "", metrics, parameters)
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)


def _undo(client: MlflowClient, run_id: str, model_id: str, target: Path | None) -> None:
    """Leave nothing of a registration that failed; what cannot be undone (a broken database) is let be."""
    import shutil
    from contextlib import suppress

    if target is not None:
        shutil.rmtree(target.parent, ignore_errors=True)
    with suppress(Exception):
        if model_id:
            client.delete_logged_model(model_id)
    with suppress(Exception):
        client.delete_run(run_id)


def _adopt(
    client: MlflowClient, name: str, version: Any, content: Content, accepted: bool, *, champion: bool
) -> None:
    verdict = ACCEPTED if accepted else REJECTED
    tags = {_LAST: verdict, _STATUS: ACCEPTED if champion else verdict}
    if not place.embedded():
        if place.missing(version.tags[_URI]):
            tags[_URI] = place.stored(content.folder)
    elif not is_whole(target := local_path(version.source), content):
        package(content, target, version.tags.get("model_id", ""))
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(name, version.version, key, value)


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        here = (settings.state("mlartifacts") / name).as_uri() if place.embedded() else None
        return str(client.create_experiment(name, here))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _describe(
    client: MlflowClient, name: str, version: str, *, adopted: bool = False, previous: str | None = None
) -> RegisteredVersion:
    found = client.get_model_version(name, version)
    now = _champion_version(client, name)
    run = client.get_run(found.run_id).data
    return RegisteredVersion(
        name=name,
        version=str(found.version),
        uri=(local_path(found.source) / WEIGHTS).as_uri() if place.embedded() else found.tags.get(_URI, ""),
        accepted=found.tags.get(_STATUS) == ACCEPTED,
        aliases=list(found.aliases),
        adopted=adopted,
        champion=now,
        previous_champion=now if previous is None else previous,
        lineage=Lineage(**{field: found.tags.get(field, "") for field in Lineage.model_fields}),
        metrics=dict(run.metrics),
        parameters=dict(run.params),
    )
