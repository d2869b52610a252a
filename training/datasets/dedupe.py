"""Duplicates: what was seen before, kept on disk, so that memory does not grow with the data.

Near-duplicates are found by MinHash (Broder, "On the resemblance and containment of documents", 1997): 128 hashes a
row estimate the Jaccard similarity of two rows' word 3-grams (standard error sqrt(J(1-J)/128), 0.03 at J = 0.9).
Locality-sensitive hashing (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", ch. 3) picks the candidates; a
pair as similar as the threshold becomes one with a probability of about 0.8, identical rows always. A row takes about
1 KB of SQLite file and no memory.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goldpath.core.errors import DataError
from goldpath.training.datasets.chats import Chat
from goldpath.training.datasets.text import fold, ngrams

if TYPE_CHECKING:
    from goldpath.training.datasets.text import Hashes

SHINGLE_WORDS = 3
PERMUTATIONS = 128
_SEED = 1
_MOST_CANDIDATES = 64
_CACHE_KIB = 16_000
_COMMIT_ROWS = 5_000
_SCHEMA = """
CREATE TABLE texts (key BLOB PRIMARY KEY, id BLOB) WITHOUT ROWID;
CREATE TABLE ids (id BLOB, moment INTEGER, key BLOB, team BLOB, place TEXT, PRIMARY KEY (id, moment)) WITHOUT ROWID;
CREATE TABLE bands (key INTEGER, number INTEGER, PRIMARY KEY (key, number)) WITHOUT ROWID;
CREATE TABLE sketches (number INTEGER PRIMARY KEY, id BLOB, sketch BLOB);
"""


class Sketcher:
    """Makes MinHash sketches, and the bands by which similar ones meet."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        # More weight on misses than on false candidates, which are compared anyway.
        index = MinHashLSH(threshold=min(threshold, 0.95), num_perm=PERMUTATIONS, weights=(0.1, 0.9))
        self._bands, self._rows = index.b, index.r
        self._empty = MinHash(
            num_perm=PERMUTATIONS, seed=_SEED, hashfunc=int
        )  # the shingles are hashes already

    def sketch(self, shingles: Hashes) -> Any:
        """128 hash values of 32 bits."""
        import numpy as np

        made = self._empty.copy()
        made.update_batch((shingles >> np.uint64(32)).tolist())
        return made.hashvalues.astype(np.uint32)

    def bands(self, sketch: Any) -> list[int]:
        """One signed 64-bit key a band."""
        keys = []
        for band in range(self._bands):
            values = sketch[band * self._rows : (band + 1) * self._rows].tobytes()
            key = hashlib.blake2b(values, digest_size=8, salt=bytes([band])).digest()
            keys.append(int.from_bytes(key, "little", signed=True))
        return keys


class Seen:
    """The rows that were kept so far."""

    def __init__(self, path: Path, near_threshold: float) -> None:
        self._db = open_database(path, _SCHEMA)
        self._threshold = near_threshold
        self._sketcher = Sketcher(near_threshold) if near_threshold < 1 else None
        self._number = 0

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def duplicate(self, chat: Chat, key: bytes) -> str:
        """Why this row is not to be kept: `exact_duplicate`, `near_duplicate`; empty: it is new, and now seen.

        Versions of one row (the same id at different timestamps) are never duplicates of each other.

        Raises:
            DataError: its id was there before with the same timestamp and another text, or in another group.
        """
        name = _short(chat.id) if chat.id else b""
        if name and self._repeats(chat, name, key):
            return "exact_duplicate"
        before = self._db.execute("SELECT id FROM texts WHERE key = ?", (key,)).fetchone()
        if before and (not name or before[0] != name):
            return "exact_duplicate"
        if self._sketcher and self._near(chat, name, self._sketcher):
            return "near_duplicate"
        self._db.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (key, name))
        self._number += 1
        if self._number % _COMMIT_ROWS == 0:
            self._db.commit()
        return ""

    def _repeats(self, chat: Chat, name: bytes, key: bytes) -> bool:
        moment, team = round(chat.timestamp.timestamp() * 1e6), _short(chat.group or chat.id)
        rows = self._db.execute("SELECT moment, key, team, place FROM ids WHERE id = ?", (name,))
        for other_moment, other_key, other_team, place in rows:
            if other_team != team:
                raise DataError(
                    f"{chat.place}: the id {chat.id[:60]!r} is in another group at {place}",
                    "Keep all versions of a row in one group.",
                )
            if other_moment == moment and other_key != key:
                raise DataError(
                    f"{chat.place}: the id {chat.id[:60]!r} was there before with the same timestamp ({place})",
                    "Give each row its own id, or the versions of a row their own timestamps.",
                )
            if other_moment == moment:
                return True
        self._db.execute("INSERT INTO ids VALUES (?, ?, ?, ?, ?)", (name, moment, key, team, chat.place))
        return False

    def _near(self, chat: Chat, name: bytes, sketcher: Sketcher) -> bool:
        import numpy as np

        sketch = sketcher.sketch(ngrams(chat.core or visible(chat), SHINGLE_WORDS))
        keys = sketcher.bands(sketch)
        marks = ",".join("?" * len(keys))
        found = self._db.execute(
            f"SELECT DISTINCT number FROM bands WHERE key IN ({marks}) LIMIT {_MOST_CANDIDATES}",  # noqa: S608
            keys,
        ).fetchall()
        for (number,) in found:
            other, blob = self._db.execute(
                "SELECT id, sketch FROM sketches WHERE number = ?", (number,)
            ).fetchone()
            alike = float(np.mean(np.frombuffer(blob, dtype=np.uint32) == sketch))
            if alike >= self._threshold and not (name and other == name):
                return True
        self._db.execute("INSERT INTO sketches VALUES (?, ?, ?)", (self._number, name, sketch.tobytes()))
        self._db.executemany(
            "INSERT OR IGNORE INTO bands VALUES (?, ?)", [(key, self._number) for key in keys]
        )
        return False


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """A scratch database: bounded cache, no journal, since it is thrown away with the step that made it."""
    database = sqlite3.connect(path)
    database.executescript(
        f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KIB}; {schema}"
    )
    return database


def visible(chat: Chat) -> str:
    """What the user and the assistant say: a system prompt that all rows share says nothing about likeness."""
    return "\n".join(turn.content for turn in chat.turns if turn.role != "system")


def text_key(chat: Chat) -> bytes:
    """16 bytes that are the same for chats that say the same: case and whitespace do not count."""
    text = chat.same_as or "\x00".join(f"{turn.role}\x01{fold(turn.content)}" for turn in chat.turns)
    return hashlib.sha256(text.encode()).digest()[:16]


def _short(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]
