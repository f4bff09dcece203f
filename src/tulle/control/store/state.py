"""What every embedded store keeps in memory: the objects as JSON bytes, and a bounded log of changes for watches and snapshots.

A store commits first (to disk, where it has one) and hands the committed records to `State.apply`; readers and watchers only
ever see what was committed. Watchers have no queue of their own: each walks the shared log by revision, so that a slow one
costs nothing, and one that fell behind the log is told to list again.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence, Set
from typing import NamedTuple

import msgspec

from tulle.kit.errors import Unavailable
from tulle.ports import Compacted, Conflict, Delete, Event, Future, Key, Put, Stored

encode_body = msgspec.json.Encoder().encode
_SHARED = 256  # events whose decoded bodies are kept for the next watcher


class Record(NamedTuple):
    """One committed change; `body` is None for a delete, `previous` None for a create (its revision is 0 then)."""

    key: Key
    revision: int
    body: bytes | None
    previous: bytes | None
    previous_revision: int
    lease: int = 0


class Row(NamedTuple):
    """An object as it lies in memory; `lease` 0: bound to none."""

    body: bytes
    revision: int
    lease: int = 0


class State:
    """Objects, the revision and the log, as of the last commit. Not a store: it does not survive anything."""

    def __init__(self, log: int) -> None:
        """`log`: how many changes stay available for watches and snapshots, at least."""
        self.revision = 0
        self.compacted = 0  # every change at or below this revision is forgotten
        self._limit = log
        self._objects: dict[str, dict[str, dict[Key, Row]]] = {}  # by resource and namespace
        self._records: list[Record] = []
        self._dropped = 0  # how many records were before the first of these: gives each a number of its own
        self._shared: dict[int, Event] = {}  # by the record's number, oldest first
        self._waiting: dict[str | None, set[asyncio.Future[int]]] = {}  # by what they watch
        self._closed = False

    def load(self, objects: Iterable[tuple[Key, Row]], records: Iterable[Record], revision: int, compacted: int) -> None:
        """Start from what a disk held."""
        for key, row in objects:
            self._table(key)[key] = row
        self._records = list(records)
        self.revision, self.compacted = revision, compacted
        self._prune()

    def replace(self, objects: Iterable[tuple[Key, Row]], revision: int) -> None:
        """Start anew from a list, after changes that nobody saw: watchers of before them are told to list again."""
        self._dropped += len(self._records)
        self._objects.clear()
        self._shared.clear()
        self.load(objects, (), revision, revision)
        for resource in list(self._waiting):
            self._wake(resource, 0)

    def row(self, key: Key) -> Row | None:
        """The object's bytes and revision, or None."""
        return self._objects.get(key.resource, {}).get(key.namespace, {}).get(key)

    def get(self, key: Key) -> Stored | None:
        """As `Store.get`."""
        row = self.row(key)
        return None if row is None else Stored(key, row.body, row.revision, row.lease)

    def list(self, resource: str | None, namespace: str | None, at: int | None) -> tuple[Sequence[Stored], int]:
        """As `Store.list`: nothing of another namespace is touched, and no body decoded."""
        rows = dict(self._rows(resource, namespace))
        if at is not None and at != self.revision:
            if at > self.revision:
                raise Future(at, self.revision)
            for record in reversed(self._after(at)[1]):
                if _among(record.key, resource, namespace):
                    if record.previous is None:
                        rows.pop(record.key, None)
                    else:
                        rows[record.key] = Row(record.previous, record.previous_revision)
        found = sorted(rows.items(), key=lambda item: (item[0].resource, item[0].namespace, item[0].name))
        stored = [Stored(key, row.body, row.revision, row.lease) for key, row in found]
        return stored, self.revision if at is None else at

    def bound(self, lease: int) -> Sequence[Key]:
        """The keys that are bound to a lease."""
        return [key for key, row in self._rows(None, None) if row.lease == lease]

    def apply(self, records: Sequence[Record]) -> None:
        """Take in the records of one or more commits, in order of revision, and wake their watchers."""
        if not records:
            return
        for record in records:
            table = self._table(record.key)
            if record.body is None:
                table.pop(record.key, None)
            else:
                table[record.key] = Row(record.body, record.revision, record.lease)
        before, self.revision = self.revision, records[-1].revision
        self._records.extend(records)
        self._prune()
        for resource in {None, *(record.key.resource for record in records)}:
            self._wake(resource, before)

    def advance(self, revision: int) -> None:
        """There is nothing of the objects in the revisions up to this one."""
        if revision > self.revision:
            before, self.revision = self.revision, revision
            self._wake(None, before)

    async def reach(self, revision: int) -> None:
        """Return once everything up to the revision was taken in; `Unavailable` where the store is closed before."""
        while self.revision < revision:
            await self._change(None)

    def keys(self) -> Set[Key]:
        """Of all objects."""
        return {key for key, _ in self._rows(None, None)}

    def close(self) -> None:
        """End the watches."""
        self._closed = True
        for resource in list(self._waiting):
            self._wake(resource, self.revision)

    async def watch(self, since: int, resource: str | None) -> AsyncGenerator[Event, None]:
        """As `Store.watch`; a closed store ends it with `Unavailable`."""
        at = since
        while True:
            reached = self.revision
            first, records = self._after(at)
            for number, record in enumerate(records, first):
                if resource is None or record.key.resource == resource:
                    yield self._event(number, record)
            at = max(at, reached)
            if self.revision <= at:
                at = max(at, await self._change(resource))

    def _table(self, key: Key) -> dict[Key, Row]:
        return self._objects.setdefault(key.resource, {}).setdefault(key.namespace, {})

    def _rows(self, resource: str | None, namespace: str | None) -> Iterator[tuple[Key, Row]]:
        kinds = self._objects.values() if resource is None else [self._objects.get(resource, {})]
        for kind in kinds:
            for table in kind.values() if namespace is None else [kind.get(namespace, {})]:
                yield from table.items()

    def _after(self, revision: int) -> tuple[int, Sequence[Record]]:
        """The records of later revisions, and the number of the first."""
        if revision < self.compacted:
            raise Compacted(revision, self.compacted)
        start = bisect_right(self._records, revision, key=lambda record: record.revision)
        return self._dropped + start, self._records[start:]

    def _event(self, number: int, record: Record) -> Event:
        """The record's event: the same one for every watcher, so that its bodies are decoded once."""
        event = self._shared.get(number)
        if event is None:
            event = self._shared[number] = Event(record.key, record.revision, record.body, record.previous)
            if len(self._shared) > _SHARED:
                del self._shared[next(iter(self._shared))]
        return event

    async def _change(self, resource: str | None) -> int:
        """Wait for a change of the resource; a revision up to which there was none."""
        if self._closed:
            raise Unavailable("the store is closed")
        changed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(resource, set())
        waiting.add(changed)
        try:
            return await changed
        finally:
            waiting.discard(changed)

    def _wake(self, resource: str | None, before: int) -> None:
        for waiting in self._waiting.get(resource, ()):
            if not waiting.done():
                waiting.set_result(before)

    def _prune(self) -> None:
        """Forget the oldest changes, whole revisions at a time, and not at every write."""
        surplus = len(self._records) - self._limit
        if surplus <= self._limit // 4:
            return
        self.compacted = self._records[surplus - 1].revision
        start = bisect_right(self._records, self.compacted, key=lambda record: record.revision)
        self._records = self._records[start:]
        self._dropped += start


def _among(key: Key, resource: str | None, namespace: str | None) -> bool:
    return resource in (None, key.resource) and namespace in (None, key.namespace)


def recorded(key: Key, revision: int, body: bytes | None, row: Row | None, lease: int = 0) -> Record:
    """The record of a change to what `row` was (None: absent)."""
    return Record(key, revision, body, row.body if row else None, row.revision if row else 0, lease)


def check(operation: Put | Delete, found: int) -> None:
    """Raise `Conflict` where the operation's expectation does not hold for an object at revision `found` (0: absent)."""
    if operation.expect is None:
        return
    if operation.expect != found or (isinstance(operation, Delete) and found == 0):
        raise Conflict(operation.key, operation.expect, found)


def check_distinct(operations: Sequence[Put | Delete]) -> None:
    """A transaction that names one key twice has no meaning: a mistake of the program."""
    if len({operation.key for operation in operations}) != len(operations):
        raise ValueError("a transaction names the same key twice")
