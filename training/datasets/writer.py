"""`documents.parquet`, written in row groups, and the figures for its card."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FILE = "documents.parquet"
_GROUP_ROWS = 2_000
_GROUP_BYTES = 16 << 20
_SAMPLES = 6
_SAMPLE_CHARACTERS = 1_000


def schema() -> Any:
    """The Arrow schema of `documents.parquet`."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("id", pa.string()),
            ("group", pa.string()),
            ("split", pa.string()),
            ("question", pa.string()),
            ("answer", pa.string()),
            ("messages", pa.list_(message)),
            ("source", pa.string()),
            ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ]
    )


class Writer:
    """Writes rows in their order; the same rows give the same bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._lengths: Counter[int] = Counter()
        self._samples: list[tuple[int, str, dict[str, str]]] = []
        self.splits: Counter[str] = Counter()

    def __enter__(self) -> Self:
        import pyarrow.parquet as pq

        self._file = pq.ParquetWriter(self._path, schema(), compression="zstd")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._file.close()

    def write(self, row: dict[str, Any], words: int) -> None:
        """Add a row with the columns of `schema`; `words` is the length of its chat."""
        line = json.dumps(row, sort_keys=True, ensure_ascii=False, default=datetime.isoformat)
        data = line.encode()
        self._digest.update(data + b"\n")
        self._rows.append(row)
        self._bytes += len(data)
        self._lengths[words] += 1
        self.splits[row["split"]] += 1
        self._sample(row)
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    @property
    def digest(self) -> str:
        """SHA-256 over the rows in order, as canonical JSON lines."""
        return self._digest.hexdigest()

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self.splits.total()

    def words(self) -> dict[str, float]:
        """Words in a chat: p50, p95 (nearest rank), max."""
        return {
            "p50": self._rank(0.5),
            "p95": self._rank(0.95),
            "max": float(max(self._lengths, default=0)),
        }

    def samples(self) -> list[dict[str, str]]:
        """A few rows, picked by the hash of their ids."""
        return [sample for _, _, sample in sorted(self._samples, key=lambda item: (-item[0], item[1]))]

    def _rank(self, share: float) -> float:
        target, seen = share * self.rows, 0
        for length in sorted(self._lengths):
            seen += self._lengths[length]
            if seen >= target:
                return float(length)
        return 0.0

    def _sample(self, row: dict[str, Any]) -> None:
        rank = -int.from_bytes(hashlib.sha256(row["id"].encode()).digest()[:8], "big")
        if len(self._samples) == _SAMPLES and rank <= self._samples[0][0]:
            return
        shown = {name: row[name][:_SAMPLE_CHARACTERS] for name in ("question", "answer", "source", "split")}
        keep = heapq.heappush if len(self._samples) < _SAMPLES else heapq.heappushpop
        keep(self._samples, (rank, f"{row['id']} {row['event_timestamp']}", shown))

    def _flush(self) -> None:
        if not self._rows:
            return
        import pyarrow as pa

        self._file.write_table(pa.Table.from_pylist(self._rows, schema=schema()))
        self._rows, self._bytes = [], 0
