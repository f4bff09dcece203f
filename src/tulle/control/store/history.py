"""What every embedded store keeps in memory: the objects as JSON bytes, and a bounded history of changes for watches.

A store commits first (to disk, where it has one) and hands the committed records to `State.apply`; readers and watchers only
ever see what was committed. Watchers have no queue of their own: each walks the shared history by revision, so that a slow
one costs nothing, and one that fell behind the history is told to list again.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from tulle.kit.errors import Unavailable
from tulle.ports import Compacted, Conflict, Delete, Event, Key, Put, Stored

_decode = msgspec.json.Decoder(dict[str, Any]).decode
encode_body = msgspec.json.Encoder().encode


class Record(NamedTuple):
    """One committed change; `body` is None for a delete, `previous` None for a create."""

    key: Key
    revision: int
    body: bytes | None
    previous: bytes | None


class Row(NamedTuple):
    """An object as it lies in memory."""

    body: bytes
    revision: int


class State:
    """Objects, the revision and the history, as of the last commit. Not a store: it does not survive anything."""

    def __init__(self, history: int) -> None:
        """`history`: how many changes stay available for watches, at least."""
        self.revision = 0
        self.compacted = 0  # every change at or below this revision is forgotten
        self._limit = history
        self._objects: dict[str, dict[Key, Row]] = {}
        self._records: list[Record] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    def load(self, objects: Iterable[tuple[Key, Row]], records: Iterable[Record], revision: int, compacted: int) -> None:
        """Start from what a disk held."""
        for key, row in objects:
            self._objects.setdefault(key.resource, {})[key] = row
        self._records = list(records)
        self.revision, self.compacted = revision, compacted
        self._prune()

    def row(self, key: Key) -> Row | None:
        """The object's bytes and revision, or None."""
        return self._objects.get(key.resource, {}).get(key)

    def get(self, key: Key) -> Stored | None:
        """As `Store.get`; the body is the caller's own copy."""
        row = self.row(key)
        return None if row is None else Stored(key=key, body=_decode(row.body), revision=row.revision)

    def list(self, resource: str | None, namespace: str | None) -> tuple[Sequence[Stored], int]:
        """As `Store.list`."""
        tables = self._objects.values() if resource is None else [self._objects.get(resource, {})]
        found = [
            (key.resource, key.namespace, key.name, key, row)
            for table in tables
            for key, row in table.items()
            if namespace is None or key.namespace == namespace
        ]
        found.sort(key=lambda item: item[:3])
        return [Stored(key=key, body=_decode(row.body), revision=row.revision) for *_, key, row in found], self.revision

    def apply(self, records: Sequence[Record]) -> None:
        """Take in the records of one or more commits, in order of revision, and wake the watchers."""
        for record in records:
            table = self._objects.setdefault(record.key.resource, {})
            if record.body is None:
                table.pop(record.key, None)
            else:
                table[record.key] = Row(record.body, record.revision)
        if records:
            self._records.extend(records)
            self.revision = records[-1].revision
            self._prune()
            self._wake()

    def close(self) -> None:
        """End the watches."""
        self._closed = True
        self._wake()

    async def watch(self, since: int, resource: str | None) -> AsyncGenerator[Event, None]:
        """As `Store.watch`; a closed store ends it with `Unavailable`."""
        at = since
        while True:
            records = self._after(at)
            if records:
                at = records[-1].revision  # records come in whole revisions, so none of this one is left out
            for record in records:
                if resource is None or record.key.resource == resource:
                    yield _event(record)
            if self.revision <= at:
                await self._change()

    def _after(self, revision: int) -> Sequence[Record]:
        if revision < self.compacted:
            raise Compacted(revision, self.compacted)
        return self._records[bisect_right(self._records, revision, key=lambda record: record.revision) :]

    async def _change(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")
        changed = asyncio.get_running_loop().create_future()
        self._waiting.add(changed)
        try:
            await changed
        finally:
            self._waiting.discard(changed)

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _prune(self) -> None:
        """Forget the oldest changes, whole revisions at a time, and not at every write."""
        surplus = len(self._records) - self._limit
        if surplus <= self._limit // 4:
            return
        self.compacted = self._records[surplus - 1].revision
        self._records = self._records[bisect_right(self._records, self.compacted, key=lambda record: record.revision) :]


def _event(record: Record) -> Event:
    return Event(
        key=record.key,
        revision=record.revision,
        body=None if record.body is None else _decode(record.body),
        previous=None if record.previous is None else _decode(record.previous),
    )


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
