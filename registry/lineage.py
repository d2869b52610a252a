"""Where a model comes from, put together from the run that made it."""

from __future__ import annotations

from goldpath.core import settings
from goldpath.core.digest import code_version, digest_file
from goldpath.registry.results import Lineage


def lineage_of_run(
    *, dataset: str, dataset_digest: str, base_model: str, base_model_digest: str, model_digest: str
) -> Lineage:
    """The lineage of a model made by the present run; registers the compiled pipeline that it runs."""
    from goldpath.registry.pipelines import pipeline_name, register_pipeline

    compiled = settings.compiled_pipeline()
    name = pipeline_name(compiled) if compiled else ""
    return Lineage(
        run=settings.run_id(),
        dataset=dataset,
        dataset_digest=dataset_digest,
        base_model=base_model,
        base_model_digest=base_model_digest,
        model_digest=model_digest,
        code_version=code_version(),
        pipeline=name,
        pipeline_digest=digest_file(compiled) if compiled else "",
        pipeline_version=register_pipeline(compiled, name) if compiled else "",
    )
