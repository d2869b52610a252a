"""Component: the endpoint, tried by a real client."""

from typing import Any

from kfp import dsl

from goldpath.components.base import computing


@computing
def probe(
    endpoint: dsl.Input[dsl.Artifact],
    frame: dsl.Input[dsl.Dataset],
    chart: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    result: dsl.Output[dsl.Artifact],
    overrides: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Ask, stream and time the endpoint with the openai client: TTFT cold, repeated and with retrieved context.

    Args:
        endpoint: Endpoint as JSON, from deploy.
        frame: The training frame: its test split gives the question, its online store answers retrieval.
        chart: TTFT as a picture.
        metrics: Figures.
        result: ProbeResult as JSON.
        overrides: {"probe": {...}}: fields of ProbeSpec.
    """
    from pathlib import Path

    from goldpath.core.files import read_json
    from goldpath.core.steps import step
    from goldpath.core.uris import local_path
    from goldpath.feature_repo import store
    from goldpath.feature_repo.frame import questions
    from goldpath.reporting.fragments import ttft_html
    from goldpath.reporting.numbers import times
    from goldpath.serving.probe import probe as run_probe
    from goldpath.serving.results import Endpoint
    from goldpath.serving.specs import ProbeSpec

    with step("probe") as running:
        live = Endpoint.model_validate(read_json(endpoint.path)["result"])
        online = frame.metadata["online_store"]

        def retrieve(query: str, k: int) -> list[str]:
            return [chunk.text for chunk in store.retrieve(query, k, online)]

        asked = questions(local_path(frame.uri) / "test.parquet", 1)
        seen = run_probe(live, ProbeSpec.parse({}, overrides.get("probe"), "probe"), retrieve, asked)
        metrics.log_metric("repeat_speedup", seen.repeat_speedup)
        metrics.log_metric("tokens_per_second", seen.tokens_per_second)
        Path(chart.path).write_text(ttft_html(seen), encoding="utf-8")
        running.done(
            result.path, seen, f"repeated context {times(seen.repeat_speedup)} faster to its first token"
        )
