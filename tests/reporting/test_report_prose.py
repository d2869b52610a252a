"""Answers and chunks keep their lines, their indentation and their code."""

from __future__ import annotations

from goldpath.reporting.loading import load_run
from goldpath.reporting.prose import prose, ticks
from goldpath.reporting.report import report_html
from tests.reporting import samples

YAML = "Set it:\n\n```yaml\nspec:\n  replicas: 3\n```\n\nThen `apply` it."


def test_a_fence_becomes_a_block_with_its_indentation() -> None:
    assert prose(YAML) == (
        '<p class="lines">Set it:</p>\n'
        '<pre class="fenced"><code>spec:\n  replicas: 3</code></pre>\n'
        '<p class="lines">Then <code>apply</code> it.</p>'
    )


def test_lines_outside_a_fence_stay_lines() -> None:
    assert prose("one\n  two\n\nthree") == '<p class="lines">one\n  two\n\nthree</p>'
    assert prose("  indented first") == '<p class="lines">  indented first</p>'


def test_a_fence_that_was_cut_off_runs_to_the_end() -> None:
    assert prose("```\na: 1\n  b: <2>") == '<pre class="fenced"><code>a: 1\n  b: &lt;2&gt;</code></pre>'


def test_backticks_within_a_line_are_no_fence() -> None:
    assert "<pre" not in prose("write ```x``` here")
    assert prose("") == ""
    assert ticks("`a` & b") == "<code>a</code> &amp; b"


def test_every_answer_and_chunk_of_the_page_keeps_its_lines(tmp_path) -> None:  # type: ignore[no-untyped-def]
    values = samples.without_charts(samples.results())
    values["prepare_data"]["samples"] = [{"question": "q", "answer": YAML.replace("3", "31")}]
    values["evaluate"]["samples"] = [
        {"question": "q", "reference": YAML.replace("3", "32"), "base": "a\n  b33", "tuned": "c\n  d34"}
    ]
    values["probe"]["answers"] = [{"question": "q", "answer": "e\n  f35"}]
    values["probe"]["retrieval_examples"] = [
        {"question": "q", "chunks": YAML.replace("3", "36"), "answer": "g\n  h37"}
    ]
    page = report_html(load_run(samples.write_steps(tmp_path, values), samples.run_record()))
    for part in ("  replicas: 31", "  replicas: 32", "  b33", "  d34", "  f35", "  replicas: 36", "  h37"):
        assert f"\n{part}</" in page, part
