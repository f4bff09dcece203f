"""One database transaction of `sqlite.py`'s writer thread: many writes, each with its revision, and few statements.

Every statement lets go of the interpreter and has to get it back from a busy event loop. So what stands is looked up in memory,
which holds what is on disk, and the changes go to the disk together, a statement a table.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

from tulle.control.store import history, schema
from tulle.control.store.state import Record, Row, State
from tulle.ports import Cause, Key

Noted = tuple[Record, Cause]


class Ahead:
    """What the writer thread has committed and the event loop has not taken into the `State` yet."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._records: dict[Key, Record] = {}
        self._lock = threading.Lock()

    def find(self, key: Key) -> Row | None:
        """The object as the disk has it. For the writer thread."""
        record = self._records.get(key)  # first: the state is changed before a record goes from here
        return self._state.row(key) if record is None else row_after(record)

    def committed(self, records: Sequence[Record]) -> None:
        """They are on disk. For the writer thread."""
        with self._lock:
            self._records.update((record.key, record) for record in records)

    def visible(self, records: Sequence[Record]) -> None:
        """The state has them. For the event loop."""
        with self._lock:
            for record in records:
                if self._records.get(record.key) is record:
                    del self._records[record.key]


class Transaction:
    """Between BEGIN and COMMIT: what stands, and what was changed. Changes are on disk after `flush` and the COMMIT."""

    def __init__(self, database: sqlite3.Connection, ahead: Ahead) -> None:
        self._database, self._ahead = database, ahead
        self._changed: dict[Key, Record] = {}
        self._records: list[Record] = []
        self._history: list[Noted] = []

    def find(self, key: Key) -> Row | None:
        """The object at the key, as it is after the changes so far."""
        record = self._changed.get(key)
        return self._ahead.find(key) if record is None else row_after(record)

    def save(self, records: Sequence[Record], cause: Cause | None = None) -> int:
        """Take changes in, and with a cause their history; by how many changes that grows."""
        noted = [(record, cause) for record in records if cause is not None and history.kept(record.key)]
        self._records += records
        self._history += noted
        self._changed.update((record.key, record) for record in records)
        return len(noted)

    def flush(self) -> sqlite3.Connection:
        """Hand the changes to the database; the database, for what has to be asked of itself."""
        if self._records:
            schema.save(self._database, self._records, self._history)
            self._records, self._history = [], []
        return self._database


def row_after(record: Record) -> Row | None:
    """The object as the change left it."""
    return None if record.body is None else Row(record.body, record.revision, record.lease)
