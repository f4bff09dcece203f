"""A backup of any store restores any store."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.store.conftest import Open
from tests.conformance.store.steps import numbered
from tulle.control.store import backup
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sealed import Keys, SealedStore
from tulle.ports import Cause, Key, Put, Store

KEYS = Keys([b"k" * 32])


def inside(store: Store) -> Store:
    return store.inside if isinstance(store, SealedStore) else store


async def test_a_backup_restores_any_store(open_store: Open, tmp_path: Path) -> None:
    """A mesh that moves from one store to another, or back from a disaster, must arrive whole."""
    one, other = open_store(), open_store()
    cause = Cause("anna", "", 1.0, "create")
    for first in range(0, 230, 10):
        await one.write([Put(Key("services", f"ns{n % 7}", str(n)), numbered(n)) for n in range(first, first + 10)], cause)
    await one.write([Put(Key("secrets", "default", "s"), numbered(1)), Put(Key("_tokens", "", "t"), numbered(2))])
    await other.write([Put(Key("services", "gone", "x"), {}), Put(Key("services", "ns1", "1"), {})], cause)
    before = (await other.list())[1]
    path = tmp_path / "backup"
    path.write_bytes(b"".join([piece async for piece in backup.written(inside(one), KEYS, "", {})]))
    wanted = [(stored.key, stored.body) for stored in (await one.list())[0]]
    assert len(wanted) == 232
    for target in (other, SealedStore(MemoryStore(), KEYS) if isinstance(one, SealedStore) else MemoryStore()):
        revision = await backup.restore(backup.read(path), inside(target))
        found, now = await target.list()
        assert [(stored.key, stored.body) for stored in found] == wanted
        assert now >= revision
        assert list(await target.history()) == []
    assert (await other.list())[1] > before  # forward, also for those who watched it before
