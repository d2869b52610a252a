"""Model versions in Kubeflow's Model Registry, under the rules of `goldpath.registry.models`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from goldpath.core.errors import InputError
from goldpath.registry import place
from goldpath.registry.kubeflow.client import Server, ask
from goldpath.registry.package import Content
from goldpath.registry.results import Lineage, RegisteredVersion
from goldpath.registry.rules import ACCEPTED, REJECTED, overtaken
from goldpath.registry.store import CHAMPION, KIND, MODEL

_STATUS, _LAST, _MLFLOW = "status", "last_verdict", "mlflow_run"
_METRIC, _PARAMETER = "metric.", "parameter."
_DIGITS = 12


def register(
    name: str,
    content: Content,
    lineage: Lineage,
    metrics: Mapping[str, float],
    parameters: Mapping[str, str],
    accepted: bool,
    compared_with: str,
    description: str,
) -> RegisteredVersion:
    """As `goldpath.registry.models.register`, whose checks are done.

    Raises:
        InputError: the name is another's or is archived; the version holds another content; no storage.
        StepError: another version is champion now than the one it was compared with.
        MachineError: the registry, MLflow or the storage is away.
    """
    place.require()
    uri = place.stored(content.folder)
    properties = _properties(lineage, metrics, parameters, content.bytes)
    made: list[str] = []  # over all tries: whether the version is of our making

    def work(server: Server) -> RegisteredVersion:
        model = require_model(server, name, MODEL, "A language model, registered by goldpath.")
        before = _champion(server, model)
        wanted = lineage.model_digest[:_DIGITS]
        version = server.version(model, wanted)
        if version is not None:
            _require_same(name, version, lineage.model_digest)
        if accepted and before not in ("", compared_with, wanted):
            raise overtaken(name, before, compared_with)
        if version is None:
            version = server.add_version(
                model,
                name=wanted,
                description=description or f"{lineage.base_model} tuned on {lineage.dataset}",
                custom_properties=properties | _verdict(accepted, champion=False),
                state=_state(accepted),
            )
            made.append(wanted)
        else:
            standing = _verdict(accepted, champion=before == wanted)
            version = server.update(version, standing, state=_state(standing[_STATUS] == ACCEPTED))
        _hold(server, name, version, uri, lineage)
        version = _track(server, name, version, lineage, metrics, parameters)
        if accepted and before != wanted:
            _crown(server, name, before, wanted, compared_with)
        return _describe(
            server, name, version, champion=wanted if accepted else before, previous=before, adopted=not made
        )

    return ask(work)


def champion(name: str) -> RegisteredVersion | None:
    """As `goldpath.registry.models.champion`."""

    def work(server: Server) -> RegisteredVersion | None:
        model = server.model(name)
        best = _champion(server, model) if model else ""
        return _describe(server, name, server.version(model, best), champion=best) if best else None

    found = ask(work)
    if found is not None:
        place.require_files(found)
    return found


def versions(name: str) -> list[RegisteredVersion]:
    """As `goldpath.registry.models.versions`."""

    def work(server: Server) -> list[RegisteredVersion]:
        model = server.model(name)
        if model is None or (model.custom_properties or {}).get(KIND) != MODEL:
            return []
        best = _champion(server, model)
        ours = [one for one in server.versions(model) if "model_digest" in (one.custom_properties or {})]
        return [_describe(server, name, one, champion=best) for one in ours]

    return ask(work)


def require_model(server: Server, name: str, kind: str, description: str) -> Any:
    """The registered model, made if it is missing.

    Raises:
        InputError: the name is taken by another kind of thing, or was archived.
    """
    found = server.model(name)
    if found is None:
        return server.add_model(name=name, description=description, custom_properties={KIND: kind})
    taken = (found.custom_properties or {}).get(KIND, "model that goldpath did not make")
    if taken != kind:
        raise InputError(f"{name} is taken in the registry by a {taken}", "Choose another name.")
    if found.state.value == "ARCHIVED":
        raise InputError(
            f"{name} was archived in the model registry", "Restore it there, or choose another name."
        )
    return found


def _champion(server: Server, model: Any) -> str:
    """The version that is served: what the model names, as long as nobody archived or rejected it."""
    best = str((model.custom_properties or {}).get(CHAMPION, ""))
    version = server.version(model, best) if best else None
    if version is None or version.state.value != "LIVE":
        return ""
    return best if version.custom_properties.get(_STATUS) == ACCEPTED else ""


def _crown(server: Server, name: str, before: str, wanted: str, compared_with: str) -> None:
    """Move the champion; looked at once more, since the registry has no write under a condition."""
    model = server.model(name)
    now = _champion(server, model)
    if now not in (before, wanted):
        raise overtaken(name, now, compared_with)
    server.update(model, {CHAMPION: wanted})


def _require_same(name: str, version: Any, digest: str) -> None:
    there = (version.custom_properties or {}).get("model_digest", "")
    if there != digest:
        raise InputError(
            f"version {version.name} of {name} is in the model registry with another content "
            f"({there or 'one that goldpath did not make'}; ours is {digest})",
            "Choose another name, or delete that version there.",
        )


def _hold(server: Server, name: str, version: Any, uri: str, lineage: Lineage) -> None:
    """The artifact of a version: made if missing, pointed to our files where its own are gone."""
    there = server.artifact(version)
    if there is None:
        server.add_artifact(
            version,
            "ModelArtifact",
            name=name,
            uri=uri,
            model_format_name="huggingface",  # the format that KServe's runtime of that name takes
            model_format_version="1",
            model_source_kind="kfp",
            model_source_class="pipelinerun",
            model_source_id=lineage.run or None,
            model_source_name=lineage.pipeline or None,
            custom_properties={"model_digest": lineage.model_digest},
        )
    elif there.uri != uri and place.missing(there.uri):
        server.update(there, uri=uri)


def _track(
    server: Server,
    name: str,
    version: Any,
    lineage: Lineage,
    metrics: Mapping[str, float],
    parameters: Mapping[str, str],
) -> Any:
    """Figures of a version in MLflow beside the registry, once, where `MLFLOW_TRACKING_URI` says to which."""
    if not os.environ.get("MLFLOW_TRACKING_URI") or version.custom_properties.get(_MLFLOW):
        return version
    from goldpath.registry.models import record_run

    return server.update(version, {_MLFLOW: record_run(name, lineage, metrics, parameters)})


def _state(accepted: bool) -> Any:
    from mr_openapi import ModelVersionState

    return ModelVersionState.LIVE if accepted else ModelVersionState.ARCHIVED


def _verdict(accepted: bool, *, champion: bool) -> dict[str, str]:
    said = ACCEPTED if accepted else REJECTED
    return {_LAST: said, _STATUS: ACCEPTED if champion else said}


def _properties(
    lineage: Lineage, metrics: Mapping[str, float], parameters: Mapping[str, str], size: int
) -> dict[str, Any]:
    """JSON has no NaN, so a figure that is none is kept as text."""
    figures = {key: float(value) if math.isfinite(value) else str(value) for key, value in metrics.items()}
    return {
        KIND: MODEL,
        "bytes": str(size),
        **{key: str(value) for key, value in lineage.model_dump().items()},
        **{f"{_METRIC}{key}": value for key, value in figures.items()},
        **{f"{_PARAMETER}{key}": str(value) for key, value in parameters.items()},
    }


def _describe(
    server: Server,
    name: str,
    version: Any,
    *,
    champion: str,
    previous: str | None = None,
    adopted: bool = False,
) -> RegisteredVersion:
    held = server.artifact(version)
    kept: dict[str, Any] = version.custom_properties or {}
    return RegisteredVersion(
        name=name,
        version=version.name,
        uri=(held.uri or "") if held else "",
        accepted=kept.get(_STATUS) == ACCEPTED,
        aliases=[CHAMPION] if version.name == champion else [],
        adopted=adopted,
        champion=champion,
        previous_champion=champion if previous is None else previous,
        lineage=Lineage(**{field: str(kept.get(field, "")) for field in Lineage.model_fields}),
        metrics={key: float(value) for key, value in _under(_METRIC, kept).items()},
        parameters={key: str(value) for key, value in _under(_PARAMETER, kept).items()},
    )


def _under(prefix: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in properties.items() if key.startswith(prefix)}
