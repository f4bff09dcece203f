"""The history is kept for as long as was said."""

from __future__ import annotations

import asyncio

from tests.support.clock import TurnedClock
from tulle.control.store.history import HistoryKeeper
from tulle.control.store.memory import MemoryStore
from tulle.ports import Cause, Key, Put


async def test_what_is_too_old_goes() -> None:
    """A history that grows for ever fills the disk; one that goes early is missed."""
    store, clock = MemoryStore(), TurnedClock(10_000.0)
    for time in (1000.0, 5000.0, 9000.0):
        await store.write([Put(Key("services", "default", "a"), {"n": time})], Cause("anna", "", time))
    keeper = asyncio.create_task(HistoryKeeper(store, 6000.0, clock.now, clock.sleep).run())
    for turned, kept in ((0.0, [9000.0, 5000.0]), (900.0, [9000.0, 5000.0]), (2700.0, [9000.0])):
        clock.advance(turned)
        for _ in range(5):
            await asyncio.sleep(0)
        assert [change.cause.time for change in await store.history()] == kept
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
