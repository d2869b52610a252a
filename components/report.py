"""Component: the run's report."""

from kfp import dsl

from goldpath.components.base import component


@component
def report(
    data: dsl.Input[dsl.Artifact],
    features: dsl.Input[dsl.Artifact],
    base: dsl.Input[dsl.Artifact],
    plan: dsl.Input[dsl.Artifact],
    search: dsl.Input[dsl.Artifact],
    training: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    registration: dsl.Input[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    cache: dsl.Input[dsl.Artifact] = None,
    endpoint: dsl.Input[dsl.Artifact] = None,
    probed: dsl.Input[dsl.Artifact] = None,
) -> None:
    """One self-contained page about the run, from the results of its steps.

    Args:
        data: DataCard, from prepare_data.
        features: FeatureResult, from build_features.
        base: BaseModelInfo, from import_model.
        plan: ResourcePlan, from plan_resources.
        search: SearchResult, from tune.
        training: TrainResult, from fine_tune.
        evaluation: EvalResult, from evaluate.
        registration: RegisteredVersion, from register_model.
        page: The report.
        summary: Its headline.
        cache: CachedModel, from warm_cache; none where the gate rejected the model.
        endpoint: Endpoint, from deploy.
        probed: ProbeResult, from probe.
    """
    from pathlib import Path

    from goldpath.core.steps import step
    from goldpath.reporting.run import report_of_run

    with step("report") as running:
        given = {
            "prepare_data": data,
            "build_features": features,
            "import_model": base,
            "plan_resources": plan,
            "tune": search,
            "fine_tune": training,
            "evaluate": evaluation,
            "register_model": registration,
            "warm_cache": cache,
            "deploy": endpoint,
            "probe": probed,
        }
        steps = {name: Path(artifact.path) for name, artifact in given.items() if artifact is not None}
        made = report_of_run(steps, Path(page.path), Path(summary.path))
        running.done(page.path + ".json", made, f"{made.bytes / 1e3:,.0f} kB page")
