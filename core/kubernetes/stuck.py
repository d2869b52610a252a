"""Pods that cannot start whatever the time: nothing changes then, and a wait would last until its deadline."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from goldpath.core.errors import StepError
from goldpath.core.kubernetes.diagnosis import Diagnosis
from goldpath.core.kubernetes.refs import Ref

PATIENCE_S = 300
"""Seconds that a pull may fail for another reason than that the image is not there, or for none that is told."""
GAP_S = 60
"""Seconds at most that count between two looks: while the API server was away, nobody saw."""


class _Seen(NamedTuple):
    lasts: bool | None
    """Whether it lasts until somebody mends it: what was said last, for a back-off does not repeat it."""
    stood_s: float


class Stuck:
    """Called again and again while an object is waited for: tells what it waits for, and ends a wait without hope.

    That takes the same twice in a row: a Secret may be made a second after the pod that names it. Where a registry
    is away, or it is not told what it said, it takes minutes.
    """

    def __init__(self, ref: Ref, diagnosis: Diagnosis, clock: Callable[[], float] = time.monotonic) -> None:
        self._ref, self._diagnosis, self._clock = ref, diagnosis, clock
        self._before: dict[str, _Seen] = {}
        self._looked = clock()
        self._told = ""

    def __call__(self) -> None:
        """Look.

        Raises:
            StepError: it cannot start; `Diagnosis.why` tells the reason.
        """
        found = self._diagnosis.stuck(self._ref)
        now = self._clock()
        gap, self._looked = min(now - self._looked, GAP_S), now
        seen: dict[str, _Seen] = {}
        for what, lasts in found.items():
            before = self._before.get(what)
            if before is None:
                seen[what] = _Seen(lasts, 0)
                continue
            seen[what] = _Seen(before.lasts if lasts is None else lasts, before.stood_s + gap)
            if (before.lasts and seen[what].lasts) or seen[what].stood_s >= PATIENCE_S:
                raise StepError(f"{self._ref} cannot start", "Mend what it names and run the step again.")
        self._before = seen
        why = self._diagnosis.why(self._ref)
        words = re.sub(r"\d+", "", why)  # the same wait, some seconds later
        if why and words != self._told:
            sys.stderr.write(f"{self._ref} waits: {why}\n")
            sys.stderr.flush()
        self._told = words
