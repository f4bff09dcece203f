"""Every implementation of `ports.Store` that the suite runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tulle.control.store.memory import MemoryStore
from tulle.control.store.sqlite import SqliteStore
from tulle.ports import Store

Open = Callable[..., Store]


@pytest.fixture(params=["memory", "sqlite"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Makes stores, with keyword arguments for the constructor, and closes them."""
    opened: list[Store] = []

    def make(**options: int) -> Store:
        kind = request.param
        store: Store = MemoryStore(**options) if kind == "memory" else SqliteStore(tmp_path / f"{len(opened)}.db", **options)
        opened.append(store)
        return store

    yield make
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_store: Open) -> Store:
    """One empty store."""
    return open_store()
