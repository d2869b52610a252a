"""Pods that cannot start whatever the time: nothing changes then, and a wait would last until its deadline."""

from __future__ import annotations

import re
import sys

from goldpath.core.errors import StepError
from goldpath.core.kubernetes.diagnosis import Diagnosis
from goldpath.core.kubernetes.refs import Ref


class Stuck:
    """Called again and again while an object is waited for: tells what it waits for, and ends a wait without hope.

    That takes the same twice in a row: a registry may fail for a moment, and a Secret be made a second after the pod
    that names it.
    """

    def __init__(self, ref: Ref, diagnosis: Diagnosis) -> None:
        self._ref, self._diagnosis = ref, diagnosis
        self._before: frozenset[str] = frozenset()
        self._told = ""

    def __call__(self) -> None:
        """Look.

        Raises:
            StepError: it cannot start; `Diagnosis.why` tells the reason.
        """
        found = self._diagnosis.stuck(self._ref)
        if found & self._before:
            raise StepError(f"{self._ref} cannot start", "Mend what it names and run the step again.")
        self._before = found
        why = self._diagnosis.why(self._ref)
        words = re.sub(r"\d+", "", why)  # the same wait, some seconds later
        if why and words != self._told:
            sys.stderr.write(f"{self._ref} waits: {why}\n")
            sys.stderr.flush()
        self._told = words
