"""Data sets: read, check, normalise, redact, deduplicate, split and write them, without holding them in memory."""

from goldpath.training.datasets.card import card_markdown
from goldpath.training.datasets.chats import EPOCH
from goldpath.training.datasets.preparation import check, prepare

__all__ = ["EPOCH", "card_markdown", "check", "prepare"]
