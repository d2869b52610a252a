"""Holds a manifest against the published typed models before it is created.

The API server checks nothing inside an Experiment's spec: a typo is found only when nothing happens.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from goldpath.core.errors import SpecError

Manifest = dict[str, Any]


def check_experiment(manifest: Manifest) -> None:
    """Refuse an Experiment that Katib's models, or for its trials the Trainer's, don't know.

    Raises:
        SpecError: an unknown field, or a value of the wrong type: which, and where.
    """
    from kubeflow_katib_api import models

    _through(models.V1beta1Experiment, manifest, "Experiment")
    trial = manifest.get("spec", {}).get("trialTemplate", {}).get("trialSpec")
    if isinstance(trial, dict) and trial.get("kind") == "TrainJob":
        check_train_job(trial, "Experiment.spec.trialTemplate.trialSpec")


def check_train_job(manifest: Manifest, where: str = "TrainJob") -> None:
    """Refuse a TrainJob that the Trainer's models don't know.

    Raises:
        SpecError: an unknown field, or a value of the wrong type: which, and where.
    """
    from kubeflow_trainer_api import models

    _through(models.TrainerV1alpha1TrainJob, manifest, where)


def _through(model: Any, manifest: Manifest, where: str) -> None:
    try:
        kept = model.from_dict(manifest).to_dict()
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise SpecError(
            f"{where} is no {model.__name__}: {at}: {first['msg']}, not {first.get('input')!r:.60}",
            "Correct the field; nothing was created.",
        ) from None
    except (TypeError, AttributeError, KeyError, ValueError) as error:  # a list where an object belongs
        raise SpecError(
            f"{where} is not shaped as {model.__name__}: {error}", "Correct it; nothing was created."
        ) from None
    if problem := next(iter(_differences(manifest, kept, where)), ""):
        raise SpecError(problem, "Correct the field; nothing was created.")


def _differences(given: Any, kept: Any, where: str) -> list[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        found = [f"{where} has no field {key}" for key in given if key not in kept]
        for key in given.keys() & kept.keys():
            found += _differences(given[key], kept[key], f"{where}.{key}")
        return sorted(found)
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = enumerate(zip(given, kept, strict=True))
        return [found for at, (a, b) in pairs for found in _differences(a, b, f"{where}[{at}]")]
    return [] if given == kept else [f"{where} is {given!r:.60}; its type makes that {kept!r:.60}"]
