"""Removes what a step made when the step is cancelled or fails."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from goldpath.core.errors import GoldpathError, InputError
from goldpath.core.kubernetes.refs import Object, Ref

GRACE_S = 15
"""Seconds for the requests of one removal: a pod has 30 until it is killed."""


class Children:
    """What was made in a `Cluster.children` block, the latest last."""

    def __init__(self) -> None:
        self._made: dict[Ref, bool] = {}

    def expect(self, ref: Ref) -> None:
        """It is about to be created: from here on it may exist, whatever becomes of the answer."""
        self._made.setdefault(ref, False)

    def have(self, ref: Ref, thing: Object | None) -> None:
        """It was created (or adopted), or was not ours (None)."""
        if thing is None:
            self._made.pop(ref, None)
        else:
            self._made[ref] = True

    def keep(self, ref: Ref) -> None:
        """It may outlive the step."""
        for known in list(self._made):
            if ref.within(ref.namespace or known.namespace) == known:
                del self._made[known]

    def __iter__(self) -> Iterator[Ref]:
        return iter(list(self._made))

    def remove(self, remove: Callable[[Ref], bool], pause: Callable[[float], None]) -> list[str]:
        """Remove them, the latest first, and say what could not be.

        A creation whose answer never came may still take effect: those are looked for once more.
        """
        failed = []
        unsure = [ref for ref, known in self._made.items() if not known]
        for ref in reversed(list(self._made)):
            try:
                remove(ref)
            except InputError:  # somebody else's by now
                continue
            except GoldpathError as error:
                failed.append(error.message)
        if unsure:
            pause(0.5)
            for ref in unsure:
                with contextlib.suppress(GoldpathError):
                    remove(ref)
        self._made.clear()
        return failed


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A second SIGTERM or Ctrl-C does not end the cleaning; a kill does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
