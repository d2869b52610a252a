"""A small pipeline for tests of the runner: two steps, whose behaviour its parameters choose."""

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

    from goldpath.core.errors import DataError
    from goldpath.core.process import run_child
    from goldpath.core.progress import progress
    from goldpath.core.steps import step

    with step("first") as running, progress("Counting", 3, "rows") as bar:
        bar.advance(3)
        if how == "mistake":
            raise DataError("rows.jsonl line 3 has no answer", "Add one.")
        if how == "bug":
            raise ZeroDivisionError("by nought")
        if how == "long":
            run_child(
                [sys.executable, "-c", "import time; print('sleeping'); time.sleep(600)"],
                what="x",
                on_line=print,
            )
        running.summary = "counted"
    return how


@component
def second() -> str:
    """Independent of the first."""
    from goldpath.core.steps import step

    with step("second"):
        return "done"


@dsl.pipeline(name="small")
def small(how: str = "well"):
    """Two steps."""
    second()
    first(how=how)


def make_run(how: str, name: str = "small-1") -> runs.Run:
    """A run of the small pipeline, compiled, not started."""
    parameters: dict[str, Any] = {"how": how}
    run = runs.create("small", parameters, name)
    file = Path(run.folder) / "pipeline.yaml"
    compiler.Compiler().compile(small, str(file))
    run.pipeline_digest = digest_file(file)
    run.save()
    return run
