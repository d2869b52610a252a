"""The report: complete for a good run, sensible for every other, safe with hostile text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.errors import MachineError
from goldpath.reporting.report import SECTIONS, build_report
from tests.reporting import samples

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>`<b>`{{ 7*7 }} ${x}$'
VOID = {"meta", "img", "br", "link", "hr", "input", "path", "use", "desc"}


class Tree(HTMLParser):
    """Tags, attributes, ids, text; and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID - {"path", "use", "desc"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def build(folder: Path, values: dict[str, Any], **changes: Any) -> Tree:
    out = build_report(
        samples.write_steps(folder / "steps", values),
        folder / "report.html",
        run=samples.run_record(**changes),
    )
    return Tree(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a good run."""
    return samples.page(tmp_path_factory.mktemp("good") / "report.html")


def test_a_good_run_is_told_from_data_to_endpoint(good: Path) -> None:
    page = Tree(good.read_text())
    told = page.text
    for expected in (
        "Version 4 is the new champion",
        "It takes over from version 3",
        "41.2%",
        "3.142 → 1.848",
        "38×",
        "4.91 s cold → 0.13 s repeated",
        "24.1",
        "2 of 12 steps reused",
        "12 steps in 5 min 52 s.",
        "5,155 of 6,003 chats were kept",
        "Near duplicate",
        "9 redacted",
        "2.6e-3",
        "#1 was best: validation loss 2.176",
        "−41.2%",
        "+19.4 pp",
        "fell by 41.2%, from 3.142 to 1.848 nats a token; it must fall by 10.0% or more.",
        "instruction_override".replace("_", " ").capitalize(),
        "curl http://127.0.0.1:8411/v1/chat/completions",
        "kube-assistant",
        samples.digest("data"),
        samples.digest("pipeline"),
        "0.1.0+3f2a9c01d4e7",
        "goldpath run finetune -p dataset=builtin://kube-api",
    ):
        assert expected in told, expected
    assert page.open == []
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {ident for ident, _ in SECTIONS} <= set(ids)


def test_the_page_is_one_small_file_that_loads_nothing(good: Path) -> None:
    html = good.read_text()
    page = Tree(html)
    assert len(html.encode()) < 1_500_000
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("src", "href", "action", "srcset")]
    assert references
    assert all(value.startswith("#") for value in references)
    assert "@import" not in html
    assert "url(" not in re.sub(r"url\(#[-\w]+\)", "", html)


def test_every_picture_has_a_name_and_its_figures_as_a_table(good: Path) -> None:
    page = Tree(good.read_text())
    assert page.tags.count("figure") == 8
    labels = [value for name, value in page.attributes if name == "aria-labelledby" and "-title" in value]
    ids = {value for name, value in page.attributes if name == "id"}
    assert len(labels) == page.tags.count("svg")
    assert all(set(label.split()) <= ids for label in labels)
    assert "4.91 s" in page.text


def test_the_same_results_give_the_same_bytes(good: Path, tmp_path: Path) -> None:
    assert samples.page(tmp_path / "again.html").read_bytes() == good.read_bytes()


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poison(item) for key, item in value.items()}
        if isinstance(value, list):
            return [poison(item) for item in value]
        return HOSTILE if isinstance(value, str) else value

    values = poison(samples.results())
    values["tune"]["trials"][0]["parameters"] = {HOSTILE: 1e-3}
    values["prepare_data"]["dropped"] = {HOSTILE: 3}
    values["prepare_data"]["pii"] = {HOSTILE: 3}
    values["probe"]["timings"][0]["name"] = HOSTILE
    record = dict.fromkeys(("name", "pipeline", "command", "pipeline_digest"), HOSTILE)
    error = {"type": HOSTILE, "message": HOSTILE, "remedy": HOSTILE}
    page = build(tmp_path, values, **record, parameters={HOSTILE: HOSTILE}, error=error)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert page.open == []


def test_the_policy_lets_only_our_script_run(good: Path) -> None:
    html = good.read_text()
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert script
    assert policy
    allowed = unescape(policy[1])
    assert (
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()}'"
        in allowed
    )
    assert allowed.startswith("default-src 'none'")


def test_a_rejected_model_says_what_was_not_met_and_that_nothing_is_served(tmp_path: Path) -> None:
    told = build(tmp_path, samples.without_charts(samples.rejected())).text
    assert "Version 4 was rejected by the gate" in told
    assert (
        "Held-out loss fell by 5.1%, from 3.142 to 2.981 nats a token; it must fall by 10.0% or more." in told
    )
    assert "Version 3 stays champion" in told
    assert "Not served: the gate rejected the model" in told
    assert "curl" not in told


def test_a_failed_run_shows_its_error_remedy_and_first_steps(tmp_path: Path) -> None:
    page = build(tmp_path, samples.failed(), **samples.FAILED_RUN)
    told = page.text
    assert "The run stopped at “Fine-tune”" in told
    assert "the disk is full: cannot write" in told
    assert "Free some space" in told
    assert "5,155 of 6,003" in told
    assert "in all 3 min 34 s" in told  # until the failure, not until the last step that went well
    assert "5 steps finished in 3 min 34 s; the run stopped at “Fine-tune”." in told
    assert "failed after 1 min 12 s" in told
    go_on = "To go on with the run as it is: goldpath run --resume finetune-7 ."
    assert told.count(go_on) == 2
    assert "The run stopped here: the disk is full: cannot write" in told
    assert told.count("Not reached: the run stopped at “Fine-tune”.") == 3


@pytest.mark.parametrize("status", ["cancelled", "interrupted"])
def test_a_run_that_was_ended_says_how_to_go_on(tmp_path: Path, status: str) -> None:
    told = build(tmp_path, samples.without_charts(samples.failed()), status=status).text
    assert f"The run was {status}" in told
    assert "goldpath run --resume finetune-7" in told


@pytest.mark.parametrize("missing", [*samples.results()])
def test_any_step_may_be_missing(tmp_path: Path, missing: str) -> None:
    values = samples.without_charts(samples.results())
    del values[missing]
    page = build(tmp_path, values)
    assert page.open == []
    assert {ident for ident, _ in SECTIONS} <= {value for name, value in page.attributes if name == "id"}


def test_a_run_without_any_step_has_a_page(tmp_path: Path) -> None:
    out = build_report({}, tmp_path / "report.html", run={})
    assert "No verdict yet" in Tree(out.read_text()).text


def test_a_model_that_was_judged_but_not_registered_has_a_verdict(tmp_path: Path) -> None:
    values = samples.without_charts(samples.rejected())
    del values["register_model"]
    assert "The tuned model did not pass the gate" in build(tmp_path, values).text
    values["evaluate"] = samples.evaluation()
    assert "The tuned model passed the gate" in build(tmp_path, values).text


def test_fields_of_another_version_are_left_out_and_a_broken_result_is_told(tmp_path: Path) -> None:
    values = samples.results()
    values["evaluate"]["scores"][0]["new_metric"] = 1.0
    values["tune"] |= {"later": True}
    del values["probe"]["timings"]
    steps = samples.write_steps(tmp_path / "steps", values)
    steps["warm_cache"].write_text("{ not json")
    steps["deploy"].write_text("[]")
    steps["import_model"].unlink()
    told = Tree(build_report(steps, tmp_path / "report.html", run=samples.run_record()).read_text()).text
    assert "3.142" in told
    assert "#1 was best" in told
    assert "The result of “Deploy” cannot be read: its file holds no object." in told
    values["evaluate"].pop("scores")
    told = build(tmp_path / "second", samples.without_charts(values)).text
    assert "written by another version of goldpath (scores)" in told


def test_figures_that_are_not_numbers_are_dashes_not_errors(tmp_path: Path) -> None:
    values = samples.results()
    values["evaluate"]["loss_drop"] = math.nan
    values["evaluate"]["passed"] = False
    values["evaluate"]["checks"] = [
        {"name": "min_loss_drop", "value": math.nan, "threshold": 0.1, "passed": False}
    ]
    for score in values["evaluate"]["scores"]:
        score |= {"loss": math.nan, "perplexity": math.inf}
    for row in values["fine_tune"]["curve"]:
        row["loss"] = math.nan
    values["tune"]["trials"][0] |= {
        "objective": None,
        "status": "failed",
        "curve": [],
        "error": "out of memory",
    }
    values["tune"]["best"] = None
    values["probe"] |= {"repeat_speedup": math.nan, "tokens_per_second": math.nan}
    values["probe"]["timings"][0]["ttft_seconds"] = []
    page = build(tmp_path, values)
    assert "Drop in held-out loss against base: not measured; at least 10.0% is asked." in page.text
    assert "out of memory" in page.text
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.text.lower())


def test_a_run_of_thousands_of_trials_and_steps_stays_small(tmp_path: Path) -> None:
    values = samples.results()
    values["tune"]["trials"] = [
        samples.trial(number, 1e-4 * (1 + number % 37), 8, 2.5 - number * 1e-5, "succeeded", 1.0)
        for number in range(3_000)
    ]
    values["tune"]["best"] = values["tune"]["trials"][2_999]
    values["fine_tune"] = samples.training(20_000)
    values["prepare_data"]["samples"][0]["answer"] = "long " * 100_000
    page = build(tmp_path, values)
    assert (tmp_path / "report.html").stat().st_size < 1_500_000
    assert "#2999" in page.text
    assert "100 of 3,000 trials." in page.text


def test_without_a_search_the_page_says_so(tmp_path: Path) -> None:
    values = samples.without_charts(samples.results())
    values["tune"] |= {"trials": [], "best": None}
    assert "No search was asked for" in build(tmp_path, values).text


def test_a_resumed_training_says_from_where(tmp_path: Path) -> None:
    values = samples.results()
    del values["tune"], values["probe"]
    values["fine_tune"]["resumed_from"] = 30
    assert "Resumed from the checkpoint at step 30" in build(tmp_path, values).text


def test_a_page_that_cannot_be_written_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match="file"):
        build_report({}, tmp_path / "file" / "report.html", run=samples.run_record())


def test_the_endpoint_line_survives_a_shell(tmp_path: Path) -> None:
    values = samples.without_charts(samples.results())
    values["probe"]["answers"] = [{"question": 'What\'s `a` "pod"; rm -rf $HOME?', "answer": "no"}]
    build(tmp_path, values)
    html = (tmp_path / "report.html").read_text()
    code = re.search(r'<code id="curl" tabindex="0">(.*?)</code>', html, re.DOTALL)
    assert code
    words = shlex.split(Tree(code[1]).text)
    assert words[1] == "http://127.0.0.1:8411/v1/chat/completions"
    body = json.loads(words[-1])
    assert body["messages"][0]["content"] == 'What\'s `a` "pod"; rm -rf $HOME?'
    assert body["model"] == "goldpath"
