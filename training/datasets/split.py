"""Splits by group, and training rows that overlap with the test split."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from goldpath.core.errors import DataError
from goldpath.training.datasets.dedupe import open_database
from goldpath.training.datasets.text import ngrams, words

SPLITS = ("train", "validation", "test")
OVERLAP_WORDS = 13
OVERLAP_SHARE = 0.5
_RANGE = 1 << 62
_FILTER_BITS = 24


class Splitter:
    """Sends each group to one split, by a hash of the group and the seed.

    A group stays in its split when rows are added later. Where a small data set leaves a split empty that way, the
    groups are cut by the rank of their hashes instead.
    """

    def __init__(self, path: Path, seed: int, validation: float, test: float) -> None:
        self._db = open_database(
            path, "CREATE TABLE teams (point INTEGER PRIMARY KEY, written INTEGER DEFAULT 0)"
        )
        self._seed, self._validation, self._test = seed, validation, test
        self._cuts = (int(test * _RANGE), int((test + validation) * _RANGE))

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def add(self, group: str) -> None:
        """Make a group known."""
        self._db.execute("INSERT OR IGNORE INTO teams (point) VALUES (?)", (self._point(group),))

    def settle(self) -> None:
        """Call once when all groups are known.

        Raises:
            DataError: fewer than three groups.
        """
        count = self._count("1")
        if count < len(SPLITS):
            raise DataError(
                f"{count} group(s) of rows are left after cleaning and {len(SPLITS)} are needed, one a split",
                "Give more rows, or a `group` column with more values.",
            )
        if all(self._count(f"point >= {low} AND point < {high}") for low, high in self._bounds()):
            return
        test = max(1, int(count * self._test))
        self._cuts = (self._ranked(test), self._ranked(test + max(1, int(count * self._validation))))

    def of(self, group: str) -> str:
        """The split of a group."""
        point = self._point(group)
        return "test" if point < self._cuts[0] else "validation" if point < self._cuts[1] else "train"

    def wrote(self, group: str) -> None:
        """A row of this group is in the output."""
        self._db.execute("UPDATE teams SET written = 1 WHERE point = ?", (self._point(group),))

    def groups(self) -> dict[str, int]:
        """Distinct groups in the output, by split."""
        low_high = dict(zip(("test", "validation", "train"), self._bounds(), strict=True))
        return {
            split: self._count(f"written AND point >= {low_high[split][0]} AND point < {low_high[split][1]}")
            for split in SPLITS
        }

    def _bounds(self) -> tuple[tuple[int, int], ...]:
        return (0, self._cuts[0]), self._cuts, (self._cuts[1], _RANGE)

    def _point(self, group: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._seed}:{group}".encode()).digest()[:8], "big") >> 2

    def _count(self, where: str) -> int:
        row = self._db.execute(f"SELECT count(*) FROM teams WHERE {where}").fetchone()  # noqa: S608
        return int(row[0])

    def _ranked(self, rank: int) -> int:
        row = self._db.execute("SELECT point FROM teams ORDER BY point LIMIT 1 OFFSET ?", (rank,)).fetchone()
        return int(row[0])


class Overlap:
    """Which rows say much of what a test row says.

    By runs of 13 words, as GPT-3's authors compared training and test data (Brown et al., "Language Models are
    Few-Shot Learners", 2020, appendix C). There one run in common is enough; here half of a row's runs must be in
    the test split, so that a phrase that many answers share does not count. Texts under 13 words cannot be judged.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        self._db: sqlite3.Connection = open_database(path, "CREATE TABLE runs (hash INTEGER PRIMARY KEY)")
        # A fixed 16 MiB: most runs of most rows are found to be new without a look at the disk.
        self._maybe = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def add(self, text: str) -> None:
        """Take a text of the test split."""
        import numpy as np

        runs = ngrams(text, OVERLAP_WORDS)
        self._maybe[runs >> np.uint64(64 - _FILTER_BITS)] = True
        rows = [(int(run),) for run in runs.astype(np.int64)]
        self._db.executemany("INSERT OR IGNORE INTO runs VALUES (?)", rows)

    def contaminated(self, text: str) -> bool:
        """Whether at least half of the text's runs of 13 words are in the test split."""
        import numpy as np

        if len(words(text)) < OVERLAP_WORDS:
            return False
        runs = ngrams(text, OVERLAP_WORDS)
        possible = runs[self._maybe[runs >> np.uint64(64 - _FILTER_BITS)]]
        need = OVERLAP_SHARE * len(runs)
        if len(possible) < need:
            return False
        found = sum(
            self._db.execute("SELECT 1 FROM runs WHERE hash = ?", (int(run),)).fetchone() is not None
            for run in possible.astype(np.int64)
        )
        return found >= need
