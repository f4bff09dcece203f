"""The SQLite file of `sqlite.py`: its tables, how it is made, migrated, checked, and read at start.

Tables: `objects` (what is), `events` (the latest changes, for watches and snapshots, also across restarts), `history` (who
changed what, for people; read on demand only), `meta` (one row: the revision, and the revisions up to which events and history
were forgotten). `application_id` says that the file is ours, `user_version` which schema it has.

A second process is kept out by a lock on a file beside the store, not by SQLite's exclusive mode: that would keep out this
process' own reader of the history, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from tulle.control.store.state import Record, Row, recorded
from tulle.kit.errors import Corrupt, Refused, TulleError, Unavailable
from tulle.ports import Cause, Change, Event, Key

Noted = tuple[Record, Cause | None]  # a change, and its cause where it belongs into the history

VERSION = 2
ROWS = 64  # changes in one statement, at most
_APPLICATION = 0x74756C6C  # "tull"

_EVENTS_AND_HISTORY = """
CREATE TABLE events (
  revision INTEGER NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  previous_revision INTEGER NOT NULL, body BLOB, previous BLOB
);
CREATE INDEX events_by_revision ON events (revision);
CREATE TABLE history (
  revision INTEGER NOT NULL, time REAL NOT NULL, author TEXT NOT NULL, address TEXT NOT NULL, verb TEXT NOT NULL,
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, previous BLOB, body BLOB
);
CREATE INDEX history_by_revision ON history (revision);
CREATE INDEX history_by_time ON history (time);
CREATE INDEX history_by_object ON history (resource, namespace, name, revision);
CREATE INDEX objects_by_lease ON objects (lease) WHERE lease != 0;
"""
_TABLES = """
CREATE TABLE objects (
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL,
  lease INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, compacted INTEGER NOT NULL,
  forgotten INTEGER NOT NULL DEFAULT 0
);
INSERT INTO meta VALUES (1, 0, 0, 0);
"""
# Of the connection that writes: a change goes to all tables with one INSERT. Every statement lets go of the interpreter and has
# to get it back from a busy event loop; so many changes are one statement, which is a transaction, too.
_CHANGES = """
CREATE TEMP VIEW changes AS
  SELECT revision, resource, namespace, name, previous_revision, previous, body, 0 AS lease,
    NULL AS time, NULL AS author, NULL AS address, NULL AS verb
  FROM events;
CREATE TEMP TRIGGER change INSTEAD OF INSERT ON changes BEGIN
  DELETE FROM objects WHERE new.body IS NULL AND resource = new.resource AND namespace = new.namespace AND name = new.name;
  INSERT OR REPLACE INTO objects (resource, namespace, name, revision, body, lease)
    SELECT new.resource, new.namespace, new.name, new.revision, new.body, new.lease WHERE new.body IS NOT NULL;
  INSERT INTO events (revision, resource, namespace, name, previous_revision, body, previous)
    VALUES (new.revision, new.resource, new.namespace, new.name, new.previous_revision, new.body, new.previous);
  INSERT INTO history (revision, time, author, address, verb, resource, namespace, name, previous, body)
    SELECT new.revision, new.time, new.author, new.address, new.verb, new.resource, new.namespace, new.name,
      new.previous, new.body
    WHERE new.time IS NOT NULL;
  UPDATE meta SET revision = new.revision;
END;
"""
_INSERT, _CHANGE = "INSERT INTO changes VALUES ", f"({', '.join('?' * 12)})"
_NOBODY = (None, None, None, None)
# What makes a schema the next one. 1 to 2: leases; the history; events say which revision they replaced. The events of before
# do not know that, so they go, and watchers list again; the history begins here.
_MIGRATIONS = {
    1: """
