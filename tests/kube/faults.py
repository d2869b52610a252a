"""What goes wrong between client and server, by chance or by script.

- `429` (Retry-After as `server.retry_after` says, 0 seconds) and `500`: instead of doing it.
- `drop-before` and `drop-after`: the connection breaks before it is done, or when it has been done, unanswered.
- `conflict`: 409 Conflict instead of a write.
- `watch-closed`: a watch breaks off at its first event, which is lost, `watch-cut` at its third; `gone`: it is
  answered with 410.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable

ANY = ("429", "500", "drop-before", "drop-after")
WRITES, WATCHES = ("conflict",), ("watch-closed", "watch-cut", "gone")


class Faults:
    """Decides for each request; `done` counts what happened."""

    def __init__(self, rate: float = 0, seed: int = 0, script: Iterable[str] = (), only: str = "") -> None:
        """`rate` (0 to 1) of requests fail, by a generator of that seed; `script` comes first.

        `only`: requests of one method, or `WATCH`.
        """
        self.rate, self.script, self.only = rate, list(script), only
        self.done: dict[str, int] = {}
        self._random, self._lock = random.Random(seed), threading.Lock()

    def choose(self, method: str, watch: bool) -> str:
        """The fault of this request; empty for none."""
        possible = (*ANY, *(WATCHES if watch else ()), *(WRITES if method not in ("GET", "DELETE") else ()))
        with self._lock:
            if self.only and self.only != ("WATCH" if watch else method):
                return ""
            if self.script:
                chosen = self.script.pop(0) if self.script[0] in possible else ""
            else:
                chosen = self._random.choice(possible) if self._random.random() < self.rate else ""
            if chosen:
                self.done[chosen] = self.done.get(chosen, 0) + 1
            return chosen
