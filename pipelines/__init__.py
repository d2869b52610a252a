"""Pipelines, one file each, and what is done with them: compile, run.

From a notebook::

    from goldpath import pipelines

    run = pipelines.run("finetune", dataset="chats.jsonl", max_steps=40)
    run.report  # the page, as a path

    pipelines.compile_pipeline("finetune", "finetune.yaml")  # the same YAML, for the Kubeflow UI or kfp.Client
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from goldpath.pipelines.catalogue import FormField, compile_pipeline, form, load, names
from goldpath.pipelines.runs import Run

__all__ = ["FormField", "Run", "compile_pipeline", "form", "load", "names", "resume", "run"]


def run(
    pipeline: str,
    parameters: Mapping[str, Any] | None = None,
    /,
    *,
    run_name: str | None = None,
    **more: Any,
) -> Run:
    """Run a pipeline on this machine to its end, with progress bars.

    Args:
        pipeline: its name (`names()`).
        parameters: values of its form (`form(pipeline)`); keyword arguments do as well.
        run_name: what to call the run; `<pipeline>-<number>` if not given.
        more: further values of the form.

    Returns:
        The finished run: its `report` (a path) and `result(step)`.

    Raises:
        GoldpathError: what is wrong and what to do about it.
    """
    from goldpath.pipelines import launch
    from goldpath.reporting.live import watching

    prepared = launch.prepare(pipeline, {**(parameters or {}), **more}, run_name)
    with watching() as watch:
        return launch.execute(prepared, watch)


def resume(name: str) -> Run:
    """Go on with a run that failed or was interrupted: finished steps are not redone.

    Raises:
        GoldpathError: what is wrong and what to do about it.
    """
    from goldpath.pipelines import launch
    from goldpath.reporting.live import watching

    with watching() as watch:
        return launch.execute(launch.resume(name), watch)
