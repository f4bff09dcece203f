"""A store of an earlier schema opens with everything that was in it. The files are made with the SQL of their time."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tulle.control.store import schema
from tulle.control.store.sqlite import SqliteStore
from tulle.ports import Cause, Compacted, Key, Put

VERSION_1 = """
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
PRAGMA application_id = 1953852524;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""


def of_version_1(path: Path) -> None:
    """As that tulle left it after three writes."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(VERSION_1)
    for revision, name in enumerate("aba", 1):
        body = json.dumps({"n": revision}).encode()
        database.execute("INSERT OR REPLACE INTO objects VALUES ('services', 'default', ?, ?, ?)", (name, revision, body))
        database.execute("INSERT INTO events VALUES (?, 'services', 'default', ?, ?, NULL)", (revision, name, body))
    database.execute("UPDATE meta SET revision = 3")
    database.close()


async def test_from_version_1(tmp_path: Path) -> None:
    """An upgrade would lose the mesh, or its revisions would start anew beneath the proxies."""
    path = tmp_path / "s.db"
    of_version_1(path)
    for _ in range(2):  # the migration, and a start after it
        store = SqliteStore(path)
        found, revision = await store.list()
        assert revision >= 3
        assert [(one.key.name, one.body, one.revision) for one in found[:2]] == [("a", {"n": 3}, 3), ("b", {"n": 2}, 2)]
        with pytest.raises(Compacted):  # its log did not know what a snapshot needs: watchers list again
            await anext(store.watch(1))
        with pytest.raises(Compacted):
            await store.history(since=1)
        lease = await store.grant(100)
        at = await store.write([Put(Key("services", "default", "c"), {}, lease=lease)], Cause("anna", "", 1.0))
        assert at > revision
        assert (await store.history(since=3))[0].revision == at
        await store.close()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
    database.close()


def shape(path: Path) -> set[tuple[str, ...]]:
    """Tables, columns and indices of a file, without the words that made them."""
    database = sqlite3.connect(path)
    names = database.execute("SELECT type, name FROM sqlite_master").fetchall()
    columns = [(name, *map(str, row[1:4])) for kind, name in names if kind == "table" for row in _columns(database, name)]
    database.close()
    return {*names, *columns}


def _columns(database: sqlite3.Connection, table: str) -> list[tuple[str, ...]]:
    return database.execute(f"PRAGMA table_info({table})").fetchall()


async def test_a_migrated_file_is_like_a_new_one(tmp_path: Path) -> None:
    """A column that only new files have works on the developer's machine and nowhere else."""
    of_version_1(tmp_path / "old.db")
    for name in ("old.db", "new.db"):
        await SqliteStore(tmp_path / name).close()
    assert shape(tmp_path / "old.db") == shape(tmp_path / "new.db")


async def test_leases_do_not_survive_a_restart(tmp_path: Path) -> None:
    """What a dead process held would stay held; and watchers must hear that it went."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    lease = await store.grant(1000)
    held, free = Key("_leader", "", "l"), Key("_leader", "", "free")
    revision = await store.write([Put(held, {"n": 1}, lease=lease), Put(free, {"n": 2})])
    await store.close()
    store = SqliteStore(path)
    assert [one.key for one in (await store.list())[0]] == [free]
    event = await anext(store.watch(revision))
    assert (event.key, event.body, event.previous) == (held, None, {"n": 1})
    await store.close()


async def test_the_history_survives_a_restart(tmp_path: Path) -> None:
    """Who changed what is asked when something has gone wrong, which is when a control plane was restarted."""
    path = tmp_path / "s.db"
    cause = Cause("anna", "192.0.2.1", 5.0, "create")
    store = SqliteStore(path)
    key = Key("services", "default", "a")
    await store.write([Put(key, {"n": 1})], cause)
    last = await store.write([Put(key, {"n": 2})], cause)
    before = list(await store.history())
    await store.forget(1.0)
    await store.close()
    store = SqliteStore(path)
    assert list(await store.history()) == before
    assert await store.forget(6.0) == 2
    await store.close()
    store = SqliteStore(path)
    with pytest.raises(Compacted):
        await store.history(since=last - 1)
    await store.close()