ALTER TABLE objects ADD COLUMN lease INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
UPDATE meta SET compacted = revision, forgotten = revision;
DROP TABLE events;
"""
    + _EVENTS_AND_HISTORY,
}


def lock(path: Path) -> int:
    """Keep other processes off the store; the descriptor whose closing lets go. Raises `Refused` or `Unavailable`.

    It is a file of its own: closing a descriptor of the store itself would drop the locks that SQLite has on it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _no_folder(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise _in_use(path) from error
    return descriptor


def open_database(path: Path) -> sqlite3.Connection:
    """The file's one writer, after it was made, or checked and migrated. Raises `Corrupt`, `Refused` or `Unavailable`.

    The caller holds the `lock`.
    """
    log = path.with_name(path.name + "-wal")
    try:
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
        new = path.stat().st_size == 0
        logged = log.exists() and log.stat().st_size > 0
    except OSError as error:
        raise _no_folder(path, error) from error
    if new and logged:
        # SQLite would take the file for a new one and drop the log, and with it whatever the log still holds.
        raise _corrupt(path, "it is empty although its log is not")
    try:
        return _connect(path, new=new)
    except sqlite3.Error as error:
        raise wrapped(path, error) from error


def _connect(path: Path, *, new: bool) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    try:
        database.execute("PRAGMA synchronous = FULL")
        if new:
            _create(database, path)
        else:
            _check(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_CHANGES)
        database.execute("BEGIN IMMEDIATE")  # whatever stands in the way of writing is said now and not at the first write
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _create(database: sqlite3.Connection, path: Path) -> None:
    """All in one transaction of the rollback journal: after a crash the file is empty or complete."""
    ours = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION};"
    database.executescript(f"BEGIN EXCLUSIVE; {_TABLES} {_EVENTS_AND_HISTORY} {ours} COMMIT;")
    _sync(path.parent)  # the name, too, survives a power loss


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    for old in range(version, VERSION):
        database.executescript(f"BEGIN EXCLUSIVE; {_MIGRATIONS[old]} PRAGMA user_version = {old + 1}; COMMIT;")


def open_reader(path: Path) -> sqlite3.Connection:
    """A further connection, that cannot write."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)


def load(database: sqlite3.Connection, path: Path) -> tuple[list[tuple[Key, Row]], list[Record], int, int]:
    """Everything: objects, events, the revision, and up to where events were forgotten. Raises `Corrupt`."""
    try:
        revision, compacted = database.execute("SELECT revision, compacted FROM meta").fetchone()
        objects = [
            (Key(resource, namespace, name), Row(_text(body), at, lease))
            for resource, namespace, name, at, body, lease in database.execute(
                "SELECT resource, namespace, name, revision, body, lease FROM objects"
            )
        ]
        events = (
            "SELECT resource, namespace, name, revision, body, previous, previous_revision FROM events ORDER BY revision, rowid"
        )
        records = [
            Record(Key(resource, namespace, name), at, body and _text(body), previous and _text(previous), before)
            for resource, namespace, name, at, body, previous, before in database.execute(events)
        ]
        if any(row.revision > revision for _, row in objects):
            raise _corrupt(path, f"an object is newer than the store's revision {revision}")
    except (sqlite3.Error, msgspec.DecodeError, TypeError, ValueError) as error:
        raise _corrupt(path, str(error)) from error
    return objects, records, revision, compacted


def end_leases(database: sqlite3.Connection) -> None:
    """Delete what was bound to leases of a former process: they ended with it."""
    database.execute("BEGIN IMMEDIATE")
    keys = [Key(*row) for row in database.execute("SELECT resource, namespace, name FROM objects WHERE lease != 0")]
    if keys:
        after = revision(database) + 1
        save(database, [(recorded(key, after, None, find(database, key)), None) for key in keys])
    database.execute("COMMIT")


def _text(body: bytes) -> bytes:
    """The same bytes, after making sure that they are an object's JSON."""
    msgspec.json.decode(body, type=dict)
    return body


def start_at(path: Path, after: int) -> None:
    """Make an empty store that goes on from a revision, as if all that was before had been forgotten. Raises as opening does."""
    database = open_database(path)
    with contextlib.closing(database):
        database.execute("UPDATE meta SET revision = ?, compacted = ?, forgotten = ?", (after,) * 3)


