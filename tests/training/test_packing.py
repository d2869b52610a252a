"""From chats to sequences: what is scored, what attends to what, in which order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from goldpath.core.errors import DataError, ModelError, SpecError
from goldpath.training import packing
from goldpath.training.frames import shuffled_chats
from goldpath.training.modeling import AnswerHead, load_tokenizer
from goldpath.training.packing import IGNORED, Chat
from tests.models import chats, make_frame, write_rows


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return load_tokenizer(model)


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    return make_frame(tmp_path / "frame")


def scored(chat: Chat, tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in chat.labels if label != IGNORED]))


def test_only_the_answer_and_its_end_are_scored(tokenizer: Any) -> None:
    row = chats(1)[0]
    (chat,) = packing.encode([row["messages"]], tokenizer, 512, answer_only=True)
    assert scored(chat, tokenizer) == f"{row['answer']}<|im_end|>"
    assert tokenizer.decode(chat.ids) == tokenizer.apply_chat_template(row["messages"], tokenize=False)


def test_every_turn_of_the_assistant_is_scored(tokenizer: Any) -> None:
    said = [
        ("system", "Be brief."),
        ("user", "one?"),
        ("assistant", "first"),
        ("user", "two?"),
        ("assistant", "second"),
    ]
    messages = [{"role": role, "content": content} for role, content in said]
    (chat,) = packing.encode([messages], tokenizer, 512, answer_only=True)
    assert scored(chat, tokenizer) == "first<|im_end|>second<|im_end|>"


def test_all_tokens_but_the_first_are_scored_on_request(tokenizer: Any) -> None:
    (chat,) = packing.encode([chats(1)[0]["messages"]], tokenizer, 512, answer_only=False)
    assert chat.labels == [IGNORED, *chat.ids[1:]]


def test_a_template_that_rewrites_the_prompt_still_marks_the_answer(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: (thinks)' }}{% endif %}"
    )
    (chat,) = packing.encode([chats(1)[0]["messages"]], tokenizer, 512, answer_only=True)
    # The prompt's last space and the answer's first word are one token.
    assert scored(chat, tokenizer).lstrip() == f"{chats(1)[0]['answer']}<|im_end|>"


def test_a_chat_is_cut_at_the_limit_and_dropped_where_no_answer_is_left(tokenizer: Any) -> None:
    messages = [row["messages"] for row in chats(3)]
    whole = packing.encode(messages, tokenizer, 512, answer_only=True)
    cut = packing.encode(messages, tokenizer, 40, answer_only=True)
    assert [chat.ids for chat in cut] == [chat.ids[:40] for chat in whole]
    assert packing.encode(messages, tokenizer, 8, answer_only=True) == []
    assert packing.encode([], tokenizer, 8, answer_only=True) == []


def test_packing_keeps_whole_chats_and_fills_sequences(tokenizer: Any) -> None:
    made = packing.encode([row["messages"] for row in chats(40)], tokenizer, 256, answer_only=True)
    packed = packing.pack(made, 256)
    assert len(packed) < len(made) / 3
    assert all(sum(item.lengths) == len(item.ids) == len(item.labels) <= 256 for item in packed)
    parts = sorted(ids for item in packed for ids in split(item.ids, item.lengths))
    assert parts == sorted(chat.ids for chat in made)


def split(ids: list[int], lengths: list[int]) -> list[list[int]]:
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [ids[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def test_chats_in_one_sequence_do_not_see_each_other(model: Path, tokenizer: Any) -> None:
    """The loss over a packed batch is the sum over its chats, each alone."""
    network = AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa").eval()
    head = AnswerHead(network)
    made = packing.encode([row["messages"] for row in chats(7)], tokenizer, 256, answer_only=True)
    collate = packing.collator(tokenizer.pad_token_id)
    together = collate(packing.pack(made, 256))
    assert together["input_ids"].shape[0] < 4
    with torch.inference_mode():
        packed = head.sums(network, together)
        alone = [head.sums(network, collate([packing.Packed(c.ids, c.labels, [len(c.ids)])])) for c in made]
    assert packed.tokens == sum(one.tokens for one in alone)
    assert packed.correct == sum(one.correct for one in alone)
    assert float(packed.nll) == pytest.approx(sum(float(one.nll) for one in alone), rel=1e-5)


def test_the_answer_head_agrees_with_the_models_own_loss(model: Path, tokenizer: Any) -> None:
    network = AutoModelForCausalLM.from_pretrained(model).eval()
    (chat,) = packing.encode([chats(1)[0]["messages"]], tokenizer, 256, answer_only=True)
    with torch.inference_mode():
        wanted = network(input_ids=torch.tensor([chat.ids]), labels=torch.tensor([chat.labels])).loss
        batch = packing.collator(0, multiple=64)([packing.Packed(chat.ids, chat.labels, [len(chat.ids)])])
        found = AnswerHead(network).sums(network, batch)
        assert network(input_ids=torch.tensor([chat.ids])).logits.shape == (1, len(chat.ids), 512)
    assert float(found.nll) / found.tokens == pytest.approx(float(wanted), rel=1e-5)


def test_the_order_comes_from_the_seed_alone(frame: Path, tokenizer: Any) -> None:
    def take(count: int, seed: int, packed: bool = True) -> list[packing.Packed]:
        return list(
            packing.training_sequences(
                frame / "train.parquet",
                tokenizer,
                count=count,
                length=128,
                packing=packed,
                answer_only=True,
                seed=seed,
            )
        )

    assert take(12, 1) == take(12, 1)
    assert take(12, 1) != take(12, 2)
    assert all(item.lengths == [len(item.ids)] for item in take(12, 1, packed=False))


def test_data_comes_again_in_another_order_when_it_is_used_up(frame: Path, tokenizer: Any) -> None:
    many = list(
        packing.training_sequences(
            frame / "train.parquet", tokenizer, count=150, length=128, packing=False, answer_only=True, seed=1
        )
    )
    first, second = ([tuple(item.ids) for item in part] for part in (many[:60], many[60:120]))
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("packed", [True, False])
def test_the_pool_is_shuffled_again_and_again_by_one_generator(
    frame: Path, tokenizer: Any, packed: bool
) -> None:
    """The rule, written out: a checkpoint is resumed in the middle of this order, so it must not move."""
    file = frame / "train.parquet"
    found = packing.training_sequences(
        file, tokenizer, count=150, length=128, packing=packed, answer_only=True, seed=5
    )
    order = random.Random(5)
    (read,) = shuffled_chats(file, order)
    made = packing.encode(read, tokenizer, 128, answer_only=True)
    pool = (
        packing.pack(made, 128) if packed else [packing.Packed(c.ids, c.labels, [len(c.ids)]) for c in made]
    )
    wanted: list[packing.Packed] = []
    while len(wanted) < 150:
        order.shuffle(pool)
        wanted += pool
    assert list(found) == wanted[:150]
    assert len(found) == 150
    assert found.tokens(7, 90) == sum(len(one.ids) for one in wanted[7:90])
    assert len({id(one) for one in found}) == len(pool)  # what comes again is no copy


def test_validation_takes_the_first_rows(frame: Path, tokenizer: Any) -> None:
    found = packing.validation_sequences(
        frame / "validation.parquet", tokenizer, rows=5, length=128, packing=False, answer_only=True
    )
    wanted = packing.encode(
        [row["messages"] for row in chats(5, "validation")], tokenizer, 128, answer_only=True
    )
    assert [item.ids for item in found] == [chat.ids for chat in wanted]


def spoil(kind: str, file: Path) -> None:
    if kind == "missing":
        file.unlink()
    elif kind == "not Parquet":
        file.write_text("id,question\n")
    elif kind == "no column":
        pq.write_table(pa.table({"id": ["1"]}), file)
    elif kind == "empty":
        write_rows(file, [])
    else:
        rows = chats(6)
        rows[4]["messages"] = rows[4]["messages"][:1]  # type: ignore[index]
        write_rows(file, rows)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "does not exist"),
        ("not Parquet", "not a readable Parquet file"),
        ("no column", "no column `messages`"),
        ("empty", "has no rows"),
        ("no answer", r"row 5 of .* has no assistant message"),
    ],
)
def test_a_bad_frame_is_named(frame: Path, tokenizer: Any, kind: str, said: str) -> None:
    spoil(kind, frame / "train.parquet")
    with pytest.raises(DataError, match=said):
        packing.training_sequences(
            frame / "train.parquet", tokenizer, count=4, length=128, packing=True, answer_only=True, seed=1
        )


def test_a_length_that_cuts_off_every_answer_is_refused(frame: Path, tokenizer: Any) -> None:
    with pytest.raises(SpecError, match="sequence_length 8 leaves no answer"):
        packing.training_sequences(
            frame / "train.parquet", tokenizer, count=4, length=8, packing=True, answer_only=True, seed=1
        )


@pytest.mark.parametrize(
    ("missing", "said"), [("chat_template", "no chat template"), ("is_fast", "no fast tokenizer")]
)
def test_a_tokenizer_that_cannot_mark_answers_is_refused(missing: str, said: str) -> None:
    class Spare:
        chat_template: str | None = "x"
        is_fast = True

    setattr(Spare, missing, None)
    with pytest.raises(ModelError, match=said):
        packing.require_template(Spare(), "here")
