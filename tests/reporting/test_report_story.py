"""The verdict, the timeline and the comparison, in words."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from goldpath.reporting import comparison, story
from goldpath.reporting.loading import load_run
from goldpath.reporting.report import report_html
from goldpath.reporting.timeline import timeline
from goldpath.training.results import EvalResult
from tests.reporting import samples


@pytest.mark.parametrize(
    ("changes", "outcome", "headline", "told"),
    [
        ({}, "promoted", "Version 4 is the new champion", "It takes over from version 3."),
        (
            {"previous_champion": ""},
            "promoted",
            "Version 4 is the new champion",
            "Held-out loss fell by 41.2%",
        ),
        (
            {"previous_champion": "4", "adopted": True},
            "promoted",
            "Version 4 remains the champion",
            "The model has the same content as version 4, registered earlier.",
        ),
        ({"champion": "3"}, "kept", "Version 4 passed the gate", "Version 3 stays champion."),
        ({"champion": ""}, "kept", "Version 4 passed the gate", "There is no champion."),
        (
            {"accepted": False, "champion": ""},
            "rejected",
            "Version 4 was rejected by the gate",
            "no champion yet",
        ),
        (
            {"accepted": False, "champion": "3"},
            "rejected",
            "Version 4 was rejected by the gate",
            "Version 3 stays",
        ),
    ],
)
def test_the_verdict(tmp_path: Path, changes: dict[str, Any], outcome: str, headline: str, told: str) -> None:
    values = samples.results()
    values["register_model"] |= changes
    verdict = story.verdict(load_run(samples.write_steps(tmp_path, values), samples.run_record()))
    assert (verdict.outcome, verdict.headline) == (outcome, headline)
    assert told in verdict.told


def test_a_rejection_that_leaves_the_same_model_champion_says_how_both_can_be(tmp_path: Path) -> None:
    values = samples.rejected()
    values["register_model"] = samples.registered() | {"adopted": True, "previous_champion": "4"}
    values["register_model"]["lineage"]["run"] = "finetune-3"
    run = load_run(samples.write_steps(tmp_path, values), samples.run_record())
    verdict = story.verdict(run)
    assert (verdict.outcome, verdict.label) == ("rejected", "Rejected")
    assert verdict.headline == "The gate rejected this run’s model"
    assert verdict.told.startswith("Held-out loss fell by 5.1%")
    assert verdict.told.endswith(
        "The model has the same content as version 4, registered earlier by finetune-3. "
        "Version 4 was accepted then, and stays champion: a later run takes nothing back."
    )
    page = report_html(run)
    assert "remains the champion" not in page
    assert "champion; registered by an earlier run; rejected by the gate of this run" in page
    assert "An endpoint of the champion, version 4, is as it was." in page


@pytest.mark.parametrize(
    ("champion", "accepted", "told"),
    [
        ("4", True, "champion"),
        ("5", True, "accepted; version 5 is champion"),
        ("4", False, "champion as before; this run's gate rejected the same model"),
        ("3", False, "rejected by the gate, not served; version 3 is champion"),
    ],
)
def test_what_became_of_a_version_is_said_in_a_line(champion: str, accepted: bool, told: str) -> None:
    assert story.standing("4", champion, accepted=accepted) == told


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("goldpath run finetune -n first --json", "goldpath run finetune --json"),
        ("goldpath run finetune --name first", "goldpath run finetune"),
        ("goldpath run -nfirst finetune --name=second", "goldpath run finetune"),
        ("goldpath run finetune -p name=bot -n a", "goldpath run finetune -p name=bot"),
        (
            "goldpath run finetune -p -n -p 'dataset=my chats.csv'",
            "goldpath run finetune -p -n -p 'dataset=my chats.csv'",
        ),
        ("goldpath run 'finetune", "goldpath run 'finetune"),
        ("", ""),
    ],
)
def test_the_command_to_repeat_a_run_leaves_the_taken_name_out(typed: str, shown: str) -> None:
    assert story.repeated_command(typed) == shown


def test_the_page_shows_the_command_without_the_name(tmp_path: Path) -> None:
    run = load_run({}, samples.run_record(command="goldpath run finetune -n finetune-7", parameters={}))
    page = report_html(run)
    assert ">goldpath run finetune</code>" in page
    assert "Every parameter has its default" in page


def test_a_loss_that_rose_is_not_called_a_fall(tmp_path: Path) -> None:
    values = samples.results()
    values["evaluate"]["loss_drop"] = -0.2
    run = load_run(samples.write_steps(tmp_path, values), samples.run_record())
    assert "Held-out loss rose by 20.0%" in story.verdict(run).told
    assert story.figures(run, timeline(run))[0].label == "higher held-out loss"


def test_an_error_after_registration_says_what_stands(tmp_path: Path) -> None:
    values = {name: value for name, value in samples.results().items() if name not in ("deploy", "probe")}
    error = {"message": "port 8411 is taken", "remedy": "Choose another.", "step": "deploy"}
    told = story.verdict(load_run(samples.write_steps(tmp_path, values), samples.run_record(error=error)))
    assert told.headline == "The run stopped at “Deploy”"
    assert told.told == "Version 4 of kube-assistant was registered before that."


def test_an_error_after_the_last_step_names_no_step(tmp_path: Path) -> None:
    error = {"message": "the disk is full"}
    run = load_run(samples.write_steps(tmp_path, samples.results()), samples.run_record(error=error))
    assert story.verdict(run).headline == "The run stopped"


def test_bars_lie_where_the_steps_ran(tmp_path: Path) -> None:
    run = load_run(samples.write_steps(tmp_path, samples.results()), samples.run_record())
    line = timeline(run)
    rows = {row.step: row for row in line.rows}
    assert line.elapsed == pytest.approx(349.6)
    assert rows["tune"].left == pytest.approx(100 * 54 / 349.6, abs=0.01)
    assert rows["tune"].width == pytest.approx(100 * 86 / 349.6, abs=0.01)
    assert rows["probe"].left + rows["probe"].width == pytest.approx(100, abs=0.01)
    assert rows["prepare_data"].state == "reused"
    assert line.reused == ["Prepare data", "Import base model"]
    assert [label for _, label in line.ticks] == ["0", "1 min", "2 min", "3 min", "4 min", "5 min"]


def test_a_pause_before_a_resume_does_not_count(tmp_path: Path) -> None:
    steps = samples.write_steps(tmp_path, samples.results())
    for name in ("evaluate", "register_model", "warm_cache", "deploy", "probe"):
        envelope = json.loads(steps[name].read_text())
        offset, _ = samples.SECONDS[name]
        envelope["started"] = (samples.BEGAN + timedelta(hours=30, seconds=offset)).isoformat()
        steps[name].write_text(json.dumps(envelope))
    run = load_run(steps, samples.run_record())
    line = timeline(run)
    assert line.elapsed == pytest.approx(349.6, abs=2)
    assert line.paused == pytest.approx(30 * 3600, abs=2)
    assert "stood still for 30 h 00 min" in story.ledes(run, line)["steps"]


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (0.0, []),
        (3.0, ["0", "1 s", "2 s", "3 s"]),
        (170.0, ["0", "30 s", "1 min", "1:30 min", "2 min", "2:30 min"]),
        (20_000.0, ["0", "1 h", "2 h", "3 h", "4 h", "5 h"]),
    ],
)
def test_ticks_are_round_moments(tmp_path: Path, seconds: float, ticks: list[str]) -> None:
    steps = samples.write_steps(tmp_path, {"probe": samples.probe()})
    envelope = json.loads(steps["probe"].read_text()) | {"seconds": seconds}
    steps["probe"].write_text(json.dumps(envelope))
    assert [label for _, label in timeline(load_run(steps, samples.run_record(started=""))).ticks] == ticks


def test_a_step_of_another_pipeline_is_shown_with_its_time(tmp_path: Path) -> None:
    steps = samples.write_steps(tmp_path, {"prepare_data": samples.data_card(), "sign_model": {"any": 1}})
    rows = {row.step: row for row in timeline(load_run(steps, samples.run_record())).rows}
    assert (rows["sign_model"].title, rows["sign_model"].told) == ("Sign model", "1.0 s")


def test_a_step_without_a_start_or_a_time_is_still_a_row(tmp_path: Path) -> None:
    steps = samples.write_steps(tmp_path, {"prepare_data": samples.data_card()})
    steps["prepare_data"].write_text(json.dumps({"result": samples.data_card(), "seconds": None}))
    line = timeline(load_run(steps, samples.run_record(started="yesterday")))
    assert line.rows[0].state == "done"
    assert line.ticks == []


def test_metrics_are_read_in_their_direction() -> None:
    rows = {row.label: row for row in comparison.metric_rows(EvalResult.model_validate(samples.evaluation()))}
    assert (rows["Held-out loss"].change, rows["Held-out loss"].better) == ("−41.2%", True)
    assert (rows["Token accuracy"].change, rows["Token accuracy"].better) == ("+19.4 pp", True)
    assert (rows["PII leak rate"].change, rows["PII leak rate"].better) == ("same", None)
    assert rows["Held-out loss"].values == {"base": "3.142", "tuned": "1.848", "champion": "1.931"}


def test_a_worse_metric_is_marked_and_a_base_of_zero_does_not_divide() -> None:
    values = samples.evaluation()
    values["scores"][0] |= {"overlap": 0.0, "pii_leak_rate": 0.0}
    values["scores"][1] |= {"overlap": 0.5, "pii_leak_rate": 0.25}
    rows = {row.label: row for row in comparison.metric_rows(EvalResult.model_validate(values))}
    assert (rows["PII leak rate"].change, rows["PII leak rate"].better) == ("+25.0 pp", False)
    assert rows["Answer overlap"].change == "+0.500"


def test_models_beyond_the_known_three_are_listed_last() -> None:
    values = samples.evaluation()
    values["scores"].insert(0, samples.scores("challenger", 1.5, 0.7, 0.4))
    judged = EvalResult.model_validate(values)
    assert comparison.models(judged) == ["base", "tuned", "champion", "challenger"]
    assert comparison.loss_bars(judged)[0] == ("Base", "3.142", 100.0, "base")
    assert comparison.loss_bars(judged)[3][3] == "base"


@pytest.mark.parametrize(
    ("check", "state"),
    [
        ({"name": "min_refusal_rate", "value": 0.5, "threshold": 0.0, "passed": True}, "not required"),
        ({"name": "min_refusal_rate", "value": 0.5, "threshold": 0.4, "passed": True}, "passed"),
        ({"name": "min_refusal_rate", "value": math.nan, "threshold": 0.0, "passed": False}, "failed"),
        ({"name": "max_pii_leak_rate", "value": 0.5, "threshold": 1.0, "passed": True}, "not required"),
        ({"name": "max_pii_leak_rate", "value": 0.0, "threshold": 0.0, "passed": True}, "passed"),
        ({"name": "min_champion_gain", "value": 0.0, "threshold": 0.0, "passed": True}, "passed"),
        (
            {"name": "min_speed", "value": 5, "threshold": 1, "passed": True, "required": False},
            "not required",
        ),
    ],
)
def test_a_check_that_cannot_fail_is_not_called_passed(check: dict[str, Any], state: str) -> None:
    judged = EvalResult.model_validate(samples.evaluation() | {"checks": [check]})
    assert [row.state for row in comparison.check_rows(judged)] == [state]


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (
            {"name": "max_pii_leak_rate", "value": 0.031, "threshold": 0.02},
            "PII leak rate: 3.1%; at most 2.0% is asked.",
        ),
        (
            {"name": "min_loss_drop", "value": 0.2, "threshold": 0.125, "text": "Loss fell."},
            "Loss fell.",
        ),
        (
            {"name": "min_champion_gain", "value": None, "threshold": None},
            "Gain on the champion: not measured.",
        ),
        ({"name": "min_speed", "value": 12.5, "threshold": 10}, "Min speed: 12.5; at least 10 is asked."),
    ],
)
def test_a_check_says_what_was_measured_and_asked(check: dict[str, Any], told: str) -> None:
    judged = EvalResult.model_validate(samples.evaluation() | {"checks": [check | {"passed": True}]})
    assert comparison.check_rows(judged)[0].told == told


@pytest.mark.parametrize(
    ("reused", "note"), [(False, "12 steps, none reused"), (True, "11 of 12 steps reused")]
)
def test_the_time_says_what_was_reused(tmp_path: Path, reused: bool, note: str) -> None:
    steps = samples.write_steps(tmp_path, samples.results())
    for path in steps.values():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"reused": reused}))
    run = load_run(steps, samples.run_record())
    assert story.figures(run, timeline(run))[-1].note == note


def test_the_page_counts_its_own_step_and_says_up_to_when_its_time_goes(tmp_path: Path) -> None:
    values = samples.results()
    writing = load_run(samples.write_steps(tmp_path / "writing", values), samples.run_record())
    line = timeline(writing)
    assert (line.steps, line.rows[-1].state, line.rows[-1].told) == (12, "writing", "this page")
    assert story.ledes(writing, line)["steps"].startswith("12 steps, 5 min 50 s until this page.")
    assert story.figures(writing, line)[-1].label == "until this page"
    values["report"] = {"path": "x", "bytes": 1}
    whole = samples.run_record(ended=samples.END.isoformat())
    ended = load_run(samples.write_steps(tmp_path / "ended", values), whole)
    line = timeline(ended)
    assert (line.steps, line.rows[-1].told, line.elapsed) == (12, "0.8 s", 352)
    assert story.ledes(ended, line)["steps"].startswith("12 steps in 5 min 52 s.")
    assert story.figures(ended, line)[-1].label == "in all"


def test_a_pipeline_without_a_report_is_not_said_to_write_one(tmp_path: Path) -> None:
    whole = samples.run_record(ended=samples.END.isoformat())
    run = load_run(samples.write_steps(tmp_path, samples.results()), whole)
    assert "report" not in {row.step for row in timeline(run).rows}


def test_steps_stand_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    run = load_run(samples.write_steps(tmp_path, samples.failed()), samples.run_record(**samples.FAILED_RUN))
    rows = timeline(run).rows
    assert [row.step for row in rows[:7]] == [
        *("prepare_data", "import_model", "build_features", "plan_resources", "tune", "fine_tune"),
        "evaluate",  # not reached: in the order of the pipeline
    ]
    failed = rows[5]
    assert (failed.state, failed.told) == ("failed", "failed after 1 min 12 s")
    assert failed.left == pytest.approx(100 * 141 / 214, abs=0.01)
    assert failed.width == pytest.approx(100 * 72.4 / 214, abs=0.01)


def test_results_of_an_earlier_try_do_not_shorten_the_time(tmp_path: Path) -> None:
    later = samples.BEGAN + timedelta(hours=2)
    record = samples.run_record(
        started=later.isoformat(), ended=(later + timedelta(seconds=3)).isoformat(), status="cancelled"
    )
    run = load_run(samples.write_steps(tmp_path, samples.failed()), record)
    assert timeline(run).elapsed == pytest.approx(140, abs=1)
