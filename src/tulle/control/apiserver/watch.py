"""A watch: the events of a selection as JSON lines, for as long as the client reads.

A watcher is told of objects that come into or go out of its selection as ADDED and DELETED. One that cannot be served from its
resource version is told so (410) and lists again; bookmarks keep an idle one's version fresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from tulle.control.apiserver import errors, listing_options
from tulle.control.apiserver.document import shown
from tulle.control.apiserver.negotiation import Form, encode
from tulle.control.apiserver.reading import Selection, reached, selected
from tulle.control.apiserver.shared_watch import Entry, Watches
from tulle.control.apiserver.table import metadata_only, table
from tulle.kit.errors import TulleError
from tulle.ports import Compacted, Event

Raw = dict[str, Any]
Write = Callable[[bytes], Awaitable[None]]

_BOOKMARK = 60.0  # seconds between bookmarks
_SETTLED = 1.0  # seconds without an event after which all of a revision has come
_SHORTEST = 1800.0  # seconds that a watch lasts, at least, where the client does not say; up to twice that


class Watch:
    """One watch. `open` says whether it can be served at all, `run` serves it."""

    def __init__(self, shared: Watches, chosen: Selection, query: Mapping[str, str], how: Form) -> None:
        self.shared, self.chosen, self.how = shared, chosen, how
        self.options = listing_options.watching(query)
        # Not all at once: they come again together.
        self.seconds = self.options.seconds or _SHORTEST * (1 + random.random())  # noqa: S311
        self.columns = True
        self.since = 0
        self.first: list[bytes] = []
        self.events: AsyncGenerator[Sequence[Entry], None] | None = None

    async def open(self, now: float) -> None:
        """Take up the events. Raises a `Denial` where the resource version is one of the future."""
        store, options = self.shared.store, self.options
        await self.shared.open()
        if options.since is not None:
            await reached(store, options.since)
        self.since = options.since or 0
        if options.state:
            found, self.since = await selected(store, self.chosen)
            self.first = [self._line("ADDED", item.body, item.revision, now) for item in found]
            if options.marked:
                self.first.append(self._bookmark(self.since, {"k8s.io/initial-events-end": "true"}))
        elif options.since is None:
            _, self.since = await selected(store, self.chosen)
        self.events = self.shared.after(self.since, self.chosen.target.kind.resource)

    async def run(self, write: Write, clock: Callable[[], float]) -> None:
        """Send until the time is up or the store ends. `clock`: seconds since the epoch."""
        assert self.events is not None
        if self.first:
            await write(b"".join(self.first))
            self.first = []
        marks = asyncio.create_task(self._marks(write)) if self.options.bookmarks else None
        limit = asyncio.timeout(self.seconds)
        try:
            async with limit, contextlib.aclosing(self.events) as events:
                async for batch in events:
                    now = clock()
                    if data := b"".join(line for entry in batch if (line := self._event(entry, now))):
                        await write(data)
                    self.since = batch[-1].event.revision
        except Compacted as error:
            await write(_error(errors.expired(error.asked, error.oldest).body))
        except TulleError:
            return  # the server stops; the client comes again
        except TimeoutError:
            if not limit.expired():
                raise
            if self.options.bookmarks:
                await self._mark(write)
        finally:
            if marks is not None:
                marks.cancel()
                await asyncio.gather(marks, return_exceptions=True)

    async def _marks(self, write: Write) -> None:
        while True:
            await asyncio.sleep(_BOOKMARK)
            await self._mark(write)

    async def _mark(self, write: Write) -> None:
        """A bookmark at the newest revision, where nothing is under way."""
        if asyncio.get_running_loop().time() - self.shared.touched >= _SETTLED:
            await write(self._bookmark(max(self.since, self.shared.position)))

    def _event(self, entry: Entry, now: float) -> bytes | None:
        event = entry.event
        was = event.previous is not None and self._wanted(event, event.previous)
        is_ = event.body is not None and self._wanted(event, event.body)
        if not was and not is_:
            return None
        kind = "MODIFIED" if was and is_ else "ADDED" if is_ else "DELETED"
        target = self.chosen.target
        shows = (kind, target.version, self.how.kind, self.how.include, self.columns)
        line = entry.lines.get(shows)
        if line is None:
            body = event.body or event.previous
            assert body is not None
            line = entry.lines[shows] = self._line(kind, body, event.revision, now)
        self.columns = False
        return line

    def _wanted(self, event: Event, body: Raw) -> bool:
        chosen = self.chosen
        if chosen.target.namespace and event.key.namespace != chosen.target.namespace:
            return False
        return (not chosen.name or event.key.name == chosen.name) and chosen.test(body)

    def _line(self, kind: str, body: Raw, revision: int, now: float) -> bytes:
        item = shown(self.chosen.target, body, revision)
        if self.how.kind == "Table":
            metadata = {"resourceVersion": str(revision)}
            whole = self.chosen.target.kind
            item = table(whole, [item], now, metadata=metadata, include=self.how.include, columns=self.columns)
            self.columns = False
        elif self.how.kind:
            item = metadata_only(item)
        return _encoded({"type": kind, "object": item})

    def _bookmark(self, revision: int, annotations: Mapping[str, str] | None = None) -> bytes:
        target = self.chosen.target
        metadata: Raw = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = dict(annotations)
        item: Raw = {"kind": target.kind.kind, "apiVersion": target.api_version, "metadata": metadata}
        if self.how.kind == "Table":
            row = {"cells": [], "object": metadata_only(item)}
            item = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(revision)}}
            item |= {"columnDefinitions": [], "rows": [row]}
        elif self.how.kind:
            item = metadata_only(item)
        return _encoded({"type": "BOOKMARK", "object": item})


def _error(status: Raw) -> bytes:
    return _encoded({"type": "ERROR", "object": status})


def _encoded(event: Raw) -> bytes:
    return encode(event) + b"\n"
