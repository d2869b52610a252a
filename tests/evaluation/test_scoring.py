"""Figures against independent computations."""

from __future__ import annotations

import math
from typing import Any

import pytest

from goldpath.core.progress import progress
from goldpath.training import modeling, scoring
from goldpath.training.specs import TrainSpec
from tests.models import chats, make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", seed=4)
    tokenizer = modeling.load_tokenizer(folder)
    model = modeling.load_model(folder, TrainSpec(precision="fp32")).eval()
    return model, tokenizer


def messages(count: int, extra: int = 0) -> list[list[dict[str, str]]]:
    """Chats of different lengths."""
    made: Any = [row["messages"] for row in chats(count, "test")]
    for i, chat in enumerate(made):
        chat[-1]["content"] += " And so on, ça va." * (i % 3 * extra)
    return made


def ids(tokenizer: Any, chat: list[dict[str, str]], ask: bool = False) -> list[int]:
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=ask)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def loss(model: Any, tokenizer: Any, made: list[list[dict[str, str]]], **change: int) -> scoring.AnswerLoss:
    with progress("test") as bar:
        return scoring.answer_loss(
            model, tokenizer, made, **{"limit": 400, "batch_size": 4, **change}, bar=bar
        )


def test_the_loss_is_that_of_transformers_row_by_row(tiny: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = tiny
    made = messages(11, extra=4)
    nll, right, count, size = 0.0, 0, 0, 0
    for chat in made:
        whole, prompt = ids(tokenizer, chat), len(ids(tokenizer, chat[:-1], ask=True))
        end = len(whole) - 1  # the line break after the end-of-turn token is no answer
        labels = torch.tensor([[-100] * prompt + whole[prompt:end] + [-100]])
        with torch.inference_mode():
            made_by = model(input_ids=torch.tensor([whole]), labels=labels)
        nll += float(made_by.loss) * (end - prompt)
        first = made_by.logits[0, prompt - 1 : end - 1].argmax(-1)
        right += int((first == torch.tensor(whole[prompt:end])).sum())
        count += end - prompt
        size += len(chat[-1]["content"].encode())
    found = loss(model, tokenizer, made)
    assert found.tokens == count
    assert found.loss == pytest.approx(nll / count, abs=1e-4)
    assert found.accuracy == pytest.approx(right / count)
    assert found.bits_per_byte == pytest.approx(nll / math.log(2) / size, rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_batches_do_not_change_the_loss(tiny: tuple[Any, Any]) -> None:
    made = messages(9, extra=5)
    alone, together = loss(*tiny, made, batch_size=1), loss(*tiny, made, batch_size=9)
    assert together.loss == pytest.approx(alone.loss, abs=1e-5)
    assert together.tokens == alone.tokens


def test_a_chat_is_cut_at_its_end(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    chat = messages(1)[0]
    prompt = len(ids(tokenizer, chat[:-1], ask=True))
    assert loss(model, tokenizer, [chat], limit=prompt + 5).tokens == 5
    nothing = loss(model, tokenizer, [chat], limit=prompt)
    assert nothing.tokens == 0
    assert math.isnan(nothing.loss)
    assert math.isnan(nothing.perplexity)


def test_a_huge_loss_has_an_infinite_perplexity() -> None:
    assert scoring.AnswerLoss(1e4, 1, 0, 1).perplexity == math.inf


def test_greedy_answers_are_those_of_single_steps_without_padding_or_cache(tiny: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = tiny
    made = [chat[:-1] for chat in messages(6)]
    made[2][0]["content"] += " Tell it in one sentence, with all that belongs to it and nothing else."
    with progress("test") as bar:
        found = scoring.generate(model, tokenizer, made, new_tokens=8, limit=300, batch_size=1, bar=bar)
        assert bar.done == 6
    for chat, answer in zip(made, found, strict=True):
        whole = ids(tokenizer, chat, ask=True)
        begin = len(whole)
        for _ in range(8):
            with torch.inference_mode():
                whole.append(int(model(input_ids=torch.tensor([whole])).logits[0, -1].argmax()))
            if whole[-1] == tokenizer.eos_token_id:
                break
        assert answer == tokenizer.decode(whole[begin:], skip_special_tokens=True).strip()


def test_a_long_prompt_keeps_its_end(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    chat = [{"role": "user", "content": "What is a Pod? " * 40}]
    seen: list[Any] = []
    real = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **inputs: seen.append(inputs["input_ids"]) or real(**inputs)
    )
    with progress("test") as bar:
        scoring.generate(model, tokenizer, [chat], new_tokens=2, limit=20, batch_size=1, bar=bar)
        assert scoring.generate(model, tokenizer, [], new_tokens=2, limit=20, batch_size=1, bar=bar) == []
    assert seen[0].tolist() == [ids(tokenizer, chat, ask=True)[-20:]]


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        # Lin (2004), section 3.1: S1, S2 and S3; the common subsequences are of 3 and 2 words of 4.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("the gunman police killed", "police killed the gunman", 2 / 4),
        ("The Pod's phase.", "the pod s PHASE", 1.0),
        ("a b c d e", "b d", 2 * 2 / 7),
        ("same words other way", "", 0.0),
        ("", "words", 0.0),
        ("...", "...", 0.0),
    ],
)
def test_rouge_l(answer: str, reference: str, f1: float) -> None:
    assert scoring.rouge_l(answer, reference) == pytest.approx(f1)
    assert scoring.rouge_l(reference, answer) == pytest.approx(f1)
