"""A chat: what every row becomes, whatever shape it came in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from goldpath.core.errors import DataError

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
"""The moment of rows without a timestamp."""
ROLES = ("system", "user", "assistant")
_PAIRS = (("prompt", "completion"), ("question", "answer"), ("instruction", "output"))
CHAT_COLUMNS = ("messages", *(name for pair in _PAIRS for name in pair), "input", "system")
LABEL_COLUMNS = ("id", "source", "group", "timestamp", "event_timestamp")
_SHAPES = (
    "Give each row `messages` (a list of {role, content} that ends with the assistant's), or `prompt` and "
    "`completion`, `question` and `answer`, or `instruction` and `output`."
)
_MILLISECONDS_FROM = 1e11  # as seconds this is the year 5138


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat that ends with an answer."""

    id: str
    """Empty: it gets the digest of its content."""
    group: str
    """What must not be in two splits; empty: a group of its own."""
    turns: tuple[Turn, ...]
    source: str
    place: str = ""
    """Where it was read, for errors: `data.jsonl, line 3`."""
    timestamp: datetime = EPOCH
    same_as: str = ""
    """What makes it an exact duplicate of another, where that is not the whole chat."""
    core: str = ""
    """What is compared for near-duplicates and contamination, where that is not the question and the answer."""

    @property
    def question(self) -> str:
        """The last thing that the user said."""
        return next((turn.content for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def answer(self) -> str:
        """The last turn."""
        return self.turns[-1].content


def from_row(row: Mapping[str, Any], place: str, *, source: str = "") -> Chat:
    """Read one row of any accepted shape.

    Args:
        row: its columns. Beside the chat, `id`, `source`, `group` and `timestamp` (or `event_timestamp`) are used.
        place: where it stands, for errors and as its source.
        source: what to write as its source if it names none.

    Raises:
        DataError: the shape is wrong, a part of it is missing or empty, a role or a timestamp makes no sense.
    """
    turns = _turns(row, place)
    for index, turn in enumerate(turns):
        if not turn.content.strip():
            raise DataError(
                f"{place}: {'no answer' if turn.role == 'assistant' else f'the {turn.role} message is empty'}",
                "Give every message its text, or remove the row.",
            )
        if turn.role == "system" and index > 0:
            raise DataError(f"{place}: a system message stands after others", "Put it first.")
    if turns[-1].role != "assistant":
        raise DataError(
            f"{place}: no answer; the last message is the {turns[-1].role}'s",
            "End each chat with a message of the assistant.",
        )
    if all(turn.role != "user" for turn in turns):
        raise DataError(f"{place}: no question; no message is the user's", "Add the user's message.")
    return Chat(
        id=_label(row, "id", place),
        group=_label(row, "group", place),
        turns=tuple(turns),
        source=_label(row, "source", place) or source or place,
        place=place,
        timestamp=_timestamp(row, place),
    )


def _turns(row: Mapping[str, Any], place: str) -> list[Turn]:
    if row.get("messages") is not None:
        return _messages(row["messages"], "messages", place)
    for asked, answered in _PAIRS:
        if asked not in row:
            continue
        if row.get(answered) is None:
            raise DataError(
                f"{place}: no answer; `{asked}` needs `{answered}` beside it",
                "Give the row an answer or remove it.",
            )
        system = row.get("system")
        turns = [Turn("system", _text(system, "system", place))] if system else []
        context = row.get("input") if asked == "instruction" else None
        return [
            *turns,
            *_side(row[asked], asked, "user", place, str(context or "")),
            *_side(row[answered], answered, "assistant", place),
        ]
    shown = ", ".join(f"`{name}`" for name in list(row)[:8]) or "nothing"
    raise DataError(f"{place}: no chat in this row, its columns are {shown}", _SHAPES)


def _side(value: Any, name: str, role: str, place: str, more: str = "") -> list[Turn]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _messages(value, name, place)
    text = _text(value, name, place)
    return [Turn(role, f"{text}\n\n{more}" if more.strip() else text)]


def _messages(value: Any, name: str, place: str) -> list[Turn]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(f"{place}: `{name}` is {_kind(value)}, not a list of messages", _SHAPES)
    turns = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise DataError(f"{place}: message {number} of `{name}` has no role and content", _SHAPES)
        role = message["role"]
        if role not in ROLES:
            raise DataError(
                f"{place}: message {number} has the role {str(role)[:40]!r}",
                f"Allowed roles: {', '.join(ROLES)}.",
            )
        turns.append(Turn(role, _text(message["content"], f"content of message {number}", place)))
    return turns


def _text(value: Any, name: str, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{place}: `{name}` is {_kind(value)}, not text", "Make it a string.")
    return value


def _label(row: Mapping[str, Any], name: str, place: str) -> str:
    value = row.get(name)
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: `{name}` is {_kind(value)}", "Make it text or a whole number.")
    return str(value)


def _timestamp(row: Mapping[str, Any], place: str) -> datetime:
    name = "timestamp" if row.get("timestamp") not in (None, "") else "event_timestamp"
    value = row.get(name)
    if value is None or value == "":
        return EPOCH
    try:
        moment = _moment(value)
    except (ValueError, OverflowError, OSError):
        raise DataError(
            f"{place}: `{name}` is {str(value)[:40]!r}, which is no moment in time",
            "Use ISO 8601 (2026-01-31T12:00:00Z) or seconds since 1970.",
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip())
        except ValueError:
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS_FROM else value, UTC)


def _kind(value: Any) -> str:
    names = {"NoneType": "missing", "dict": "an object", "list": "a list", "str": "text", "bool": "a boolean"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")
