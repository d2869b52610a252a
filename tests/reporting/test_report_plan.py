"""The section about memory: what was planned, what was measured, and where it cannot be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from goldpath.reporting import plan
from goldpath.reporting.loading import RunRecord, load_run
from goldpath.reporting.report import build_report
from goldpath.training.results import ResourcePlan
from tests.reporting import samples

GIB = 2**30


def record(folder: Path, planned: dict[str, Any] | None = None, **trained: Any) -> RunRecord:
    values = samples.results()
    values["plan_resources"] |= planned or {}
    values["fine_tune"] |= trained
    return load_run(samples.write_steps(folder, values), samples.run_record())


def rows(run: RunRecord, number: int = 0) -> dict[str, str]:
    return {row[0]: row[1] for row in plan.context(run)["plan_charts"][number].rows}


def test_planned_stands_beside_measured_and_the_room_that_there_is(tmp_path: Path) -> None:
    run = record(tmp_path)
    here, cluster = rows(run), rows(run, 1)
    assert here["Activations"] == f"{1_227_182_080 / GIB:.2f}"
    assert "Gradients" not in here, "a part of nothing is no part of the bar"
    assert here["Planned"] == f"{sum(samples.plan()['here']['components'].values()) / GIB:.2f}"
    assert (here["There is"], here["May be used"]) == ("12.00", "9.00")
    assert here["Measured peak"] == f"{3_412_000_000 / GIB:.2f}"
    assert "Measured peak" not in cluster, "nothing was measured on a cluster"
    told = plan.lede(run)["memory"]
    assert "4 × 256 tokens, LoRA rank 32" in told
    assert "measured at 3.18 GiB, 21% more than planned. On a CPU the heap keeps" in told


@pytest.mark.parametrize(("measured", "says"), [(2_000_000_000, "29% less than planned"), (0, "")])
def test_a_measure_below_the_plan_or_none(tmp_path: Path, measured: int, says: str) -> None:
    run = record(tmp_path, peak_memory_bytes=measured)
    assert says in plan.lede(run)["memory"]
    assert ("measured" in plan.lede(run)["memory"]) is bool(measured)
    assert ("Measured peak" in rows(run)) is bool(measured)


def test_the_peak_of_one_process_is_not_laid_beside_the_plan_of_two(tmp_path: Path) -> None:
    shape = samples.plan()["shape"] | {"parallel_trials": 2}
    assert "Measured peak" not in rows(record(tmp_path, {"shape": shape}))


def test_on_a_gpu_its_own_memory_is_what_was_measured(tmp_path: Path) -> None:
    here = samples.plan()["here"] | {"place": "NVIDIA L4", "has": 22 * GIB, "margin": 0.1}
    run = record(tmp_path, {"gpu": "whole", "here": here}, peak_gpu_bytes=GIB)
    assert rows(run)["Measured peak"] == "1.00"
    assert ("The training got", "gpu=whole") in plan.context(run)["plan_facts"]


def test_a_place_whose_size_is_not_known_has_a_bar_without_a_frame(tmp_path: Path) -> None:
    cluster = samples.plan()["cluster"] | {"place": "whole", "has": 0, "fits": None}
    run = record(tmp_path, {"asked": "whole", "gpu": "whole", "here": None, "cluster": cluster})
    assert "There is" not in rows(run)
    assert "kept free" not in plan.context(run)["plan_charts"][0].svg
    assert any(fact.endswith("whether that fits is not known") for _, fact in plan.context(run)["plan_facts"])
    made = ResourcePlan.model_validate(samples.plan() | {"here": None, "cluster": cluster})
    assert plan.summary(made).endswith("; whether that fits is not known")


def test_cheaper_requests_say_why_they_do_not_do_and_the_nearest_are_kept(tmp_path: Path) -> None:
    small = {f"mig:{n}g.{n}gb": f"lacks {9 - n} GiB" for n in range(1, 9)}
    values = samples.results()
    values["plan_resources"]["cluster"]["too_small"] = small
    steps = samples.write_steps(tmp_path, values)
    page = build_report(steps, tmp_path / "page.html", run=samples.run_record()).read_text(encoding="utf-8")
    section = re.search(r'<section id="memory".*?</section>', page, re.DOTALL)
    assert section
    assert "mig:8g.8gb</dt><dd>lacks 1 GiB" in section[0]
    assert "mig:2g.2gb" not in section[0]


def test_what_could_not_be_planned_or_fits_no_gpu_is_told(tmp_path: Path) -> None:
    unplanned = {"unplanned": "config of x is odd", "here": None, "cluster": None}
    run = record(tmp_path / "one", unplanned)
    assert plan.lede(run) == {}
    assert plan.context(run)["plan_charts"] == []
    assert plan.summary(ResourcePlan.model_validate(samples.plan() | unplanned)).endswith(
        "nothing could be planned"
    )
    nowhere = record(tmp_path / "two", {"cluster": None})
    assert ("On a cluster", "fits on no GPU of the catalogue") in plan.context(nowhere)["plan_facts"]


def test_the_step_says_it_in_one_line_and_as_a_page_of_its_own() -> None:
    made = ResourcePlan.model_validate(samples.plan())
    assert plan.summary(made) == "gpu none, this machine: 2.63 GiB of 12.0 GiB; on a cluster mig:1g.5gb"
    page = plan.plan_html(made)
    assert page.count("<figure") == 2
    assert "Measured" not in page
