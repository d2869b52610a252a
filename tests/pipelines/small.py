"""A small pipeline for tests of the runner: two independent steps, whose behaviour its parameter chooses."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from goldpath.components.base import component
from goldpath.core.digest import digest_file
from goldpath.pipelines import runs


@component
def first(how: str) -> str:
    """Ends well, fails, or takes long, with a grandchild."""
    import sys
    import time

    from goldpath.core.errors import DataError
    from goldpath.core.process import run_child
    from goldpath.core.progress import progress
    from goldpath.core.steps import step
    from tests.pipelines.behaviour import behave

    with step("first") as running, progress("Counting", 3, "rows") as bar:
        bar.advance(3)
        behave(how)
        if how == "mistake":
            raise DataError("rows.jsonl line 3 has no answer", "Add one.")
        if how == "bug":
            raise ZeroDivisionError("by nought")
        if how in ("long", "ends-slowly"):
            try:
                run_child(
                    [sys.executable, "-c", "import time; print('sleeping'); time.sleep(600)"],
                    what="x",
                    on_line=print,
                )
            finally:
                time.sleep(1.5 if how == "ends-slowly" else 0)
        running.summary = "counted"
    return how


@component
def second(how: str) -> str:
    """Independent of the first."""
    from goldpath.core.steps import step
    from tests.pipelines.behaviour import behave

    with step("second"):
        behave(how)
        return "done"


@dsl.pipeline(name="small")
def small(how: str = "well"):
    """Two steps that kfp.local runs both, whichever fails: it does so where there is control flow."""
    second(how=how)
    first(how=how)
    with dsl.If(how == "never"):
        second(how=how)


def make_run(how: str, name: str = "small-1") -> runs.Run:
    """A run of the small pipeline, compiled, not started."""
    parameters: dict[str, Any] = {"how": how}
    run = runs.create("small", parameters, name)
    file = Path(run.folder) / "pipeline.yaml"
    compiler.Compiler().compile(small, str(file))
    run.pipeline_digest = digest_file(file)
    run.save()
    run.release()  # whoever executes it holds it, here or in another process
    return run
