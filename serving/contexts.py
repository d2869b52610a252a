"""Texts of a known length in tokens, never seen before: what a cold prompt is made of."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from pathlib import Path

from goldpath.core.digest import digest_json
from goldpath.core.errors import ModelError, SpecError
from goldpath.core.fetch import fetch
from goldpath.core.locks import locked
from goldpath.core.modelfiles import positions
from goldpath.core.settings import state
from goldpath.serving.results import Endpoint

_TOKENIZER = (".json", ".jinja", ".model", ".txt")
"""Files that tell how a model counts and how long its context is."""

_SUBJECTS = (
    "The pod",
    "A service",
    "The node",
    "Each volume",
    "The job",
    "A policy",
    "The cluster",
    "The label",
)
_VERBS = ("keeps", "reports", "selects", "limits", "schedules", "mounts", "replaces", "watches")
_OBJECTS = (
    "its status",
    "every replica",
    "the container image",
    "a network route",
    "the storage class",
    "its owner",
)


def tokenizer_folder(endpoint: Endpoint) -> Path:
    """Folder with the model's config and tokenizer: its own, or of an endpoint on a cluster a copy without weights.

    Raises:
        ModelError: there is nothing at the model's URI, or it may not be read.
        MachineError: no network; the disk is full.
    """
    if "://" not in endpoint.model_path:
        return Path(endpoint.model_path)
    folder = state("tokenizers") / digest_json([endpoint.model_path, endpoint.model_digest])[:32]
    with locked(folder.with_name(f".{folder.name}.lock"), "tokenizer"):
        fetch(endpoint.model_path, folder, label="Fetching the tokenizer", select=_small, error=ModelError)
    return folder


def _small(names: list[str]) -> list[str]:
    return [name for name in names if "/" not in name and name.endswith(_TOKENIZER)]


def token_counter(model: Path) -> Callable[[str], int]:
    """Counts tokens (without special ones) as the model in the folder does."""
    if (model / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(model / "tokenizer.json"))
        return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
    from transformers import AutoTokenizer

    slow = AutoTokenizer.from_pretrained(str(model))
    return lambda text: len(slow.encode(text, add_special_tokens=False))


def unseen_context(tokens: int, count: Callable[[str], int]) -> str:
    """A text of `tokens` tokens, or less than a sentence short, that differs from any other from its first word.

    It is new in every process too: an endpoint outlives the run that deployed it, and remembers.
    """
    chance = random.Random(secrets.token_bytes(16))  # noqa: S311  (no secret is made of it)
    sentences = [f"{secrets.token_hex(8)} is the number of this report."]
    sizes = count(sentences[0])
    while True:
        sentence = (
            f"Note {chance.randrange(10_000)}: {chance.choice(_SUBJECTS).lower()} "
            f"{chance.choice(_VERBS)} {chance.choice(_OBJECTS)}."
        )
        size = count(" " + sentence)
        if sizes + size > tokens:
            return " ".join(sentences)
        sentences.append(sentence)
        sizes += size


def check_fits(model: Path, context: int, room: int) -> None:
    """Refuse a context that, with `room` tokens for question and answer, is longer than the model's positions.

    Raises:
        SpecError: it is.
    """
    limit = positions(model)
    if limit is not None and context + room > limit:
        raise SpecError(
            f"context_tokens is {context}: with {room} for question and answer that is more than the {limit} "
            "tokens that the model takes",
            f"Set the probe's context_tokens to at most {max(0, limit - room)}.",
        )
