"""What is dropped, replaced and kept apart."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from goldpath.core.errors import DataError
from goldpath.core.reuse import Reused
from goldpath.training.datasets import card_markdown, prepare
from goldpath.training.datasets.dedupe import Sketcher
from goldpath.training.datasets.pii import find, redact
from goldpath.training.datasets.text import ngrams, normalise, words
from goldpath.training.results import DataCard
from goldpath.training.specs import DatasetSpec

from .rows import pair, pairs, sentence, write_jsonl


def run(tmp_path: Path, rows: list[dict[str, Any]], **spec: Any) -> tuple[DataCard, list[dict[str, Any]]]:
    done: Reused[DataCard] = prepare(
        DatasetSpec(source=str(write_jsonl(tmp_path / "data.jsonl", rows)), **spec)
    )
    found: list[dict[str, Any]] = pq.read_table(done.path / "documents.parquet").to_pylist()
    assert done.result.rows_in == len(rows)
    assert done.result.rows_out == len(found) == len(rows) - sum(done.result.dropped.values())
    return done.result, found


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("Cafe\u0301", "Café"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00b\u200bc\ufeff\u202ed", "abcd"),
        ("  a  b \t\n\n\n\n c\u00a0d ", "a  b\n\n c d"),
        ("bad \ud800 half", "bad \ufffd half"),
        ("def f():\n    return 1\n", "def f():\n    return 1"),
    ],
)
def test_normal_form(given: str, wanted: str) -> None:
    assert normalise(given) == wanted
    assert unicodedata.is_normalized("NFC", normalise(given))


def test_words_of_scripts_without_spaces_are_counted() -> None:
    assert words("Hello, wörld_1") == ["Hello", "wörld_1"]
    assert len(words("机器学习模型")) == 6
    assert len(words("K8s の設定")) == 4


def test_ngrams_are_runs_of_words_whatever_their_case_and_punctuation() -> None:
    assert len(ngrams("a b c d e", 3)) == 3
    assert set(ngrams("A, b. C d e", 3)) == set(ngrams("a b c d e", 3))
    assert not set(ngrams("a b c", 3)) & set(ngrams("c b a", 3))
    assert len(ngrams("a b", 3)) == 1
    assert len(ngrams("...", 3)) == 0
    assert len(ngrams("a b a b a b", 2)) == 2


def test_the_sketch_estimates_the_jaccard_similarity() -> None:
    sketcher = Sketcher(0.8)
    universe = np.random.default_rng(0).integers(0, 2**63, 400, dtype=np.uint64)
    left, right = universe[:300], universe[100:]
    true = 200 / 400
    alike = float(np.mean(sketcher.sketch(left) == sketcher.sketch(right)))
    assert abs(alike - true) < 4 * (true * (1 - true) / 128) ** 0.5
    assert sketcher.bands(sketcher.sketch(left)) == sketcher.bands(sketcher.sketch(left[::-1]))
    assert len(set(sketcher.bands(sketcher.sketch(left)))) > 5


PERSONAL = [
    ("Write to jane.doe@example.com now.", "Write to <EMAIL_ADDRESS> now."),
    ("Ask bob@corp.internal, please.", "Ask <EMAIL_ADDRESS>, please."),
    ("Call +1 (212) 555-0187 today.", "Call <PHONE_NUMBER> today."),
    ("My mobile is 2125550187.", "My mobile is <PHONE_NUMBER>."),
    ("Card 4111 1111 1111 1111 was charged.", "Card <CREDIT_CARD> was charged."),
    ("IBAN DE89370400440532013000.", "IBAN <IBAN_CODE>."),
    ("From 203.0.113.7 and 10.1.2.3.", "From <IP_ADDRESS> and <IP_ADDRESS>."),
    ("Over 2001:db8::7 it went.", "Over <IP_ADDRESS> it went."),
    ("SSN 536-22-1234.", "SSN <US_SSN>."),
    ("To 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ.", "To <CRYPTO>."),
]
IMPERSONAL = [
    "Listens on 0.0.0.0 and 127.0.0.1, and ::1, not on 169.254.169.254.",
    "The range 10.0.0.0/8 and 2001:db8::/64.",
    "Started at 1700000000, at most 2147483647.",
    "See https://example.com/a?b=1 and `spec.template.spec.containers[].image`.",
    "nginx@sha256 with port 8080 in v1.2.3, 2026-01-31 12:00:00.",
    "Card 4111 1111 1111 1112 has a wrong check digit; so has DE89370400440532013001.",
    "No digits here.",
]


@pytest.mark.parametrize(("text", "wanted"), PERSONAL)
def test_personal_data_is_replaced_by_its_kind(text: str, wanted: str) -> None:
    found, counts = redact(text)
    assert found == wanted
    assert counts.total() == wanted.count("<")
    assert redact(found) == (found, {})


@pytest.mark.parametrize("text", IMPERSONAL[:5] + IMPERSONAL[6:])
def test_what_identifies_nobody_stays(text: str) -> None:
    assert find(text) == []


def test_numbers_with_a_wrong_check_digit_are_no_cards_or_accounts() -> None:
    kinds = {finding.kind for finding in find(IMPERSONAL[5])}
    assert not kinds & {"CREDIT_CARD", "IBAN_CODE"}


def test_redaction_covers_every_turn_and_can_be_switched_off(home: Path, tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": f"You help eve@example.org. {sentence(1)}"},
        {"role": "user", "content": f"I am adam@example.org. {sentence(2)}"},
        {"role": "assistant", "content": f"Call 212-555-0187, or {sentence(3)}"},
    ]
    rows = [{"messages": turns}, *pairs(20)]
    card, found = run(tmp_path, rows)
    assert card.pii == {"EMAIL_ADDRESS": 2, "PHONE_NUMBER": 1}
    said = " ".join(message["content"] for row in found for message in row["messages"])
    assert "@" not in said
    assert "<PHONE_NUMBER>" in said
    card, found = run(tmp_path, rows, redact_pii=False)
    assert card.pii == {}
    assert found[0]["messages"] == turns


def test_length_filters(home: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": sentence(1), "completion": "too short"},
        {"prompt": sentence(2, 30), "completion": sentence(3, 30)},
        {"prompt": sentence(4), "completion": "机器学习"},
        *pairs(20),
    ]
    card, found = run(tmp_path, rows, max_words=50)
    assert card.dropped == {"too_long": 1, "too_short": 1}
    assert found[0]["answer"] == "机器学习"
    assert card.words["max"] <= 50
    with pytest.raises(DataError, match=r"no row of .* is left after cleaning \(too_short 23\)"):
        run(tmp_path, rows, min_answer_words=31)


def test_exact_duplicates_differ_in_case_and_space_at_most(home: Path, tmp_path: Path) -> None:
    first = pair(0)
    rows = [*pairs(20), {"prompt": f"  {first['prompt'].upper()}", "completion": first["completion"]}, first]
    card, found = run(tmp_path, rows)
    assert card.dropped == {"exact_duplicate": 2}
    assert len({row["id"] for row in found}) == 20


def nearly(text: str, changes: int) -> str:
    changed = text.split()
    for index in range(changes):
        changed[7 + 20 * index] = "changed"
    return " ".join(changed)


def test_near_duplicates_go_and_alike_rows_stay(home: Path, tmp_path: Path) -> None:
    # Of about 105 runs of three words each changed word changes three: J = (105 - 3n) / (105 + 3n).
    long = {"prompt": sentence("q", 6), "completion": sentence("long", 100)}
    near = {**long, "completion": nearly(long["completion"], 1)}  # J = 0.94
    alike = {**long, "completion": nearly(long["completion"], 5)}  # J = 0.75
    rows = [*pairs(20), long, near, alike]
    card, found = run(tmp_path, rows, near_duplicate_threshold=0.9, test_fraction=0.01)
    assert card.dropped.get("near_duplicate") == 1
    assert near["completion"] not in {row["answer"] for row in found}
    card, found = run(tmp_path, [*pairs(20), long, near], near_duplicate_threshold=1, seed=3)
    assert "near_duplicate" not in card.dropped


def test_a_system_prompt_that_all_share_makes_nothing_alike(home: Path, tmp_path: Path) -> None:
    rows = [{"system": sentence("shared", 200), **pair(number)} for number in range(60)]
    card, _ = run(tmp_path, rows)
    assert card.dropped == {}


def test_versions_of_a_row_are_all_kept_and_stay_together(home: Path, tmp_path: Path) -> None:
    rows = pairs(20)
    first = pair(100, id="policy")
    rows += [
        {**first, "timestamp": "2026-01-01"},
        {**first, "completion": first["completion"] + " now", "timestamp": "2026-02-01"},
        {**first, "timestamp": "2026-03-01"},  # back to the first wording
        {**first, "timestamp": "2026-03-01"},  # and once more: the same row twice
        {**first, "id": "copy"},
    ]
    card, found = run(tmp_path, rows, near_duplicate_threshold=0.8)
    assert card.dropped == {"exact_duplicate": 2}
    versions = [row for row in found if row["id"] == "policy"]
    assert [row["event_timestamp"].month for row in versions] == [1, 2, 3]
    assert {(row["group"], row["split"]) for row in versions} == {("policy", versions[0]["split"])}


def test_an_id_that_means_two_rows_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"line 2: the id '7' was there before with the same timestamp \(data.jsonl, line 1\)"
    ):
        run(tmp_path, [pair(1, id=7), pair(2, id=7)])  # fmt: skip
    with pytest.raises(DataError, match=r"line 2: the id '7' is in another group at data.jsonl, line 1"):
        run(tmp_path, [pair(1, id=7, group="a"), pair(2, id=7, group="b", timestamp=5)])


def test_groups_stay_whole_and_keep_their_split_when_rows_are_added(home: Path, tmp_path: Path) -> None:
    rows = [pair(number, group=f"g{number % 60}") for number in range(300)]
    card, found = run(tmp_path, rows, validation_fraction=0.2, test_fraction=0.2)
    split_of = {row["group"]: row["split"] for row in found}
    assert all(split_of[row["group"]] == row["split"] for row in found)
    assert sum(card.groups.values()) == 60
    assert card.splits == {split: 5 * card.groups[split] for split in ("train", "validation", "test")}
    assert 4 <= card.groups["test"] <= 20
    more = [*rows, *(pair(number, group=f"g{number}") for number in range(300, 360))]
    _, found = run(tmp_path, more, validation_fraction=0.2, test_fraction=0.2)
    assert all(split_of.get(row["group"], row["split"]) == row["split"] for row in found)
    _, found = run(tmp_path, rows, validation_fraction=0.2, test_fraction=0.2, seed=8)
    assert {row["group"]: row["split"] for row in found} != split_of


@pytest.mark.parametrize("count", [3, 4, 5, 12])
def test_a_small_data_set_gets_all_three_splits(home: Path, tmp_path: Path, count: int) -> None:
    for seed in range(4):
        for fraction in (0.01, 0.4):
            card, _ = run(
                tmp_path, pairs(count), seed=seed, validation_fraction=fraction, test_fraction=fraction
            )
            assert all(card.splits.values())
            assert all(card.groups.values())


def test_too_few_groups_for_three_splits(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 group\(s\) of rows are left after cleaning and 3 are needed"):
        run(tmp_path, [pair(number, group=str(number % 2)) for number in range(30)])


def test_training_rows_that_say_what_a_test_row_says_are_dropped(home: Path, tmp_path: Path) -> None:
    _, plain = run(tmp_path, pairs(200))
    held = [row for row in plain if row["split"] == "test"]
    copied = [
        {"prompt": sentence(("other", n), 30), "completion": f"{row['answer']} {sentence(('tail', n), 5)}"}
        for n, row in enumerate(held)
    ]
    shared = [
        {
            "prompt": sentence(("third", n), 30),
            "completion": f"{sentence('greeting', 13)} {sentence(('own', n), 40)}",
        }
        for n in range(40)
    ]
    card, found = run(tmp_path, [*pairs(200), *copied, *shared])
    tests = {row["answer"] for row in found if row["split"] == "test"}
    trained = {row["answer"] for row in found if row["split"] != "test"}
    assert 0 < card.dropped["contaminated"] <= len(copied)
    assert len(copied) - card.dropped["contaminated"] == sum(row["completion"] in tests for row in copied)
    assert not trained & {row["completion"] for row in copied}
    # A phrase that many share is no contamination.
    assert sum(row["completion"] in trained | tests for row in shared) == 40


def test_data_that_repeats_itself_across_groups_is_refused(home: Path, tmp_path: Path) -> None:
    body = sentence("body", 60)
    rows = [{"prompt": sentence(n, 40), "completion": f"{body} {sentence(n, 4)}"} for n in range(30)]
    with pytest.raises(DataError, match=r"no row is left for train and validation \(contaminated \d+\)"):
        run(tmp_path, rows)


def test_the_same_content_is_prepared_once_and_other_settings_again(home: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", pairs(30))
    first = prepare(DatasetSpec(source=str(path)))
    assert not first.reused
    assert prepare(DatasetSpec(source=f"file://{path}")).reused
    assert not prepare(DatasetSpec(source=str(path), seed=8)).reused
    write_jsonl(path, pairs(31))
    changed = prepare(DatasetSpec(source=str(path)))
    assert not changed.reused
    assert changed.result.digest != first.result.digest


def test_at_most_max_rows_are_read(home: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", pairs(30))
    path.write_text(path.read_text() + "{broken\n")
    assert prepare(DatasetSpec(source=str(path), max_rows=30)).result.rows_in == 30


def test_the_parquet_file_is_written_in_row_groups(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goldpath.training.datasets import writer

    monkeypatch.setattr(writer, "_GROUP_ROWS", 10)
    done = prepare(DatasetSpec(source=str(write_jsonl(tmp_path / "data.jsonl", pairs(35)))))
    file = pq.ParquetFile(done.path / "documents.parquet")
    assert file.schema_arrow.equals(writer.schema())
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [
        10,
        10,
        10,
        5,
    ]


def test_the_card_tells_the_whole_story(home: Path, tmp_path: Path) -> None:
    rows = [*pairs(20), pair(0), pair(21, system="Mail to a.b@example.com")]
    rows[5]["completion"] += "\n~~~~\n| a | *b* |"
    card, found = run(tmp_path, rows)
    lengths = sorted(sum(len(words(message["content"])) for message in row["messages"]) for row in found)
    assert card.words == {
        "p50": lengths[len(lengths) // 2 - 1 + len(lengths) % 2],
        "p95": lengths[-(-95 * len(lengths) // 100) - 1],
        "max": lengths[-1],
    }
    page = card_markdown(card)
    assert "**Rows** 22 in, 1 dropped, 21 out" in page
    assert "| exact duplicate | 1 |" in page
    assert "| `EMAIL_ADDRESS` | 1 |" in page
    assert f"| train | {card.splits['train']} | {card.groups['train']} |" in page
    assert card.digest in page
    assert len(card.samples) == 6
    for sample in card.samples:
        assert sample["answer"] in page
        assert {"question", "answer", "source", "split"} == set(sample)
    empty = card_markdown(card.model_copy(update={"dropped": {}, "pii": {}, "samples": []}))
    assert "## Dropped" not in empty
    assert "## Personal data" not in empty


def test_a_sample_cannot_break_out_of_the_card(home: Path) -> None:
    card = DataCard(
        source="x", rows_in=1, dropped={}, rows_out=1, splits={}, groups={}, pii={}, words={}, digest="d",
        samples=[{"question": "<b>*?*", "answer": "a\n~~~~\n# Not a heading", "source": "s\nt"}],
    )  # fmt: skip
    page = card_markdown(card)
    assert "**&lt;b>\\*?\\***" in page
    assert "~~~~~text\na\n~~~~\n# Not a heading\n~~~~~" in page


def test_progress_counts_each_row_once_a_pass(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", pairs(40))
    journal = tmp_path / "events.jsonl"
    monkeypatch.setenv("GOLDPATH_EVENTS", str(journal))
    prepare(DatasetSpec(source=str(path)))
    seen = [json.loads(line) for line in journal.read_text().splitlines()]
    ended = {event["label"]: (event["done"], event["total"]) for event in seen if event.get("final")}
    assert ended["Learning the test split"] == ended["Writing rows"] == (40, 40)
