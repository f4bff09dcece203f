"""The SQLite store's own promises: what is acknowledged survives, what is damaged is refused and left alone."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from tulle.control.store.sqlite import SqliteStore
from tulle.kit.errors import Corrupt, Refused, Unavailable
from tulle.ports import Compacted, Event, Key, Put

A = Key("services", "default", "a")


async def test_reopening_keeps_objects_revision_and_history(tmp_path: Path) -> None:
    """A control plane that restarts must continue its revisions, and let watchers go on where they were."""
    path = tmp_path / "deep" / "store.db"
    store = SqliteStore(path)
    first = await store.write([Put(A, {"n": 1})])
    second = await store.write([Put(A, {"n": 2})])
    await store.close()
    store = SqliteStore(path)
    found = await store.get(A)
    assert found is not None
    assert (found.body, found.revision) == ({"n": 2}, second)
    event = await asyncio.wait_for(anext(store.watch(first)), 5)
    assert event == Event(A, second, {"n": 2}, {"n": 1})
    assert await store.write([Put(A, {"n": 3})]) == second + 1
    await store.close()


async def test_reopening_keeps_compaction(tmp_path: Path) -> None:
    """After a restart a watch from before the kept history would otherwise silently skip changes."""
    store = SqliteStore(tmp_path / "s.db", log=8)
    for n in range(50):
        await store.write([Put(A, {"n": n})])
    await store.close()
    database = sqlite3.connect(tmp_path / "s.db")
    assert database.execute("SELECT count(*) FROM events").fetchone()[0] < 20
    database.close()
    store = SqliteStore(tmp_path / "s.db", log=8)
    with pytest.raises(Compacted):
        await anext(store.watch(1))
    await store.close()


async def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """Join tokens and secrets lie in it."""
    store = SqliteStore(tmp_path / "s.db")
    await store.write([Put(A, {})])
    for name in os.listdir(tmp_path):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name
    await store.close()


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Two control planes on one file would each serve an outdated memory."""
    store = SqliteStore(tmp_path / "s.db")
    code = (
        "import sys; from tulle.control.store.sqlite import SqliteStore; from tulle.kit.errors import Refused\n"
        "try: SqliteStore(sys.argv[1])\nexcept Refused as error: print(error)"
    )
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path / "s.db"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(second.communicate(), 30)
    assert b"in use by another process" in out
    await store.write([Put(A, {})])
    await store.close()


def damaged(path: Path, how: str) -> None:
    if how == "text":
        path.write_text("this is not a database, it is a text file\n" * 40)
    elif how == "foreign":
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE other (x)")
        database.close()
    elif how == "pages":
        data = bytearray(path.read_bytes())
        for at in range(4096, len(data), 512):
            data[at : at + 64] = b"\xa5" * 64
        path.write_bytes(data)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: 3 * 4096 + 100])
    elif how == "body":
        database = sqlite3.connect(path)
        database.execute("UPDATE objects SET body = x'7b22' WHERE name = 'n7'")
        database.commit()
        database.close()


@pytest.mark.parametrize("how", ["text", "foreign", "pages", "truncated", "body"])
async def test_damage_is_refused_and_left_alone(tmp_path: Path, how: str) -> None:
    """A damaged file that is overwritten, or served in part, is data lost for good."""
    path = tmp_path / "s.db"
    if how not in ("text", "foreign"):
        store = SqliteStore(path)
        await store.write([Put(Key("x", "", f"n{n}"), {"text": "y" * 200}) for n in range(200)])
        await store.close()
    damaged(path, how)
    before = path.read_bytes()
    with pytest.raises(Corrupt) as refused:
        SqliteStore(path)
    assert "s.db" in refused.value.message
    assert refused.value.hint
    assert path.read_bytes() == before


async def test_an_emptied_file_beside_its_log_is_refused(tmp_path: Path) -> None:
    """SQLite itself would start anew and delete the log."""
    path = tmp_path / "s.db"
    path.touch()
    log = tmp_path / "s.db-wal"
    log.write_bytes(b"x" * 100)
    with pytest.raises(Corrupt):
        SqliteStore(path)
    assert log.read_bytes() == b"x" * 100


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """An older tulle would misread what a newer one wrote."""
    store = SqliteStore(tmp_path / "s.db")
    await store.close()
    database = sqlite3.connect(tmp_path / "s.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(Refused, match="schema 99"):
        SqliteStore(tmp_path / "s.db")


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A person must learn which path is wrong."""
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"file/s\.db"):
        SqliteStore(tmp_path / "file" / "s.db")


# Writes until the disk is full, then frees space and goes on. Prints what was acknowledged and what was refused.
FULL = """
import asyncio, json, os, resource, sys
from tulle.control.store.sqlite import SqliteStore
from tulle.kit.errors import Unavailable
from tulle.ports import Key, Put

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(folder, how):
    ballast = os.path.join(folder, "ballast")
    if how == "full":
        with open(ballast, "wb") as file:
            file.write(b"x" * 400_000)
    store = SqliteStore(os.path.join(folder, "s.db"))
    acknowledged, refused = [], ""
    if how == "limit":
        limit(400_000)
    for n in range(400):
        try:
            await store.write([Put(Key("x", "", str(n)), {"text": "y" * 5000})])
            acknowledged.append(n)
        except Unavailable as error:
            refused = str(error)
            break
    found = sorted(int(one.key.name) for one in (await store.list("x"))[0])
    if how == "limit":
        limit(resource.RLIM_INFINITY)
    else:
        os.unlink(ballast)
    await store.write([Put(Key("x", "", "1000"), {})])
    await store.close()
    store = SqliteStore(os.path.join(folder, "s.db"))
    again = sorted(int(one.key.name) for one in (await store.list("x"))[0])
    print(json.dumps({"acknowledged": acknowledged, "found": found, "again": again, "refused": refused}))
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.parametrize("how", ["limit", "full"])
async def test_a_disk_that_takes_no_more(tmp_path: Path, how: str) -> None:
    """A full disk must refuse the write in words, lose nothing that was acknowledged, and work again when there is room."""
    argv = [sys.executable, "-c", FULL, str(tmp_path), how]
    if how == "full":
        unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
        trial = await asyncio.create_subprocess_exec(*unshare, "mount", "-t", "tmpfs", "none", str(tmp_path))
        if await trial.wait():
            pytest.skip("this machine does not let a test mount a small disk")
        argv = [*unshare, "sh", "-c", 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"', "sh", str(tmp_path), *argv]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    seen = json.loads(out)
    assert ("disk is full" if how == "full" else "cannot be written") in seen["refused"]
    assert seen["acknowledged"]
    assert seen["found"] == seen["acknowledged"]
    assert seen["again"] == [*seen["acknowledged"], 1000]
