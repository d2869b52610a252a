"""Follows one object: list, then watch, through closed and broken connections, until a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from goldpath.core.errors import GoldpathError, StepError
from goldpath.core.kubernetes.api import READ_S, Api
from goldpath.core.kubernetes.errors import Answer, ClusterError, explain, remedy_for
from goldpath.core.kubernetes.kinds import Kinds
from goldpath.core.kubernetes.refs import Object, Ref
from goldpath.core.kubernetes.retry import Transient

_ANEW = 5
"""Broken watches after which to look anew, which tells a server that is away from a watch that is."""
WINDOW_S = 60
"""Seconds that one watch lasts: a connection that died without a word is noticed by then."""
T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """A state of the object (None: there is none) and from which version on to watch."""

    thing: Object | None
    version: str


@dataclass
class _Way:
    """How an object is followed: what the server permits, and how often in a row it failed."""

    watchable: bool = True
    listable: bool = True
    tries: int = 0
    look: Callable[[], None] | None = None
    looked: float = 0


class Watching:
    """States of one object as they come."""

    def __init__(self, api: Api, kinds: Kinds) -> None:
        self._api, self._kinds, self._clock = api, kinds, api.retry.clock

    def states(
        self, ref: Ref, until: float, look: Callable[[], None] | None = None
    ) -> Iterator[Object | None]:
        """Each state of the object, the present one first; it ends when the clock shows `until`.

        The same state may come twice, and of several in short order only the last. `look` is called every `look_s`
        seconds, whether there is news or not.
        """
        way = _Way(look=look, looked=self._clock())
        while self._clock() < until:
            try:
                seen = self._now(ref, way.listable, min(self._api.retry.outage_s, until - self._clock()))
            except ClusterError as error:
                if error.status not in (403, 405) or not way.listable:
                    raise
                way.listable = way.watchable = False
                continue
            yield seen.thing
            self._look(way)
            if way.watchable:
                yield from self._changes(ref, seen.version, way, until)
            if way.watchable:
                self._rest(way, until)
            else:
                self._api.retry.sleep(max(0.0, min(self._api.retry.poll_s, until - self._clock())))

    def _changes(self, ref: Ref, version: str, way: _Way, until: float) -> Iterator[Object | None]:
        """What a watch tells from that version on, and the next where one closed, until only a new look helps."""
        while self._clock() < until:
            began, window = self._clock(), WINDOW_S if way.look is None else self._api.retry.look_s
            try:
                for seen in self._events(ref, version, min(window, until - began)):
                    version, way.tries = seen.version, 0
                    if seen.thing is not BOOKMARK:
                        yield seen.thing
                    self._look(way)
            except Transient as again:
                self._rest(way, until, again.after_s)
                if way.tries % _ANEW == 0:
                    return
            except ClusterError as error:
                if error.status in (403, 405):
                    way.watchable = False
                elif error.status != 410:
                    raise
                return  # Gone: what happened since then is no longer told
            else:
                self._look(way)
                if self._clock() - began < 1:  # a server that closes at once is not asked in a busy loop
                    self._rest(way, until)

    def _look(self, way: _Way) -> None:
        if way.look is not None and self._clock() - way.looked >= self._api.retry.look_s:
            way.look()
            way.looked = self._clock()

    def _rest(self, way: _Way, until: float, at_least: float = 0) -> None:
        pause = self._api.retry.pause(way.tries, at_least)
        self._api.retry.sleep(max(0.0, min(pause, until - self._clock())))
        way.tries += 1

    def _now(self, ref: Ref, listable: bool, limit_s: float) -> Seen:
        resource, doing = self._kinds.of(ref), f"watch {ref}"
        if not listable:
            try:
                path = resource.path(ref.namespace, ref.name)
                return Seen(self._api.call("GET", path, doing, limit_s=limit_s), "")
            except ClusterError as error:
                if error.status == 404:
                    return Seen(None, "")
                raise
        query = [("fieldSelector", f"metadata.name={ref.name}")]
        listed = self._api.call("GET", resource.path(ref.namespace), doing, query=query, limit_s=limit_s)
        items = listed.get("items") or []
        thing = {"apiVersion": ref.api_version, "kind": ref.kind, **items[0]} if items else None
        return Seen(thing, (listed.get("metadata") or {}).get("resourceVersion", ""))

    def _events(self, ref: Ref, version: str, window_s: float) -> Iterator[Seen]:
        window = max(1, int(window_s))
        query = [
            ("watch", "true"),
            ("fieldSelector", f"metadata.name={ref.name}"),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(window)),
        ]
        path, doing = self._kinds.of(ref).path(ref.namespace), f"watch {ref}"
        for event in self._api.events(path, doing, query, window + READ_S / 2):
            thing = event.get("object") or {}
            if event.get("type") == "ERROR":
                code = int(thing.get("code") or 500)
                error = explain(
                    Answer(code, thing.get("reason", ""), thing.get("message", "")),
                    doing,
                    self._api.connection.host,
                )
                raise (Transient(error) if code >= 500 or code == 429 else error)
            told = (thing.get("metadata") or {}).get("resourceVersion", version)
            if event.get("type") == "BOOKMARK":
                yield Seen(BOOKMARK, told)
            else:
                yield Seen(None if event.get("type") == "DELETED" else thing, told)

    def wait(
        self,
        ref: Ref,
        judge: Callable[[Object], T | None],
        deadline_s: float,
        on_change: Callable[[Object], None] | None = None,
        look: Callable[[], None] | None = None,
    ) -> T:
        """The first verdict of `judge` that is not None; `look` may end the wait by an error (see `states`).

        Raises:
            StepError: there is no such object (any more), or no verdict in time.
            GoldpathError: what `judge` or `look` raises.
        """
        last: Object | None = None
        for thing in self.states(ref, self._clock() + deadline_s, look):
            if thing is None:
                raise StepError(f"{ref} was removed while the step waited for it", "Run the step again.")
            if on_change is not None and thing != last:
                on_change(thing)
            last = thing
            if (verdict := judge(thing)) is not None:
                return verdict
        raise StepError(
            f"{ref} did not get there within {_span(deadline_s)}{_doing(last)}",
            "Give it more time, or look at what it waits for.",
        )

    def gone(self, ref: Ref, uid: str, wait_s: float) -> None:
        """Wait until the object of that uid has gone.

        Raises:
            StepError: it is still there after `wait_s` seconds.
        """
        held: list[str] = []
        for thing in self.states(ref, self._clock() + wait_s):
            if thing is None or thing["metadata"]["uid"] != uid:
                return
            held = thing["metadata"].get("finalizers") or []
        keeps = f": {', '.join(held)} holds it" if held else ""
        raise StepError(
            f"{ref} is still being deleted after {_span(wait_s)}{keeps}",
            "Check that its controller runs; it removes the finalizer.",
        )


BOOKMARK: Object = {"kind": "Bookmark"}


def _doing(thing: Object | None) -> str:
    """The last thing that its conditions say."""
    conditions = [c for c in ((thing or {}).get("status") or {}).get("conditions") or [] if c.get("type")]
    if not conditions:
        return ""
    last = max(conditions, key=lambda c: c.get("lastTransitionTime") or "")
    return f" (last: {last['type']} {last.get('status', '')} {last.get('reason', '')})".replace(" )", ")")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def explained(error: GoldpathError, why: str) -> GoldpathError:
    """The error with the reason that was dug out, once."""
    if not why or why in error.message:
        return error
    return type(error)(f"{error.message}: {why}", remedy_for(why) or error.remedy)
