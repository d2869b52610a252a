"""Documents made by hand, in the shape of a prepared data set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("source", pa.string()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
    ]
)
FACTS = {
    "moon": ("What moves the tides?", "The pull of the moon raises the sea twice a day."),
    "bread": ("How is bread baked?", "Knead flour, water and yeast, let the dough rise, bake it in an oven."),
    "replicas": (
        "What does spec.replicas of a Deployment mean?",
        "The number of pods that Kubernetes keeps running.",
    ),
    "violin": ("How does a violin sound?", "A bow of horse hair makes the strings of the violin vibrate."),
    "penguin": ("Where do penguins live?", "Penguins are birds of the southern hemisphere that cannot fly."),
    "cron": (
        "What is the schedule of a CronJob?",
        "A cron expression that says at what times a job is started.",
    ),
}


def day(number: float) -> datetime:
    """A moment, `number` days into January 2026."""
    return datetime.fromtimestamp(datetime(2026, 1, 1, tzinfo=UTC).timestamp() + number * 86_400, UTC)


def document(key: str, question: str, answer: str, *, split: str = "train", at: float = 0) -> dict[str, Any]:
    """One row of documents.parquet."""
    return {
        "id": key,
        "group": f"group-{key}",
        "split": split,
        "question": question,
        "answer": answer,
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "source": f"source of {key}",
        "event_timestamp": day(at),
    }


def facts() -> list[dict[str, Any]]:
    """Six documents on six subjects, one of them in the test split."""
    return [
        document(key, question, answer, split="test" if key == "penguin" else "train")
        for key, (question, answer) in FACTS.items()
    ]


def write(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema = SCHEMA) -> Path:
    """Write rows as documents.parquet."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path)
    return path
