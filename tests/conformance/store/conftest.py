"""Every implementation of `ports.Store` that the suite runs over.

A store joins by one line in `STORES`: a function that makes an empty one, given a folder of its own and the options of `Open`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.store import etcd_servers
from tests.support.clock import TurnedClock
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sealed import Keys, SealedStore
from tulle.control.store.sqlite import SqliteStore
from tulle.ports import Store

Open = Callable[..., Store]  # options: `log` (changes to keep for watches), `kept` (changes of the history), `clock` (of leases)

STORES: Mapping[str, Callable[[Path, Mapping[str, Any]], Store]] = {
    "memory": lambda _folder, options: MemoryStore(**options),
    "sqlite": lambda folder, options: SqliteStore(folder / "store.db", **options),
    "sealed memory": lambda _folder, options: SealedStore(MemoryStore(**options), Keys([b"k" * 32])),
    "sealed sqlite": lambda folder, options: SealedStore(SqliteStore(folder / "store.db", **options), Keys([b"k" * 32])),
    "etcd": lambda _folder, options: etcd_servers.make("one", options),
    "etcd-tls": lambda _folder, options: etcd_servers.make("tls", options),
    "etcd-sealed": lambda _folder, options: SealedStore(etcd_servers.make("one", options), Keys([b"k" * 32])),
    "etcd-cluster": lambda _folder, options: etcd_servers.make("three", options),
}


@pytest.fixture(params=list(STORES))
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the stores."""
    name: str = request.param
    return name


@pytest.fixture
async def open_store(kind: str, tmp_path: Path) -> AsyncIterator[Open]:
    """Makes stores, and closes them."""
    opened: list[Store] = []

    def make(**options: Any) -> Store:
        store = STORES[kind](tmp_path / str(len(opened)), options)
        opened.append(store)
        return store

    yield make
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_store: Open) -> Store:
    """One empty store."""
    return open_store()


@pytest.fixture
def clock(kind: str) -> TurnedClock | etcd_servers.WaitedClock:
    """The clock of a store's leases, where a test turns it."""
    if not kind.startswith("etcd"):
        return TurnedClock()
    if kind != "etcd":
        pytest.skip("waiting for etcd's own clock once is enough")
    return etcd_servers.WaitedClock()
