"""Charts as inline SVG, and the pieces for KFP's viewer."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from goldpath.reporting import charts, fragments, latency, svg
from goldpath.serving.results import ProbeResult
from goldpath.training.results import EvalResult, SearchResult, TrainResult
from tests.reporting import samples

SEARCH = SearchResult.model_validate(samples.search())
TRAINING = TrainResult.model_validate(samples.training())
JUDGED = EvalResult.model_validate(samples.evaluation())
PROBE = ProbeResult.model_validate(samples.probe())


def pictures(markup: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", markup, re.DOTALL)]


@pytest.mark.parametrize(
    ("page", "figures", "told"),
    [
        (fragments.trials_html(SEARCH), 2, "2.176"),
        (fragments.curves_html(TRAINING), 3, "Tokens per second"),
        (fragments.comparison_html(JUDGED), 0, "passed"),
        (fragments.ttft_html(PROBE), 1, "4.91 s"),
    ],
)
def test_a_fragment_is_a_page_of_its_own(page: str, figures: int, told: str) -> None:
    assert page.count("<figure") == figures
    assert told in page
    assert "<style>" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#)', page)


def test_fragments_of_nothing_say_so() -> None:
    nothing = SearchResult.model_validate(samples.search() | {"trials": [], "best": None})
    assert "No search was asked for" in fragments.trials_html(nothing)
    assert "Nothing was measured" in fragments.curves_html(TRAINING.model_copy(update={"curve": []}))
    assert "Nothing was measured" in fragments.ttft_html(PROBE.model_copy(update={"timings": []}))


def test_a_chart_follows_the_page_in_colour_and_font() -> None:
    chart = charts.loss_chart(TRAINING)
    assert chart
    painted = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", chart.svg))
    assert {"var(--tuned)", "var(--champion)", "var(--muted)", "var(--rule)"} <= painted
    assert not {colour for colour in painted if colour.startswith("#")}
    assert "font-family" not in chart.svg
    assert "<metadata" not in chart.svg
    assert "<style" not in chart.svg


def test_each_chart_is_drawn_for_wide_and_for_narrow_screens() -> None:
    chart = latency.ttft_chart(PROBE)
    assert chart
    wide, narrow = pictures(chart.svg)
    assert (wide.get("class"), narrow.get("class")) == ("chart wide", "chart narrow")
    assert float(wide.get("width", 0)) > 2 * float(narrow.get("width", 0))
    sizes = [float(size) for size in re.findall(r"(?:font: (?:bold )?|font-size: )([\d.]+)px", chart.svg)]
    assert min(sizes) >= 12


def test_one_picture_serves_both_where_the_sizes_are_equal() -> None:
    def dot(figure: Any, narrow: bool) -> None:
        figure.add_subplot().plot(1, 1, "o")

    drawn = svg.picture("one", "One", "A dot.", dot, (200, 100), (200, 100))
    (only,) = pictures(drawn)
    assert only.get("class") == "chart "


def test_text_in_a_chart_is_escaped_and_never_mathematics() -> None:
    hostile = "</svg><script>$\\frac{a}{b}$"
    timings = [PROBE.timings[0].model_copy(update={"name": hostile})]
    chart = latency.ttft_chart(PROBE.model_copy(update={"timings": timings}))
    assert chart
    assert "<script" not in chart.svg
    wide, _ = pictures(chart.svg)
    assert "frac{a}{b}$" in "".join(wide.itertext())


def test_a_search_without_numbers_is_drawn_by_trial() -> None:
    trials = [
        trial.model_copy(update={"parameters": {"schedule": name}})
        for trial, name in zip(SEARCH.trials, ("linear", "cosine", "constant"), strict=True)
    ]
    chart = charts.trials_chart(SEARCH.model_copy(update={"trials": trials}))
    assert chart
    assert chart.columns[1] == "Number"
    assert [row[1] for row in chart.rows] == ["0", "1", "2"]


def test_trials_without_a_figure_are_not_drawn() -> None:
    trials = [trial.model_copy(update={"objective": None, "curve": []}) for trial in SEARCH.trials]
    none = SEARCH.model_copy(update={"trials": trials, "best": None})
    assert charts.trials_chart(none) is None
    assert charts.trial_curves_chart(none) is None


def test_labels_keep_their_order_and_their_distance() -> None:
    placed = svg.spread([1.0, 1.01, 0.99, 5.0], 0.5)
    assert placed[2] < placed[0] < placed[1] < placed[3]
    ordered = sorted(placed)
    assert all(high - low >= 0.499 for low, high in itertools.pairwise(ordered))
    assert svg.spread([], 1.0) == []


def test_thinning_keeps_both_ends() -> None:
    kept = svg.thin(list(range(10_000)), 300)
    assert len(kept) == 300
    assert (kept[0], kept[-1]) == (0, 9_999)
    assert svg.thin([1, 2], 300) == [1, 2]


def test_the_summary_is_markdown_that_hostile_names_cannot_break(tmp_path: Path) -> None:
    values = samples.results()
    values["register_model"]["version"] = "4 | <b>*x*"
    told = fragments.summary_markdown(samples.write_steps(tmp_path, values), samples.run_record())
    assert told.startswith("# Version 4 \\| &lt;b&gt;\\*x\\* ")
    assert "| **41.2%** | lower held-out loss | 3.142 → 1.848 nats a token |" in told
    assert "| Prepare data | 0.4 s | reused |" in told
    assert "| 0.0% of the generated answers held personal data; 2.0% or less is allowed. | passed |" in told
    assert "no share is required (min\\_refusal\\_rate is 0). | not required |" in told


def test_the_summary_of_a_failed_run_has_its_error(tmp_path: Path) -> None:
    told = fragments.summary_markdown(
        samples.write_steps(tmp_path, samples.failed()), samples.run_record(error=samples.FAILED)
    )
    assert "**the disk is full: cannot write" in told
    assert "| Fine-tune | – | stopped here |" in told
    assert "To go on with the run as it is: \\`goldpath run --resume finetune-7\\`" in told


def test_the_time_to_first_token_is_read_without_guessing() -> None:
    chart = latency.ttft_chart(PROBE)
    assert chart
    for picture in pictures(chart.svg):
        texts = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
        texts = texts or ["".join(text.itertext()) for text in picture.iter("text")]
        assert {"median", "one measurement", "Median", "4.91 s", "0.13 s"} <= set(texts)
        assert "Seconds to the first token, linear" in texts
    assert chart.rows[0] == ("Cold context", "2,041", "4.91 s", "4.86 s, 4.91 s, 5.17 s")


def test_a_single_measurement_needs_no_ring() -> None:
    timings = [
        timing.model_copy(update={"ttft_seconds": timing.ttft_seconds[:1]}) for timing in PROBE.timings
    ]
    chart = latency.ttft_chart(PROBE.model_copy(update={"timings": timings}))
    assert chart
    assert "one measurement</text>" not in chart.svg


def test_trials_without_curves_have_the_line_for_themselves() -> None:
    short = [trial.model_copy(update={"curve": trial.curve[-1:]}) for trial in SEARCH.trials]
    both, alone = (
        charts.trials_chart(SEARCH),
        charts.trials_chart(SEARCH.model_copy(update={"trials": short})),
    )
    assert both
    assert alone
    assert (both.half, alone.half) == (True, False)
    assert charts.trial_curves_chart(SEARCH.model_copy(update={"trials": short})) is None
