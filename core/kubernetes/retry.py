"""Trying again what may pass: exponential back-off with full jitter, never beyond a limit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from goldpath.core.errors import GoldpathError

T = TypeVar("T")


class Transient(Exception):
    """It may pass: `error` is what to raise when it does not, `after_s` what the server asked to wait."""

    def __init__(self, error: GoldpathError, after_s: float = 0) -> None:
        super().__init__(error.line())
        self.error, self.after_s = error, after_s


@dataclass(frozen=True)
class Retry:
    """How long to try and how to pause. `sleep`, `chance` (0 to 1) and `clock` are there for tests."""

    limit_s: float = 120
    """Seconds after which a request that keeps failing is given up."""
    first_limit_s: float = 15
    """The same until the server has answered once: a wrong address should show at once."""
    outage_s: float = 900
    """The same while a wait goes on: a control plane's upgrade takes minutes, and hours of training hang on it."""
    base_s: float = 0.25
    cap_s: float = 10
    poll_s: float = 5
    """Seconds between looks where watching is not permitted."""
    look_s: float = 20
    """Seconds between looks at the pods of an object that is waited for: one that cannot start changes nothing."""
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = field(default=random.SystemRandom().random)
    clock: Callable[[], float] = time.monotonic

    def pause(self, tries: int, at_least: float = 0) -> float:
        """Seconds to wait before the next try, after that many."""
        most: float = min(self.cap_s, self.base_s * 2.0 ** min(tries, 16))
        return max(at_least, self.chance() * most)

    def run(self, action: Callable[[], T], limit_s: float | None = None) -> T:
        """Do it until it raises no `Transient`.

        Raises:
            GoldpathError: what the last `Transient` carried, after the limit.
        """
        limit = self.limit_s if limit_s is None else limit_s
        until, tries = self.clock() + limit, 0
        while True:
            try:
                return action()
            except Transient as again:
                wait = self.pause(tries, again.after_s)
                if self.clock() + wait > until:
                    raise again.error from None
                self.sleep(wait)
                tries += 1
