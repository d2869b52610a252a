"""What can be known to be wrong before a run starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from goldpath.core.errors import SpecError
from goldpath.core.spec import fields_for

STEPS = (
    *("prepare_data", "build_features", "plan_resources", "tune", "fine_tune", "evaluate"),
    *("warm_cache", "deploy", "probe"),
)
"""Steps whose specs take overrides."""


def check(pipeline: str, form: Mapping[str, Any]) -> None:
    """Build every spec that the form stands for, and look at the data set, the model, the registry and the port.

    Raises:
        GoldpathError: the first thing that is wrong.
    """
    {"finetune": _finetune}[pipeline](form)


def _finetune(form: Mapping[str, Any]) -> None:
    from goldpath.feature_repo.specs import FeatureSpec
    from goldpath.registry import place
    from goldpath.serving.backends import local
    from goldpath.serving.specs import CacheSpec, ProbeSpec, ServeSpec
    from goldpath.training import base_models, datasets, resources, search
    from goldpath.training.specs import DatasetSpec, EvalSpec, SearchSpec, TrainSpec

    more = sections(form["overrides"])
    seed = form["seed"]
    data = DatasetSpec.from_form(dataset=form["dataset"], seed=seed, overrides=more)
    FeatureSpec.parse({}, more["build_features"], "build_features")
    searched = SearchSpec.from_form(
        max_trials=form["max_trials"], algorithm=form["algorithm"], seed=seed, overrides=more
    )
    train = TrainSpec.from_form(method=form["method"], max_steps=form["max_steps"], seed=seed, overrides=more)
    search.applicable(searched, train)
    asked = resources.PlanSpec.from_form(gpu=form["gpu"], overrides=more)
    gate = {"min_loss_drop": form["min_loss_drop"], "max_pii_leak_rate": form["max_pii_leak_rate"]}
    EvalSpec.from_form(**gate, seed=seed, overrides=more)
    CacheSpec.from_form(uri="file:///", model_digest="", overrides=more)
    serve = ServeSpec.from_form(name=form["name"], engine=form["engine"], model_uri="/", overrides=more)
    ProbeSpec.parse({}, more["probe"], "probe")
    place.require()
    local.check_port(serve)  # runs on this machine deploy here, whatever GOLDPATH_BACKEND says
    base_models.check(form["model"])
    datasets.check(data)
    resources.check(form["model"], train, searched, asked)


def sections(overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The overrides by step, every step present.

    Raises:
        SpecError: a step that there is not, or fields that are no object.
    """
    for step in overrides:
        if step not in STEPS:
            raise SpecError(f"overrides has no step {step!r}", f"Steps: {', '.join(STEPS)}.")
    return {step: fields_for(step, overrides) for step in STEPS}
