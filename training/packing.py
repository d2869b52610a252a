"""From chats to token sequences: answers marked, several chats packed into one sequence, in a fixed order.

The order of sequences is laid out for the whole training before it starts, from the seed alone. A resumed training
takes up the same order where it stopped, so it sees exactly what it would have seen.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldpath.core.errors import ModelError, SpecError
from goldpath.training.frames import read_chats, shuffled_chats

IGNORED = -100
"""Label of a token that is not scored (PyTorch's `ignore_index`)."""


@dataclass(frozen=True)
class Chat:
    """One chat as tokens."""

    ids: list[int]
    labels: list[int]
    """The token itself where it is scored, else IGNORED."""


@dataclass(frozen=True)
class Packed:
    """One training sequence: one or several chats, one after another."""

    ids: list[int]
    labels: list[int]
    lengths: list[int]
    """Tokens of each chat in it."""


def encode(
    chats: Sequence[list[dict[str, str]]], tokenizer: Any, limit: int, answer_only: bool
) -> list[Chat]:
    """Tokenize chats with the model's template and mark what is scored: the assistant's words and its end of turn.

    The marks come from where the rendered prompt ends, so they work with any chat template.

    Args:
        chats: messages of each chat, `{"role", "content"}`.
        tokenizer: a fast tokenizer with a chat template.
        limit: tokens kept of a chat.
        answer_only: False scores every token but a chat's first.

    Returns:
        The chats that still have a scored token, in order.
    """
    texts, spans = [], []
    for messages in chats:
        text, answers = _render(messages, tokenizer)
        texts.append(text)
        spans.append(answers)
    if not texts:
        return []
    tokens = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    made = []
    for ids, offsets, answers in zip(tokens["input_ids"], tokens["offset_mapping"], spans, strict=True):
        if answer_only:
            labels = [
                token if any(first < end <= last for first, last in answers) else IGNORED
                for token, (_, end) in zip(ids[:limit], offsets, strict=False)
            ]
        else:
            labels = [IGNORED, *ids[1:limit]]
        if any(label != IGNORED for label in labels):
            made.append(Chat(ids[:limit], labels))
    return made


def _render(messages: list[dict[str, str]], tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """The chat as text, and where (first, last character) the assistant speaks in it."""

    def render(part: list[dict[str, str]], ask: bool) -> str:
        return str(tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=ask))

    text = render(messages, ask=False)
    answers = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            said = text if i == len(messages) - 1 else render(messages[: i + 1], ask=False)
            # The line break that a template sets after the end-of-turn token is never generated: not scored.
            answers.append((_common(render(messages[:i], ask=True), text), len(said.rstrip())))
    return text, answers


def _common(left: str, right: str) -> int:
    if right.startswith(left):
        return len(left)
    return next(i for i, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1])


def pack(chats: Sequence[Chat], length: int) -> list[Packed]:
    """Fill sequences of up to `length` tokens with whole chats (best fit decreasing, https://arxiv.org/abs/2404.10830)."""
    from datasets import Dataset
    from trl import pack_dataset

    rows = {"input_ids": [chat.ids for chat in chats], "labels": [chat.labels for chat in chats]}
    packed = pack_dataset(Dataset.from_dict(rows), length, "bfd")
    return [Packed(row["input_ids"], row["labels"], row["seq_lengths"]) for row in packed]


class Sequences:
    """The sequences of a training in the order in which they are taken: a map-style data set over a pool of them.

    The pool is taken again and again, each time in another order. A sequence that comes again is not copied: four
    bytes say which one it is.
    """

    def __init__(self, pool: list[Packed], count: int, order: random.Random) -> None:
        self.pool = pool
        self._at = array("I")
        places = list(range(len(pool)))
        while len(self._at) < count:
            order.shuffle(places)
            self._at.extend(places[: count - len(self._at)])

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, at: int) -> Packed:
        return self.pool[self._at[at]]

    def tokens(self, first: int, last: int) -> int:
        """Tokens of the sequences from place `first` up to `last`, which is left out."""
        return sum(len(self.pool[place].ids) for place in self._at[first:last])


