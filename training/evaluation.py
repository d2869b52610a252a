"""The evaluation: base, tuned and champion on the same held-out rows and planted prompts, and the gate."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from goldpath.core.digest import code_digest, versions
from goldpath.core.errors import DataError, MachineError, SpecError
from goldpath.core.modelfiles import check_model_folder, positions
from goldpath.core.progress import Bar, progress
from goldpath.core.reuse import Reused, reuse
from goldpath.core.spec import Result
from goldpath.training import modeling, planted, scoring
from goldpath.training.gate import judge
from goldpath.training.results import EvalResult, Scores
from goldpath.training.specs import EvalSpec, TrainSpec

_COLUMNS = ("question", "answer", "messages", "source")


class ModelScores(Result):
    """One model on one frame: figures and what it answered."""

    scores: Scores
    answers: list[str]
    """To the sampled test questions, in their order."""
    planted: list[str]
    """To the planted prompts, in their order."""


def evaluate(
    frame: Path, frame_digest: str, models: dict[str, tuple[Path, str]], spec: EvalSpec
) -> Reused[EvalResult]:
    """Score models on the test split and put the tuned one through the gate.

    The figures of one model on one frame are work of their own: a base model or champion that was scored before, by
    any run, is not scored again, and a change of the gate scores nothing.

    Args:
        frame: folder of `test.parquet` (question, answer, messages, source).
        frame_digest: digest of its rows.
        models: name (`base`, `tuned`, optionally `champion`) to the model's folder and its digest.
        spec: how many rows, how long, and the gate.

    Raises:
        SpecError: base or tuned is missing, or a model has too few positions.
        DataError: the test split is missing, empty or lacks a column.
        ModelError: a model is damaged, unsafe to load, or has no chat template.
        MachineError: too little memory.
    """
    missing = {"base", "tuned"} - set(models)
    if missing:
        raise SpecError(
            f"evaluation needs {' and '.join(sorted(missing))}", "Give the models base and tuned."
        )
    for folder, _ in models.values():
        check_model_folder(folder)
    inputs = {
        "frame": frame_digest,
        "models": {name: digest for name, (_, digest) in models.items()},
        **_asked(spec),
        "gate": spec.gate.model_dump(mode="json"),
    }

    def build(slot: Path) -> EvalResult:
        rows = sample_rows(frame / "test.parquet", spec)
        found = {
            name: _score_once(name, folder, digest, frame_digest, rows, spec)
            for name, (folder, digest) in models.items()
        }
        return _assemble(rows, found, spec)

    return reuse("evaluation", inputs, EvalResult, build)


def _asked(spec: EvalSpec) -> dict[str, Any]:
    """What a model's figures depend on, besides the model and the frame."""
    return {
        "spec": spec.model_dump(mode="json", exclude={"gate"}),
        "planted": planted.planted_digest(),
        "code": code_digest("training", "core.hardware", "core.modelfiles"),
        "libraries": versions("torch", "transformers", "presidio-analyzer"),
    }


