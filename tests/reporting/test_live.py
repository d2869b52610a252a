"""A run as it goes, in plain lines."""

from __future__ import annotations

import io

from goldpath.reporting.live import watching


def test_times_are_written_as_in_the_report() -> None:
    out = io.StringIO()
    with watching(out) as watch:
        watch(
            {
                "kind": "step-finished",
                "step": "tune",
                "seconds": 93.64,
                "summary": "3 trials",
                "reused": False,
            }
        )
        watch({"kind": "step-finished", "step": "probe", "seconds": 4.21, "summary": "up", "reused": True})
        watch({"kind": "step-failed", "step": "deploy", "seconds": 125.0})
    assert out.getvalue().splitlines() == [
        "tune:  1 min 34 s  3 trials",
        "probe:       4.2 s  up (reused)",
        "deploy: failed after 2 min 05 s",
    ]