def revision_of(path: Path) -> int | None:
    """The revision of a store that nobody has open, whose log is folded into its file; None where it cannot be told."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return None
    if not head.startswith(b"SQLite format 3\0") or head[68:] != _APPLICATION.to_bytes(4, "big"):
        return None  # SQLite would drop the log of what is no database
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            found = revision(database)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:
        return None
    return found


def replace(path: Path, fresh: Path, aside: str) -> Path | None:
    """Put a store in the place of another one, which keeps its name with `aside` after it (None: there was none).

    At every moment there is one of the two under the name, and never one beside the other one's log.
    """
    log, kept = path.with_name(path.name + "-wal"), path.with_name(f"{path.name}.{aside}")
    try:
        if log.exists():
            os.rename(log, kept.with_name(kept.name + "-wal"))
        there = path.exists()
        if there:
            os.link(path, kept)
        os.replace(fresh, path)
        path.with_name(path.name + "-shm").unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise Unavailable(f"the store {path} cannot be replaced: {error.strerror}", hint="check the folder's owner") from error
    return kept if there else None


def find(database: sqlite3.Connection, key: Key) -> Row | None:
    """The object at the key, inside the current transaction."""
    row = database.execute(
        "SELECT body, revision, lease FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
        (key.resource, key.namespace, key.name),
    ).fetchone()
    return Row(*row) if row else None


def bound(database: sqlite3.Connection, lease: int) -> Sequence[Key]:
    """The keys that are bound to a lease."""
    found = database.execute("SELECT resource, namespace, name FROM objects WHERE lease = ? AND lease != 0", (lease,))
    return [Key(*row) for row in found]


def save(database: sqlite3.Connection, noted: Sequence[Noted]) -> None:
    """Write changes, their events, the history of those that have a cause, and the revision: up to `ROWS` in one statement.

    Outside a transaction each statement is one itself.
    """
    for first in range(0, len(noted), ROWS):
        some = noted[first : first + ROWS]
        values: list[Any] = []
        for one, who in some:
            key = one.key
            values += (one.revision, key.resource, key.namespace, key.name, one.previous_revision, one.previous, one.body)
            values += (one.lease, *(_NOBODY if who is None else (who.time, who.author, who.address, who.verb)))
        database.execute(_INSERT + ", ".join([_CHANGE] * len(some)), values)


def read_history(
    database: sqlite3.Connection, resource: str | None, namespace: str | None, name: str | None, since: int, limit: int
) -> tuple[Sequence[Change], int]:
    """As `Store.history`, and the newest revision of which something was forgotten: both as of one moment."""
    wanted = {"resource": resource, "namespace": namespace, "name": name}
    where = "".join(f" AND {column} = ?" for column, value in wanted.items() if value is not None)
    columns = "resource, namespace, name, revision, previous, body, author, address, time, verb"
    query = f"SELECT {columns} FROM history WHERE revision > ?{where} ORDER BY revision DESC, rowid LIMIT ?"  # noqa: S608 - ours
    database.execute("BEGIN")
    try:
        forgotten = database.execute("SELECT forgotten FROM meta").fetchone()[0]
        values = (since, *(value for value in wanted.values() if value is not None), limit or -1)
        changes = []
        for place in database.execute(query, values):
            event = Event(Key(*place[:3]), place[3], place[5], place[4])
            changes.append(Change(event.key, event.revision, event.previous, event.body, Cause(*place[6:])))
    finally:
        database.execute("COMMIT")
    return changes, forgotten


def revision(database: sqlite3.Connection) -> int:
    """The store's revision as the file has it."""
    found: int = database.execute("SELECT revision FROM meta").fetchone()[0]
    return found


def compact(database: sqlite3.Connection, compacted: int) -> None:
    """Drop the events up to a revision, inside the current transaction."""
    database.execute("DELETE FROM events WHERE revision <= ?", (compacted,))
    database.execute("UPDATE meta SET compacted = ?", (compacted,))


def history_count(database: sqlite3.Connection) -> int:
    """How many changes the history has."""
    found: int = database.execute("SELECT count(*) FROM history").fetchone()[0]
    return found


def forget(database: sqlite3.Connection, before: float) -> int:
    """Drop the history of before that time, inside the current transaction; how many changes that were."""
    return _forget(database, "time < ?", before)


def forget_surplus(database: sqlite3.Connection, kept: int) -> int:
    """Drop the oldest of the history beyond `kept` changes, inside the current transaction; how many changes that were."""
    found = database.execute("SELECT revision FROM history ORDER BY revision DESC LIMIT 1 OFFSET ?", (kept,)).fetchone()
    return _forget(database, "revision <= ?", found[0]) if found else 0


def _forget(database: sqlite3.Connection, which: str, value: float) -> int:
    newest = database.execute(f"SELECT max(revision) FROM history WHERE {which}", (value,)).fetchone()[0]  # noqa: S608 - ours
    if newest is None:
        return 0
    database.execute("UPDATE meta SET forgotten = max(forgotten, ?)", (newest,))
    return database.execute(f"DELETE FROM history WHERE {which}", (value,)).rowcount  # noqa: S608 - ours


def _corrupt(path: Path, why: str) -> Corrupt:
    return Corrupt(
        f"the store {path} is damaged: {why}",
        hint=f"nothing was changed; restore {path.name} (and {path.name}-wal) from a copy, or move them away to start empty",
    )


def _no_folder(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"the store {path} cannot be opened: {error.strerror}", hint="check the folder and its owner")


def _in_use(path: Path) -> Refused:
    return Refused(f"the store {path} is in use by another process", hint="one control plane at a time: stop the other one")


def wrapped(path: Path, error: sqlite3.Error) -> TulleError:
    """What went wrong with the file, in words."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _in_use(path)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return Unavailable(f"the store {path} cannot be opened: {error}", hint="check the disk's space and the file's owner")
    return _corrupt(path, str(error))