def training_sequences(
    file: Path, tokenizer: Any, *, count: int, length: int, packing: bool, answer_only: bool, seed: int
) -> Sequences:
    """The `count` sequences of a training, in the order in which they are taken.

    Chats are read in a random order, and only as many as are needed; when all are used they come again, in another
    order.

    Args:
        file: Parquet with a column `messages`.
        tokenizer: of the model.
        count: sequences wanted: steps x batch x accumulation x processes.
        length: tokens in a sequence at most.
        packing: several chats in a sequence; else one each.
        answer_only: score the assistant's tokens only.
        seed: of the order.

    Raises:
        DataError: the file is missing, empty or has a bad row.
        SpecError: `length` cuts off every answer.
    """
    order = random.Random(seed)  # noqa: S311
    chats: list[Chat] = []
    tokens = 0
    for batch in shuffled_chats(file, order):
        made = encode(batch, tokenizer, length, answer_only)
        chats += made
        tokens += sum(len(chat.ids) for chat in made)
        if (tokens >= count * length) if packing else (len(chats) >= count):
            break
    if not chats:
        raise SpecError(
            f"sequence_length {length} leaves no answer in any chat of {file}",
            "Give a larger sequence_length.",
        )
    return Sequences(pack(chats, length) if packing else [_alone(chat) for chat in chats], count, order)


def validation_sequences(
    file: Path, tokenizer: Any, *, rows: int, length: int, packing: bool, answer_only: bool
) -> list[Packed]:
    """The first `rows` chats of a split, packed; empty where no answer fits.

    Raises:
        DataError: the file is missing, empty or has a bad row.
    """
    chats: list[Chat] = []
    for batch in read_chats(file):
        chats += encode(batch[: rows - len(chats)], tokenizer, length, answer_only)
        if len(chats) >= rows:
            break
    return pack(chats, length) if packing and chats else [_alone(chat) for chat in chats]


def _alone(chat: Chat) -> Packed:
    return Packed(chat.ids, chat.labels, [len(chat.ids)])


def collator(pad: int, multiple: int = 8) -> Callable[[Sequence[Packed]], dict[str, Any]]:
    """Make batches: `input_ids`, `labels`, `position_ids`, each [sequences, tokens], and no attention mask.

    Positions start again at every chat. transformers reads that as packed sequences and lets tokens attend within
    their own chat only (a block-diagonal causal mask, with any attention implementation). Padding tokens are at
    position 0 each, so they attend to themselves alone. Rows stay separate: one flat row, as flash attention wants
    it, would cost quadratically more on a CPU.
    """
    import torch

    def collate(batch: Sequence[Packed]) -> dict[str, Any]:
        longest = max(len(item.ids) for item in batch)
        width = -(-longest // multiple) * multiple

        def fill(values: list[int], filler: int) -> list[int]:
            return values + [filler] * (width - len(values))

        positions = [[i for length in item.lengths for i in range(length)] for item in batch]
        starts = [[IGNORED if i == 0 else label for i, label in zip(at, item.labels, strict=True)]
                  for at, item in zip(positions, batch, strict=True)]  # fmt: skip
        return {
            "input_ids": torch.tensor([fill(item.ids, pad) for item in batch]),
            "labels": torch.tensor([fill(labels, IGNORED) for labels in starts]),
            "position_ids": torch.tensor([fill(at, 0) for at in positions]),
        }

    return collate


def require_template(tokenizer: Any, source: str) -> None:
    """Refuse a tokenizer that cannot render chats.

    Raises:
        ModelError: it has no chat template or is not a fast tokenizer.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"the tokenizer of {source} has no chat template",
            "Use an instruction-tuned model, or set `chat_template` in its tokenizer_config.json.",
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{source} has no fast tokenizer (tokenizer.json)", "Use a model with tokenizer.json."
        )
