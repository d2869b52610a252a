"""Component: the endpoint."""

from typing import Any

from kfp import dsl

from goldpath.components.base import component


@component
def deploy(
    cached: dsl.Input[dsl.Model],
    endpoint: dsl.Output[dsl.Artifact],
    name: str = "kube-assistant",
    engine: str = "transformers",
    overrides: dict[str, Any] = {},  # noqa: B006
) -> str:
    """Serve the model behind an OpenAI-compatible endpoint that outlives the run.

    Args:
        cached: The model, from warm_cache.
        endpoint: Endpoint as JSON.
        name: Name of the endpoint, and what clients send as model.
        engine: transformers.
        overrides: {"deploy": {...}}: fields of ServeSpec.

    Returns:
        The base URL of the OpenAI API.
    """
    from goldpath.core.steps import step
    from goldpath.serving import endpoints
    from goldpath.serving.specs import ServeSpec

    with step("deploy") as running:
        asked = ServeSpec.from_form(
            name=name,
            engine=engine,
            model_uri=cached.uri,
            model_digest=str(cached.metadata.get("digest", "")),
            model_version=str(cached.metadata.get("version", "")),
            overrides=overrides,
        )
        live = endpoints.deploy(asked)
        running.reused = live.adopted
        running.done(endpoint.path, live, f"{live.url}, {'already up' if live.adopted else 'up'}")
        return live.url
