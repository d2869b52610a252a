"""Component: the model at hand before it is served."""

from typing import Any

from kfp import dsl

from goldpath.components.base import component


@component
def warm_cache(
    registered: dsl.Input[dsl.Model],
    cached: dsl.Output[dsl.Model],
    result: dsl.Output[dsl.Artifact],
    overrides: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Bring the model into the content-addressed cache; every file is verified, a second warm-up fetches nothing.

    What is not the model that was registered is refused.

    Args:
        registered: The registered version, with its digest and number.
        cached: Folder in the cache (on a cluster: the copies' URI), with digest, bytes and version.
        result: CachedModel as JSON.
        overrides: {"warm_cache": {...}}: fields of CacheSpec.
    """
    from goldpath.core.steps import step
    from goldpath.serving import model_cache
    from goldpath.serving.specs import CacheSpec

    with step("warm_cache") as running:
        asked = CacheSpec.from_form(
            uri=registered.uri, model_digest=registered.metadata["digest"], overrides=overrides
        )
        warmed = model_cache.warm(asked)
        cached.uri = warmed.uri
        cached.metadata.update(
            digest=warmed.digest, bytes=warmed.bytes, version=registered.metadata["version"]
        )
        running.reused = warmed.bytes_fetched == 0
        running.done(result.path, warmed, warmed.said)
