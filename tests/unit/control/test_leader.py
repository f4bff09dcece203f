"""The leader over a real store and a clock that the test turns; what it decides is in tests/playbook/test_election.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.clock import TurnedClock
from tulle.control.election import Terms
from tulle.control.leader import RECORD, SHOWN, Leader
from tulle.control.store.memory import MemoryStore
from tulle.kit.errors import Unavailable
from tulle.ports import Delete, Put

TERMS = Terms()


class Controller:
    """One that counts how often it began and whether it runs; `fail` makes it end with that."""

    def __init__(self) -> None:
        self.runs = self.began = 0
        self.fail: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        self.began += 1
        self.runs += 1
        try:
            await asyncio.shield(self.fail)
        finally:
            self.runs -= 1


class Away(MemoryStore):
    """A store that can be away."""

    away = False

    async def grant(self, seconds: float) -> int:
        if self.away:
            raise Unavailable("away")
        return await super().grant(seconds)

    async def renew(self, lease: int) -> None:
        if self.away:
            raise Unavailable("away")
        await super().renew(lease)


@contextlib.asynccontextmanager
async def standing(
    store: MemoryStore, name: str, clock: TurnedClock, controller: Controller
) -> AsyncIterator[tuple[Leader, asyncio.Task[None]]]:
    leader = Leader(store, name, {"counted": controller.run}, clock=clock, wall=lambda: 1_700_000_000.5)
    task = asyncio.create_task(leader.run())
    try:
        yield leader, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    """Let everything run until it is so."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - of objects that tell nobody
            await asyncio.sleep(0.001)


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_one_leads_and_the_next_follows_at_once() -> None:
    """Controllers would run twice, or nowhere after the leader was stopped."""
    clock = TurnedClock()
    store = MemoryStore(clock=clock)
    one, two = Controller(), Controller()
    async with standing(store, "two", clock, two) as (second, _):
        async with standing(store, "one", clock, one) as (first, _):
            await until(lambda: first.holder and second.holder)
            assert {first.leads, second.leads} == {True, False}
            assert first.holder == second.holder == ("one" if first.leads else "two")
            await until(lambda: one.runs + two.runs == 1)
            shown = await store.get(SHOWN)
            assert shown is not None
            assert shown.body["spec"] == {
                "holderIdentity": first.holder,
                "leaseDurationSeconds": 15,
                "acquireTime": "2023-11-14T22:13:20.500000Z",
            }
            for _ in range(30):  # a minute in which all is well: nobody changes, and nothing is written
                clock.advance(TERMS.every)
                await settled()
            assert one.began + two.began == 1
            assert (await store.list())[1] == shown.revision
        await until(lambda: second.leads)
        await until(lambda: two.runs == 1)
    assert (one.runs, two.runs) == (0, 0)
    assert await store.get(RECORD) is None
    assert await store.get(SHOWN) is None


async def test_a_leader_without_its_store_stops_in_time() -> None:
    """It cannot know whether another one leads by now."""
    clock = TurnedClock()
    store = Away(clock=clock)
    controller = Controller()
    async with standing(store, "one", clock, controller) as (leader, _):
        await until(lambda: controller.runs)
        clock.advance(TERMS.every)
        await settled()
        store.away = True
        for _ in range(6):
            clock.advance(TERMS.every)
            await settled()
        assert not leader.leads
        assert controller.runs == 0
        store.away = False
        for _ in range(10):
            clock.advance(TERMS.every)
            await settled()
        await until(lambda: leader.leads and controller.runs == 1)
        assert controller.began == 2


async def test_a_record_that_somebody_takes_away_ends_the_reign() -> None:
    """With `etcdctl` a person can do anything; two leaders must not come of it."""
    clock = TurnedClock()
    store = MemoryStore(clock=clock)
    controller = Controller()
    async with standing(store, "one", clock, controller) as (leader, _):
        await until(lambda: leader.leads)
        await store.write([Delete(RECORD)])
        await until(lambda: not leader.leads)
        clock.advance(TERMS.every)
        await until(lambda: leader.leads)
    # The shown Lease is for people: who edits it changes nothing.
    async with standing(store, "one", clock, controller) as (leader, _):
        await until(lambda: leader.leads)
        await store.write([Put(SHOWN, {"spec": {"holderIdentity": "me"}})])
        await settled()
        assert leader.leads


async def test_a_controller_that_falls_over_the_store_is_started_again() -> None:
    """An outage would leave the mesh without garbage collection for good."""
    clock = TurnedClock()
    store = MemoryStore(clock=clock)
    controller = Controller()
    async with standing(store, "one", clock, controller) as (_, task):
        await until(lambda: controller.runs)
        failing, controller.fail = controller.fail, asyncio.get_running_loop().create_future()
        failing.set_exception(Unavailable("away"))
        await until(lambda: controller.began == 2)
        controller.fail.set_exception(ZeroDivisionError("a bug"))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(asyncio.shield(task), 5)
    assert controller.runs == 0
