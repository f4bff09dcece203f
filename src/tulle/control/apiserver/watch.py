"""Watches: the store's events as a stream of JSON lines, for as long as the client reads.

A watcher is told of objects that come into or go out of its selection as ADDED and DELETED. One that cannot be served from its
resource version is told so (410) and lists again; bookmarks keep an idle one's version fresh.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from tulle.control.apiserver import errors
from tulle.control.apiserver.document import shown
from tulle.control.apiserver.reading import Form, Selection, selected
from tulle.control.apiserver.table import metadata_only, table
from tulle.control.apiserver.target import number
from tulle.kit.errors import TulleError
from tulle.ports import Compacted, Event, Store

Raw = dict[str, Any]

_BOOKMARK = 60.0  # seconds between bookmarks
_LONGEST = 3600.0  # seconds after which a watch ends by itself, so that the client comes again
_IDLE = "_none"  # a resource without objects: listing it gives the store's revision and nothing else


class Watch:
    """One watch. `lines` gives what to send; `open` first says whether it can be served at all."""

    def __init__(self, store: Store, chosen: Selection, query: Mapping[str, str], how: Form) -> None:
        self.store, self.chosen, self.how = store, chosen, how
        self.bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        self.initial = query.get("sendInitialEvents") in ("true", "1")
        if self.initial and query.get("resourceVersionMatch") != "NotOlderThan":
            raise errors.bad_request("sendInitialEvents: needed resourceVersionMatch=NotOlderThan beside it")
        self.since = number(query, "resourceVersion")
        self.listed = self.initial or self.since == 0  # what is there comes first
        self.seconds = min(float(number(query, "timeoutSeconds") or _LONGEST), _LONGEST)
        self.columns = True
        self.first: list[bytes] = []
        self.events: AsyncIterator[Event] | None = None
        self.next: asyncio.Task[Event] | None = None

    async def open(self, now: float) -> None:
        """Take up the store's events. Raises a `Denial` (410) where they are no longer kept."""
        if self.listed:
            found, self.since = await selected(self.store, self.chosen)
            self.first = [self._line("ADDED", item.body, item.revision, now) for item in found]
            if self.initial and self.bookmarks:
                self.first.append(self._bookmark(self.since, {"k8s.io/initial-events-end": "true"}))
        self.events = self.store.watch(self.since, self.chosen.target.kind.resource)
        self._ask()
        assert self.next is not None
        await asyncio.sleep(0)  # the store says at once when it cannot
        if self.next.done() and isinstance(error := self.next.exception(), Compacted):
            raise errors.expired(error.asked, error.oldest)

    def _ask(self) -> None:
        assert self.events is not None
        self.next = asyncio.ensure_future(anext(self.events))

    async def lines(self, clock: Any) -> AsyncGenerator[bytes, None]:
        """What to send, until the time is up or the store ends. `clock()`: seconds since the epoch."""
        loop = asyncio.get_running_loop()
        end, mark, reached = loop.time() + self.seconds, loop.time() + _BOOKMARK, self.since
        for line in self.first:
            yield line
        self.first = []
        while (left := end - loop.time()) > 0:
            assert self.next is not None
            done, _ = await asyncio.wait([self.next], timeout=max(0.0, min(left, mark - loop.time())))
            if done:
                try:
                    event = self.next.result()
                except Compacted as error:
                    yield _error(errors.expired(error.asked, error.oldest).body)
                    return
                except (TulleError, StopAsyncIteration):
                    return  # the server stops; the client comes again
                reached = max(reached, event.revision)
                self._ask()
                if made := self._event(event, clock()):
                    yield made
            if loop.time() >= mark:
                # All events up to what was reached at the last mark have been sent since.
                if self.bookmarks:
                    yield self._bookmark(reached)
                mark = loop.time() + _BOOKMARK
                reached = max(reached, (await self.store.list(_IDLE))[1])

    async def close(self) -> None:
        """Let go of the store's events."""
        if self.next is not None:
            self.next.cancel()
            await asyncio.gather(self.next, return_exceptions=True)
        if isinstance(self.events, AsyncGenerator):
            await self.events.aclose()

    def _event(self, event: Event, now: float) -> bytes | None:
        was = event.previous is not None and self._wanted(event, event.previous)
        is_ = event.body is not None and self._wanted(event, event.body)
        if is_ and event.body is not None:
            return self._line("MODIFIED" if was else "ADDED", event.body, event.revision, now)
        if was and event.previous is not None:
            return self._line("DELETED", event.body or event.previous, event.revision, now)
        return None

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
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
