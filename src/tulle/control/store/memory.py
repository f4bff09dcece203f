"""The store that forgets: for tests, and for a control plane whose objects live elsewhere. Same behaviour as `sqlite.py`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from tulle.control.store.history import Record, State, check, check_distinct, encode_body
from tulle.kit.errors import Unavailable
from tulle.ports import Delete, Event, Key, Put, Stored


class MemoryStore:
    """`ports.Store` in memory. `history`: how many changes stay available for watches."""

    def __init__(self, *, history: int = 5000) -> None:
        self._state = State(history)
        self._closed = False

    async def get(self, key: Key) -> Stored | None:
        """The object, or None."""
        return self._state.get(key)

    async def list(self, resource: str | None = None, namespace: str | None = None) -> tuple[Sequence[Stored], int]:
        """The objects, sorted by key, and the revision at which this list holds."""
        return self._state.list(resource, namespace)

    async def write(self, operations: Sequence[Put | Delete]) -> int:
        """All operations at one new revision, or none: raises `Conflict`. Without any change, the current revision."""
        if self._closed:
            raise Unavailable("the store is closed")
        check_distinct(operations)
        revision = self._state.revision + 1
        records: list[Record] = []
        for operation in operations:
            row = self._state.row(operation.key)
            check(operation, row.revision if row else 0)
            previous = row.body if row else None
            if isinstance(operation, Put):
                records.append(Record(operation.key, revision, encode_body(operation.body), previous))
            elif previous is not None:
                records.append(Record(operation.key, revision, None, previous))
        self._state.apply(records)
        return self._state.revision

    def watch(self, since: int, resource: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event after revision `since`, in order, without end; raises `Compacted`."""
        return self._state.watch(since, resource)

    async def close(self) -> None:
        """End the watches; later writes raise `Unavailable`."""
        self._closed = True
        self._state.close()
