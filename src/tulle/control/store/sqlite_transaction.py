"""One database transaction of `sqlite.py`'s writer thread: many writes, each with its revision, and few statements.

Every statement lets go of the interpreter and has to get it back from a busy event loop. So what stands is looked up in memory,
which holds what is on disk, and the changes go to the disk together: nearly always in one statement.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

from tulle.control.store import history, schema
from tulle.control.store.state import Record, Row, State
from tulle.ports import Cause, Key


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
    """What stands, and what was changed; changes are on disk after `commit`."""

    def __init__(self, database: sqlite3.Connection, ahead: Ahead) -> None:
        self._database, self._ahead = database, ahead
        self._changed: dict[Key, Record] = {}
        self._waiting: list[schema.Noted] = []
        self._begun = False

    def find(self, key: Key) -> Row | None:
        """The object at the key, as it is after the changes so far."""
        record = self._changed.get(key)
        return self._ahead.find(key) if record is None else row_after(record)

    def save(self, records: Sequence[Record], cause: Cause | None = None) -> int:
        """Take changes in, and with a cause their history; by how many changes that grows."""
        noted = 0
        for record in records:
            said = cause if history.kept(record.key) else None
            self._waiting.append((record, said))
            self._changed[record.key] = record
            noted += said is not None
        return noted

    def flush(self) -> sqlite3.Connection:
        """Hand the changes to the database, in a transaction; the database, for what has to be asked of itself."""
        if not self._begun:
            self._database.execute("BEGIN IMMEDIATE")
            self._begun = True
        schema.save(self._database, self._waiting)
        self._waiting = []
        return self._database

    def commit(self) -> None:
        """All that was changed, on disk."""
        if self._begun or len(self._waiting) > schema.ROWS:
            self.flush().execute("COMMIT")
        else:
            schema.save(self._database, self._waiting)


def row_after(record: Record) -> Row | None:
    """The object as the change left it."""
    return None if record.body is None else Row(record.body, record.revision, record.lease)
