"""A watcher that is cut off again and again misses nothing and sees nothing twice, also where it must list anew."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from tests.conformance.store.conftest import Open
from tests.conformance.store.steps import numbered
from tulle.ports import Compacted, Delete, Key, Put, Store

END = Key("x", "", "end")


class Progress:
    """How many writes there were, to wait for more of them."""

    def __init__(self) -> None:
        self.writes, self.over, self._changed = 0, False, asyncio.Condition()

    async def wrote(self, *, last: bool = False) -> None:
        async with self._changed:
            self.writes, self.over = self.writes + 1, last
            self._changed.notify_all()

    async def more(self, count: int) -> None:
        wanted = self.writes + count
        async with self._changed:
            await self._changed.wait_for(lambda: self.over or self.writes >= wanted)


class Follower:
    """What a controller keeps of a resource: its objects, and the revision up to which it has seen everything."""

    def __init__(self, store: Store, progress: Progress, seed: int) -> None:
        self.store, self.progress, self.dice = store, progress, random.Random(seed)
        self.objects: dict[Key, dict[str, Any]] = {}
        self.revision = self.lists = self.cuts = 0

    async def run(self) -> None:
        await self._list()
        while END not in self.objects:
            try:
                await self._watch(self.dice.randrange(1, 12))
            except Compacted:
                await self._list()
            await self.progress.more(self.dice.choice((0, 0, 1, 5, 60)))  # away for a while

    async def _list(self) -> None:
        found, revision = await self.store.list("x")
        assert revision >= self.revision
        self.objects, self.revision = {one.key: one.body for one in found}, revision
        self.lists += 1

    async def _watch(self, count: int) -> None:
        async with contextlib.aclosing(self.store.watch(self.revision, "x")) as events:
            for _ in range(count):
                event = await anext(events)
                assert event.revision > self.revision  # nothing twice, nothing out of order
                assert event.previous == self.objects.get(event.key)  # nothing missed
                self.revision = event.revision
                if event.body is None:
                    del self.objects[event.key]
                else:
                    self.objects[event.key] = event.body
                if event.key == END:
                    return
        self.cuts += 1


async def test_a_watcher_that_is_cut_off(open_store: Open) -> None:
    """A controller would act on an object that is gone, or never hear of one that is there."""
    store = open_store(log=20)
    progress = Progress()
    followers = [Follower(store, progress, seed) for seed in range(6)]
    running = [asyncio.create_task(follower.run()) for follower in followers]

    async def writer(seed: int) -> None:
        dice = random.Random(seed)
        for n in range(80):
            key = Key("x", f"ns{dice.randrange(3)}", str(dice.randrange(4)))
            await store.write([Delete(key) if dice.random() < 0.3 else Put(key, numbered(n))])
            await store.write([Put(Key("y", "", "noise"), numbered(n))])
            await progress.wrote()
            await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(*(writer(seed) for seed in range(3))), 60)
    await store.write([Put(END, {})])
    await progress.wrote(last=True)
    await asyncio.wait_for(asyncio.gather(*running), 60)
    found, _ = await store.list("x")
    for follower in followers:
        assert follower.objects == {one.key: one.body for one in found}
        assert follower.cuts > 0
    assert max(follower.lists for follower in followers) > 1  # some came too late, and recovered
