"""A finished run."""

import pytest

from goldpath.core.files import write_json
from goldpath.pipelines import launch
from tests.pipelines.small import make_run


@pytest.fixture
def finished(home):
    """A finished run of the small pipeline, with results as the golden path leaves them."""
    run = launch.execute(make_run("well"), lambda event: None)
    results = {
        "evaluate": {
            "passed": True,
            "loss_drop": 0.31,
            "scores": [{"name": "base", "loss": 2.0}, {"name": "tuned", "loss": 1.38}],
        },
        "register_model": {
            "name": "bot",
            "version": "3",
            "accepted": True,
            "champion": "3",
            "uri": "file:///m",
        },
        "deploy": {"name": "bot", "url": "http://127.0.0.1:8123/v1", "model": "bot"},
        "probe": {"repeat_speedup": 21.0, "tokens_per_second": 12.5},
    }
    for step, result in results.items():
        body = {
            "step": step,
            "started": "2026-01-01T00:00:00+00:00",
            "seconds": 1.5,
            "reused": False,
            "result": result,
        }
        write_json(run.folder / "results" / f"{step}.json", body)
    return run
