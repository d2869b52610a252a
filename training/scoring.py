"""The figures of one model: loss over held-out answers, greedy answers, their overlap with the references."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from goldpath.core.progress import Bar
from goldpath.training import modeling, packing

_SIDE_BY_SIDE = 4
"""Answers made side by side, in batches: a decoding pass reads all weights for one token a chat."""
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class AnswerLoss:
    """Figures over the answer tokens of some chats."""

    loss: float
    """Mean negative log-likelihood per answer token, nats; NaN without tokens."""
    bits_per_byte: float
    """Negative log-likelihood in bits per UTF-8 byte of the answers' text."""
    accuracy: float
    """Share of answer tokens that are the model's first choice, given the true tokens before them."""
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf


def answer_loss(
    model: Any,
    tokenizer: Any,
    chats: Sequence[list[dict[str, str]]],
    *,
    limit: int,
    batch_size: int,
    bar: Bar,
) -> AnswerLoss:
    """Score the assistant's tokens of `chats`, the end-of-turn token among them, as training does.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        chats: messages of each chat.
        limit: tokens kept of a chat.
        batch_size: chats in a forward pass.
        bar: advanced by one a chat.
    """
    import torch

    encoded = packing.encode(chats, tokenizer, limit, answer_only=True)
    size = sum(_bytes(tokenizer, chat) for chat in encoded)
    encoded.sort(key=lambda chat: len(chat.ids))  # neighbours of one length need little padding
    head = modeling.AnswerHead(model)
    collate = packing.collator(tokenizer.pad_token_id)
    nll, correct, tokens = 0.0, 0, 0
    for at in range(0, len(encoded), batch_size):
        rows = [
            packing.Packed(chat.ids, chat.labels, [len(chat.ids)]) for chat in encoded[at : at + batch_size]
        ]
        with torch.inference_mode():
            sums = head.sums(model, {name: value.to(model.device) for name, value in collate(rows).items()})
        nll, correct, tokens = nll + float(sums.nll), correct + sums.correct, tokens + sums.tokens
        bar.advance(len(rows), loss=nll / max(tokens, 1))
    bar.advance(len(chats) - len(encoded))
    if not tokens:
        return AnswerLoss(math.nan, math.nan, math.nan, 0)
    return AnswerLoss(nll / tokens, nll / math.log(2) / max(size, 1), correct / tokens, tokens)


def _bytes(tokenizer: Any, chat: packing.Chat) -> int:
    answer = [label for label in chat.labels if label != packing.IGNORED]
    return len(tokenizer.decode(answer, skip_special_tokens=True).encode())


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[list[dict[str, str]]], *,
    new_tokens: int, limit: int, batch_size: int, bar: Bar,
) -> list[str]:  # fmt: skip
    """Greedy answers to chats that end with the user's turn, in order.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        prompts: messages of each chat.
        new_tokens: tokens of an answer at most.
        limit: tokens of a prompt at most; a longer one loses its beginning.
        batch_size: a quarter of the prompts that are answered side by side, padded on the left.
        bar: advanced by one an answer.
    """
    import torch
    from transformers import GenerationConfig

    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in prompts
    ]
    ids = [row[-limit:] for row in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
    plan = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=_ends(model, tokenizer),
    )
    answers = [""] * len(ids)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    together = _SIDE_BY_SIDE * batch_size
    for at in range(0, len(order), together):
        rows = order[at : at + together]
        padded = tokenizer.pad(
            {"input_ids": [ids[i] for i in rows]}, padding_side="left", return_tensors="pt"
        )
        with torch.inference_mode():
            made = model.generate(**padded.to(model.device), generation_config=plan)
        said = tokenizer.batch_decode(made[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, text in zip(rows, said, strict=True):
            answers[i] = text.strip()
        bar.advance(len(rows))
    return answers


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the model's own and the tokenizer's."""
    own = model.generation_config.eos_token_id
    ends = own if isinstance(own, list) else [own]
    return sorted({end for end in [*ends, tokenizer.eos_token_id] if end is not None})


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 of two texts, 0 to 1: agreement by the longest common subsequence of words.

    C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, section 3.1, with beta = 1: for a
    common subsequence of n words, P = n / |answer|, R = n / |reference|, F1 = 2PR / (P + R). Words are runs of
    letters and digits in lower case, without stemming, as in Google's `rouge_score`.
    """
    said, wanted = _WORD.findall(answer.lower()), _WORD.findall(reference.lower())
    if not said or not wanted:
        return 0.0
    row = [0] * (len(wanted) + 1)  # row[j]: longest common subsequence of the words so far and wanted[:j]
    for word in said:
        diagonal = 0
        for j, other in enumerate(wanted, 1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    common = row[-1]
    return 2 * common / (len(said) + len(wanted))
