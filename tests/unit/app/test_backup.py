"""Restoring a state folder: nothing is lost, nothing goes back in time, and what cannot be done changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tulle.app.backup import offline, restore
from tulle.control.ca.authority import Authority
from tulle.control.store.sealed import Keys, SealedStore
from tulle.control.store.sqlite import SqliteStore
from tulle.kit.errors import Corrupt, Refused, Unavailable
from tulle.ports import Cause, Compacted, Key, Put

KEYS = Keys([b"k" * 32])
A = Key("services", "default", "a")
S = Key("secrets", "default", "s")
NOW = 1_800_000_000.0


async def write(state: Path, count: int, start: int = 0) -> int:
    store = SealedStore(SqliteStore(state / "store.db"), KEYS)
    revision = 0
    for n in range(start, start + count):
        revision = await store.write([Put(A, {"n": n}), Put(S, {"n": n})], Cause("anna", "", 1.0))
    await store.close()
    return revision


async def content(state: Path) -> tuple[Mapping[Key, Any], int]:
    store = SealedStore(SqliteStore(state / "store.db"), KEYS)
    found, revision = await store.list()
    await store.close()
    return {one.key: one.body["n"] for one in found}, revision


async def saved(state: Path, path: Path, *, with_authority: bool = False) -> Path:
    path.write_bytes(b"".join([piece async for piece in offline(state, KEYS, with_authority=with_authority)]))
    return path


def files(folder: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_lost_store_comes_back(tmp_path: Path) -> None:
    """The disk is gone, a new machine stands there; whoever has watched the old one must not take its past for the present."""
    state, fresh = tmp_path / "state", tmp_path / "fresh"
    authority = Authority.open(state / "ca", seal=KEYS)
    at = await write(state, 5)
    path = await saved(state, tmp_path / "b", with_authority=True)
    seen = await write(state, 300, 5)
    done = await restore(path, fresh, KEYS, force=False)
    assert (done.objects, done.aside, done.authority) == (2, (), True)
    assert Authority.open(fresh / "ca", seal=KEYS).bundle == authority.bundle
    found, revision = await content(fresh)
    assert found == {A: 4, S: 4}
    assert revision == done.revision > seen
    store = SqliteStore(fresh / "store.db")
    for old in (at, seen):
        with pytest.raises(Compacted):
            await anext(store.watch(old))
        with pytest.raises(Compacted):
            await store.history(since=old)
    assert await store.write([Put(A, {})]) == revision + 1
    await store.close()
    assert [path.name for path in fresh.iterdir() if "restoring" in path.name] == []


async def test_back_over_a_store_that_is_there(tmp_path: Path) -> None:
    """The old one is set aside whole, and the revisions go on from it."""
    state = tmp_path / "state"
    await write(state, 5)
    path = await saved(state, tmp_path / "b")
    later = await write(state, 10, 5)
    before = files(state)
    with pytest.raises(Refused, match="a store already") as refused:
        await restore(path, state, KEYS, force=False, now=NOW)
    assert refused.value.hint == "--force sets it aside"
    assert files(state) == before
    done = await restore(path, state, KEYS, force=True, now=NOW)
    assert (await content(state))[0] == {A: 4, S: 4}
    assert done.revision == later + 1
    (aside,) = done.aside
    assert aside.name == "store.db.before-20270115T080000Z"
    aside.rename(tmp_path / "store.db")
    assert await content(tmp_path) == ({A: 14, S: 14}, later)


async def test_over_a_store_that_is_younger(tmp_path: Path) -> None:
    """A control plane was started on the empty disk before somebody thought of the backup: its few revisions say nothing."""
    state, fresh = tmp_path / "state", tmp_path / "fresh"
    await write(state, 50)
    path = await saved(state, tmp_path / "b")
    lost = await write(state, 100, 50)
    await write(fresh, 3)
    assert (await restore(path, fresh, KEYS, force=True)).revision > lost


async def test_over_a_damaged_store(tmp_path: Path) -> None:
    """What a restore is for; the damaged one is kept, with its log, for whoever can still read something in it."""
    state = tmp_path / "state"
    await write(state, 5)
    path = await saved(state, tmp_path / "b")
    (state / "store.db").write_bytes(b"damaged" * 1000)
    (state / "store.db-wal").write_bytes(b"a log" * 1000)
    done = await restore(path, state, KEYS, force=True, now=NOW)
    assert (await content(state))[0] == {A: 4, S: 4}
    (aside,) = done.aside
    assert aside.read_bytes() == b"damaged" * 1000
    assert aside.with_name(aside.name + "-wal").read_bytes() == b"a log" * 1000


async def test_another_authority(tmp_path: Path) -> None:
    """Whoever overwrites a root's key by mistake cuts off every node."""
    state, other = tmp_path / "state", tmp_path / "other"
    first, second = Authority.open(state / "ca", seal=KEYS), Authority.open(other / "ca")
    await write(state, 1)
    path = await saved(state, tmp_path / "b", with_authority=True)
    with pytest.raises(Refused, match="another authority"):
        await restore(path, other, KEYS, force=False, now=NOW)
    assert not (other / "store.db").exists()
    done = await restore(path, other, KEYS, force=True, now=NOW)
    assert Authority.open(other / "ca", seal=KEYS).bundle == first.bundle
    assert Authority.open(done.aside[0], seal=KEYS).bundle == second.bundle
    assert (await restore(path, other, KEYS, force=True, now=NOW + 1)).aside[0].name.startswith("store.db")  # the same one: kept


async def test_what_cannot_be_restored_changes_nothing(tmp_path: Path) -> None:
    """A failed restore must leave the mesh that there is."""
    state = tmp_path / "state"
    Authority.open(state / "ca", seal=KEYS)
    await write(state, 5)
    path = await saved(state, tmp_path / "b", with_authority=True)
    before = files(state)
    for keys, found in ((Keys([b"o" * 32]), Keys([b"o" * 32]).first), (None, "none")):
        with pytest.raises(Refused, match=f"sealed with the encryption key {KEYS.first}, found {found}"):
            await restore(path, state, keys, force=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(Corrupt):
        await restore(path, state, KEYS, force=True)
    path.write_bytes(whole)
    assert files(state) == before
    running = SqliteStore(state / "store.db")
    with pytest.raises(Refused, match="in use by another process"):
        await restore(path, state, KEYS, force=True)
    with pytest.raises(Refused, match="in use by another process"):
        await saved(state, tmp_path / "c")
    await running.close()
    with pytest.raises(Unavailable, match="no store here"):
        await saved(tmp_path / "nowhere", tmp_path / "c")
    (tmp_path / "bare").mkdir()
    await write(tmp_path / "bare", 1)
    with pytest.raises(Refused, match="no certificate authority here"):
        await saved(tmp_path / "bare", tmp_path / "c", with_authority=True)