def sample_rows(file: Path, spec: EvalSpec) -> list[dict[str, Any]]:
    """Rows of the test split: `loss_rows` of them, the same ones for a seed, in random order.

    Raises:
        DataError: the file is missing, unreadable or empty, lacks a column, or a row has no answer.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    if not file.is_file():
        raise DataError(f"{file} does not exist", "Build the training frame first (`build_features`).")
    try:
        table = ds.dataset(file, format="parquet")
        lacking = [name for name in _COLUMNS if name not in table.schema.names]
        if lacking:
            raise DataError(
                f"{file} has no column {', '.join(lacking)}",
                f"A frame has the columns {', '.join(_COLUMNS)}.",
            )
        count = table.count_rows()
        if not count:
            raise DataError(
                f"{file} has no rows", "Raise test_fraction, or give a data set with more groups."
            )
        order = random.Random(spec.seed).sample(range(count), min(count, spec.loss_rows))  # noqa: S311
        rows: list[dict[str, Any]] = table.take(order, columns=list(_COLUMNS)).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{file} is not a readable Parquet file ({error})", "Build the frame again."
        ) from error
    for at, row in zip(order, rows, strict=True):
        messages = row["messages"] or []
        if (
            len(messages) < 2
            or messages[-1]["role"] != "assistant"
            or not (messages[-1]["content"] or "").strip()
        ):
            raise DataError(
                f"{file}, row {at + 1}: the messages do not end with an answer",
                "A chat ends with a message of the role `assistant`; prepare the data again.",
            )
    return rows


def _score_once(
    name: str, folder: Path, digest: str, frame_digest: str, rows: list[dict[str, Any]], spec: EvalSpec
) -> ModelScores:
    inputs = {"model": digest, "frame": frame_digest, **_asked(spec)}
    kept = reuse("score", inputs, ModelScores, lambda slot: score_model(name, folder, rows, spec)).result
    return kept.model_copy(update={"scores": kept.scores.model_copy(update={"name": name})})


def score_model(name: str, folder: Path, rows: list[dict[str, Any]], spec: EvalSpec) -> ModelScores:
    """All figures of one model.

    Raises:
        ModelError: it cannot be loaded or has no chat template.
        SpecError: it has no room for answers of `max_new_tokens`.
        MachineError: too little memory.
    """
    began = time.monotonic()
    asked = planted.planted()
    shown = rows[: spec.generate_rows]
    prompts = [row["messages"][:-1] for row in shown]
    prompts += [[{"role": "user", "content": one.prompt}] for one in asked]
    with _loaded(folder, spec) as (model, tokenizer):
        with progress(f"Score {name}", len(rows), "chats") as bar:
            loss = _loss(model, tokenizer, folder, rows, spec, bar)
        with progress(f"Ask {name}", len(prompts), "prompts") as bar:
            said = scoring.generate(
                model,
                tokenizer,
                prompts,
                new_tokens=spec.max_new_tokens,
                limit=_room(folder, spec),
                batch_size=spec.batch_size,
                bar=bar,
            )
    answers, replies = said[: len(shown)], said[len(shown) :]
    texts = [" ".join(str(message["content"]) for message in prompt) for prompt in prompts]
    orders = [(one, reply) for one, reply in zip(asked, replies, strict=True) if one.followed]
    overlaps = [
        scoring.rouge_l(answer, row["messages"][-1]["content"])
        for answer, row in zip(answers, shown, strict=True)
    ]
    scores = Scores(
        name=name,
        loss=loss.loss,
        perplexity=loss.perplexity,
        bits_per_byte=loss.bits_per_byte,
        token_accuracy=loss.accuracy,
        overlap=sum(overlaps) / len(overlaps),
        pii_leak_rate=sum(bool(planted.leaks(*pair)) for pair in zip(texts, said, strict=True)) / len(said),
        refusal_rate=sum(not planted.followed(*pair) for pair in orders) / len(orders),
        tokens=loss.tokens,
        seconds=round(time.monotonic() - began, 2),
    )
    return ModelScores(scores=scores, answers=answers, planted=replies)


def _loss(
    model: Any, tokenizer: Any, folder: Path, rows: list[dict[str, Any]], spec: EvalSpec, bar: Bar
) -> scoring.AnswerLoss:
    limit = min(spec.max_tokens, positions(folder) or spec.max_tokens)
    found = scoring.answer_loss(
        model, tokenizer, [row["messages"] for row in rows], limit=limit, batch_size=spec.batch_size, bar=bar
    )
    if not found.tokens:
        raise SpecError(
            f"max_tokens {limit} leaves no answer in any row of the test split", "Raise max_tokens."
        )
    return found


def _room(folder: Path, spec: EvalSpec) -> int:
    """Tokens that a prompt may have, so that the answer still has positions."""
    places = positions(folder)
    room = spec.max_tokens if places is None else min(spec.max_tokens, places - spec.max_new_tokens)
    if room < 1:
        raise SpecError(
            f"max_new_tokens is {spec.max_new_tokens} and the model at {folder} has {places} positions",
            "Lower max_new_tokens.",
        )
    return room


@contextmanager
def _loaded(folder: Path, spec: EvalSpec) -> Iterator[tuple[Any, Any]]:
    """A model for inference and its tokenizer; their memory is free again after the block."""
    # Before torch is loaded: threads that wait by spinning take the time of others on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = modeling.load_tokenizer(folder)
        model = modeling.load_model(folder, TrainSpec(precision=spec.precision))
        model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        yield model, tokenizer
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise MachineError(
                f"too little memory to score the model at {folder}",
                "Lower batch_size or max_tokens of the evaluation, or close other programs.",
            ) from error
        raise
    finally:
        model = tokenizer = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _assemble(rows: list[dict[str, Any]], found: dict[str, ModelScores], spec: EvalSpec) -> EvalResult:
    scores = [one.scores for one in found.values()]
    verdict = judge(scores, spec.gate)
    samples = [
        {
            "question": str(row["question"]),
            "reference": str(row["answer"]),
            "source": str(row["source"]),
            **{name: one.answers[i] for name, one in found.items()},
        }
        for i, row in enumerate(rows[: spec.generate_rows])
    ]
    replies = []
    for i, one in enumerate(planted.planted()):
        reply = {"id": one.id, "category": one.category, "prompt": one.prompt}
        for name, model in found.items():
            reply |= {name: model.planted[i], f"{name}_verdict": planted.verdict(one, model.planted[i])}
        replies.append(reply)
    tuned = found["tuned"].scores
    return EvalResult(
        scores=scores,
        samples=samples,
        planted=replies,
        loss_drop=verdict.loss_drop,
        passed=verdict.passed,
        checks=verdict.checks,
        rows=len(rows),
        tokens=tuned.tokens,
    )
