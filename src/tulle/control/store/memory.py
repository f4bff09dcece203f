"""The store that forgets: for tests, and for a control plane whose objects live elsewhere. Same behaviour as `sqlite.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence

from tulle.control.store import history
from tulle.control.store.leases import Leases
from tulle.control.store.state import State, check, check_distinct, encode_body, recorded
from tulle.kit.errors import Unavailable
from tulle.ports import Cause, Change, Clock, Compacted, Delete, Event, Key, Put, Stored


class MemoryStore:
    """`ports.Store` in memory.

    `log`: how many changes stay available for watches and snapshots; `kept`: how many the history has at most; `clock` counts
    the leases.
    """

    def __init__(self, *, log: int = 5000, kept: int = history.COUNT, clock: Clock | None = None) -> None:
        self._state = State(log)
        self._history: deque[Change] = deque()  # the newest first
        self._kept = kept
        self._forgotten = 0  # the newest revision of which the history has forgotten something
        self._leases = Leases(self._end, clock)
        self._closed = False

    async def get(self, key: Key) -> Stored | None:
        """The object, or None."""
        return self._state.get(key)

    async def list(
        self, resource: str | None = None, namespace: str | None = None, *, at: int | None = None
    ) -> tuple[Sequence[Stored], int]:
        """The objects, sorted by key, and the revision at which this list holds; raises `Compacted`, `Future`."""
        return self._state.list(resource, namespace, at)

    async def write(self, operations: Sequence[Put | Delete], cause: Cause | None = None) -> int:
        """All operations at one new revision, or none: raises `Conflict`. Without any change, the current revision."""
        if self._closed:
            raise Unavailable("the store is closed")
        check_distinct(operations)
        self._leases.check(operations)
        return self._write(operations, cause)

    def watch(self, since: int, resource: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event after revision `since`, in order, without end; raises `Compacted`."""
        return self._state.watch(since, resource)

    async def history(
        self,
        *,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        since: int = 0,
        limit: int = 0,
    ) -> Sequence[Change]:
        """The changes with a cause, the newest first; raises `Compacted` where `since` is older than what is kept."""
        if 0 < since < self._forgotten:
            raise Compacted(since, self._forgotten)
        found = [
            change for change in self._history if change.revision > since and history.among(change.key, resource, namespace, name)
        ]
        return found[:limit] if limit else found

    async def forget(self, before: float) -> int:
        """Drop the history of before that time; how many changes that were."""
        old = [change for change in self._history if change.cause.time < before]
        self._history = deque(change for change in self._history if change.cause.time >= before)
        self._forgotten = max([self._forgotten, *(change.revision for change in old)])
        return len(old)

    async def grant(self, seconds: float) -> int:
        """A new lease."""
        return await self._leases.grant(seconds)

    async def renew(self, lease: int) -> None:
        """Keep the lease alive. Raises `LeaseLost`."""
        await self._leases.renew(lease)

    async def revoke(self, lease: int) -> None:
        """End the lease and delete what is bound to it."""
        await self._leases.revoke(lease)

    async def close(self) -> None:
        """End the watches; later writes raise `Unavailable`."""
        self._closed = True
        await self._leases.close()
        self._state.close()

    async def _end(self, lease: int) -> None:
        self._write([Delete(key) for key in self._state.bound(lease)], None)

    def _write(self, operations: Sequence[Put | Delete], cause: Cause | None) -> int:
        rows = [self._state.row(operation.key) for operation in operations]
        for operation, row in zip(operations, rows, strict=True):
            check(operation, row.revision if row else 0)
        revision = self._state.revision + 1
        records = [
            recorded(operation.key, revision, encode_body(operation.body), row, operation.lease)
            if isinstance(operation, Put)
            else recorded(operation.key, revision, None, row)
            for operation, row in zip(operations, rows, strict=True)
            if isinstance(operation, Put) or row
        ]
        self._state.apply(records)
        if cause is not None:
            for record in reversed(records):
                if history.kept(record.key):
                    event = Event(record.key, revision, record.body, record.previous)
                    self._history.appendleft(Change(record.key, revision, event.previous, event.body, cause))
            while len(self._history) > self._kept:
                self._forgotten = max(self._forgotten, self._history.pop().revision)
        return self._state.revision
