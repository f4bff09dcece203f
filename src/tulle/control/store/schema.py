"""The SQLite file of `sqlite.py`: its tables, how it is made, checked, and read at start.

Tables: `objects` (what is), `events` (the latest changes, for watches across restarts), `meta` (one row: the revision, and the
revision up to which events were forgotten). `application_id` says that the file is ours, `user_version` which schema it has.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tulle.control.store.history import Record, Row
from tulle.kit.errors import Corrupt, Refused, TulleError, Unavailable
from tulle.ports import Key

VERSION = 1
_APPLICATION = 0x74756C6C  # "tull"

_TABLES = """
CREATE TABLE objects (
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE events (
  revision INTEGER NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB, previous BLOB
);
CREATE INDEX events_by_revision ON events (revision);
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, compacted INTEGER NOT NULL);
INSERT INTO meta VALUES (1, 0, 0);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """The file's one connection, after it was made or checked. Raises `Corrupt`, `Refused` or `Unavailable`."""
    log = path.with_name(path.name + "-wal")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
        new = path.stat().st_size == 0
        logged = log.exists() and log.stat().st_size > 0
    except OSError as error:
        raise Unavailable(
            f"the store {path} cannot be opened: {error.strerror}", hint="check the folder and its owner"
        ) from error
    if new and logged:
        # SQLite would take the file for a new one and drop the log, and with it whatever the log still holds.
        raise _corrupt(path, "it is empty although its log is not")
    try:
        return _connect(path, new=new)
    except sqlite3.Error as error:
        raise _wrapped(path, error) from error


def _connect(path: Path, *, new: bool) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # a second control plane on this file is refused
        database.execute("PRAGMA synchronous = FULL")
        if new:
            _create(database, path)
        else:
            _check(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN EXCLUSIVE")  # takes the lock now and not at the first write
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _create(database: sqlite3.Connection, path: Path) -> None:
    """All in one transaction of the rollback journal: after a crash the file is empty or complete."""
    database.executescript(
        f"BEGIN EXCLUSIVE; {_TABLES} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
    )
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name, too, survives a power loss
    finally:
        os.close(folder)


def _check(database: sqlite3.Connection, path: Path) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION:
        raise _corrupt(path, "it is a database, but not one of tulle's")
    if version > VERSION:
        raise Refused(
            f"the store {path} has schema {version}; this tulle knows {VERSION}",
            hint="use the tulle that wrote it, or a later one",
        )
    found = [row[0] for row in database.execute("PRAGMA integrity_check(10)")]
    if found != ["ok"]:
        raise _corrupt(path, "; ".join(found))


def load(database: sqlite3.Connection, path: Path) -> tuple[list[tuple[Key, Row]], list[Record], int, int]:
    """Everything: objects, events, the revision, and up to where events were forgotten. Raises `Corrupt`."""
    try:
        revision, compacted = database.execute("SELECT revision, compacted FROM meta").fetchone()
        objects = [
            (Key(resource, namespace, name), Row(_text(body), at))
            for resource, namespace, name, at, body in database.execute("SELECT * FROM objects")
        ]
        events = "SELECT revision, resource, namespace, name, body, previous FROM events ORDER BY revision, rowid"
        records = [
            Record(Key(resource, namespace, name), at, body and _text(body), previous and _text(previous))
            for at, resource, namespace, name, body, previous in database.execute(events)
        ]
        if any(row.revision > revision for _, row in objects):
            raise _corrupt(path, f"an object is newer than the store's revision {revision}")
    except (sqlite3.Error, msgspec.DecodeError, TypeError, ValueError) as error:
        raise _corrupt(path, str(error)) from error
    return objects, records, revision, compacted


def _text(body: bytes) -> bytes:
    """The same bytes, after making sure that they are an object's JSON."""
    msgspec.json.decode(body, type=dict)
    return body


def find(database: sqlite3.Connection, key: Key) -> Row | None:
    """The object at the key, inside the current transaction."""
    row = database.execute(
        "SELECT body, revision FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
        (key.resource, key.namespace, key.name),
    ).fetchone()
    return Row(*row) if row else None


def save(database: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Write changes and their events, inside the current transaction."""
    for key, at, body, previous in records:
        where = (key.resource, key.namespace, key.name)
        if body is None:
            database.execute("DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", where)
        else:
            database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (*where, at, body))
        database.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", (at, *where, body, previous))


def set_revision(database: sqlite3.Connection, revision: int) -> None:
    """Move the store's revision, inside the current transaction."""
    database.execute("UPDATE meta SET revision = ?", (revision,))


def revision(database: sqlite3.Connection) -> int:
    """The store's revision as the file has it."""
    found: int = database.execute("SELECT revision FROM meta").fetchone()[0]
    return found


def forget(database: sqlite3.Connection, compacted: int) -> None:
    """Drop the events up to a revision, inside the current transaction."""
    database.execute("DELETE FROM events WHERE revision <= ?", (compacted,))
    database.execute("UPDATE meta SET compacted = ?", (compacted,))


def _corrupt(path: Path, why: str) -> Corrupt:
    return Corrupt(
        f"the store {path} is damaged: {why}",
        hint=f"nothing was changed; restore {path.name} (and {path.name}-wal) from a copy, or move them away to start empty",
    )


def _wrapped(path: Path, error: sqlite3.Error) -> TulleError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Refused(f"the store {path} is in use by another process", hint="one control plane at a time: stop the other one")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return Unavailable(f"the store {path} cannot be opened: {error}", hint="check the disk's space and the file's owner")
    return _corrupt(path, str(error))
