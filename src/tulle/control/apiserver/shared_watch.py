"""One look at the store's events for all watchers of the API server: each event is decoded and encoded once, then shared.

    store.watch ──▶ Watches ──(entries of a resource)──▶ Watch, Watch, Watch ...

It starts as far back as the store's own log, and is bounded like it; a watcher that wants more is told to list again.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import AsyncGenerator, Hashable, Sequence

from tulle.kit.errors import TulleError, Unavailable
from tulle.ports import Compacted, Event, Store

_KEPT = 10_000  # events, at least
_IDLE = "_none"  # a resource without objects: listing it gives the store's revision and nothing else


class Entry:
    """An event, and the lines that were made of it, by what they show."""

    __slots__ = ("event", "lines")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.lines: dict[Hashable, bytes] = {}


class _Log:
    """The entries of one resource. `dropped` counts those that are gone from its beginning."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.dropped = 0
        self.changed = asyncio.Event()

    def wake(self) -> None:
        """Let all who wait look again."""
        self.changed.set()
        self.changed.clear()


class Watches:
    """The shared events. They are followed from the first watch on, until the store or the loop ends."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.start = self.position = 0  # what is kept: after `start`, up to `position`
        self.touched = 0.0  # when the last event came, on the loop's clock
        self._logs: dict[str, _Log] = {}
        self._count = 0
        self._failed: TulleError | None = None
        self._following: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Follow the store; returns when `start` is known. Raises `Unavailable` where the store is closed."""
        async with self._opening:
            if self._following is not None and not self._following.done():
                return
            self._logs, self._count, self._failed = {}, 0, None
            events, first = await self._oldest()
            self.position = self.start
            self._following = asyncio.create_task(self._follow(events, first), name="watches")

    async def close(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _oldest(self) -> tuple[AsyncGenerator[Event, None], Event | None]:
        """The store's events from as far back as it has them, and the first of them where there is one already."""
        self.start = 0
        while True:
            current = (await self.store.list(_IDLE))[1]
            events = self.store.watch(self.start)
            assert isinstance(events, AsyncGenerator)
            if current <= self.start:
                return events, None
            try:
                return events, await anext(events)
            except Compacted as error:
                self.start = error.oldest

    async def _follow(self, events: AsyncGenerator[Event, None], first: Event | None) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with contextlib.aclosing(events):
                if first is not None:
                    self._take(first, clock())
                async for event in events:
                    self._take(event, clock())
        except TulleError as error:
            self._failed = error
        finally:
            self._failed = self._failed or Unavailable("the store's events have ended")
            for log in self._logs.values():
                log.wake()

    def _take(self, event: Event, now: float) -> None:
        self.position, self.touched = event.revision, now
        if event.key.resource.startswith("_"):
            return
        log = self._log(event.key.resource)
        log.entries.append(Entry(event))
        self._count += 1
        if self._count > _KEPT + _KEPT // 4:
            self._prune()
        log.wake()

    def _prune(self) -> None:
        """Forget the oldest events, whole revisions at a time."""
        revisions = sorted(entry.event.revision for log in self._logs.values() for entry in log.entries)
        self.start = revisions[len(revisions) - _KEPT - 1]
        self._count = 0
        for log in self._logs.values():
            gone = bisect_right(log.entries, self.start, key=lambda entry: entry.event.revision)
            del log.entries[:gone]
            log.dropped += gone
            self._count += len(log.entries)

    def _log(self, resource: str) -> _Log:
        return self._logs.setdefault(resource, _Log())

    async def after(self, since: int, resource: str) -> AsyncGenerator[Sequence[Entry], None]:
        """What happened to a resource after revision `since`, as it comes, without end.

        Raises `Compacted` where it is no longer kept, and `Unavailable` where the store ends.
        """
        if since < self.start:
            raise Compacted(since, self.start)
        log = self._log(resource)
        place = log.dropped + bisect_right(log.entries, since, key=lambda entry: entry.event.revision)
        while True:
            if place < log.dropped:
                raise Compacted(since, self.start)
            batch = log.entries[place - log.dropped :]
            if batch:
                place += len(batch)
                # The store may have shown a list before its events came here: what that list had is not told again.
                wanted = [entry for entry in batch if entry.event.revision > since]
                if wanted:
                    since = wanted[-1].event.revision
                    yield wanted
            elif self._failed is not None:
                raise self._failed
            else:
                await log.changed.wait()
