"""Leases: what is bound to one goes when its holder falls silent, and not before. On a clock that the test turns."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.store.conftest import Open
from tests.conformance.store.steps import numbered, take
from tests.support.clock import TurnedClock
from tulle.ports import Delete, Event, Key, LeaseLost, Put, Store

LEADER = Key("_leader", "", "controllers")
A = Key("services", "default", "a")


@pytest.fixture
def store(open_store: Open, clock: TurnedClock) -> Store:
    """A store whose leases the test's clock counts."""
    return open_store(clock=clock)


async def until_gone(store: Store, key: Key, since: int) -> Event:
    """The delete event of the key."""
    while True:
        event = (await take(store.watch(since), 1))[0]
        if event.key == key and event.body is None:
            return event
        since = event.revision


async def test_a_silent_holder_loses_its_keys(store: Store, clock: TurnedClock) -> None:
    """A leader that died would stay leader for ever."""
    lease = await store.grant(10)
    await store.write([Put(A, numbered(1))])
    held = await store.write([Put(LEADER, numbered(1), lease=lease), Put(Key("x", "", "too"), {}, lease=lease)])
    found = await store.get(LEADER)
    assert found is not None
    assert found.lease == lease
    await asyncio.sleep(0)
    clock.advance(9.9)
    assert await store.get(LEADER) is not None
    clock.advance(0.2)
    gone = await take(store.watch(held), 2)
    assert {event.key for event in gone} == {LEADER, Key("x", "", "too")}
    assert {event.revision for event in gone} == {held + 1}  # one transaction: no moment with half of it
    assert all(event.body is None for event in gone)
    assert await store.get(LEADER) is None
    assert await store.get(A) is not None


async def test_a_renewed_lease_lives_on(store: Store, clock: TurnedClock) -> None:
    """A leader that is well would lose its place."""
    lease = await store.grant(10)
    await store.write([Put(LEADER, {}, lease=lease)])
    for _ in range(5):
        await asyncio.sleep(0)
        clock.advance(8)
        await store.renew(lease)
        await asyncio.sleep(0.01)  # whatever would delete it has its chance
        assert await store.get(LEADER) is not None
    _, revision = await store.list()
    clock.advance(11)
    assert (await until_gone(store, LEADER, revision)).previous == {}


async def test_what_is_lost_stays_lost(store: Store, clock: TurnedClock) -> None:
    """A holder that slept through the end of its lease must not go on as if it still had it."""
    lease = await store.grant(10)
    revision = await store.write([Put(LEADER, {}, lease=lease)])
    await asyncio.sleep(0)
    clock.advance(11)  # before anything ran: the lease has ended all the same
    with pytest.raises(LeaseLost):
        await store.renew(lease)
    with pytest.raises(LeaseLost):
        await store.write([Put(LEADER, {}, lease=lease)])
    await until_gone(store, LEADER, revision)
    for unknown in (lease, 12345):
        with pytest.raises(LeaseLost) as lost:
            await store.renew(unknown)
        assert lost.value.lease == unknown
        with pytest.raises(LeaseLost):
            await store.write([Put(A, {}), Put(LEADER, {}, lease=unknown)])
    assert await store.get(A) is None


async def test_revoking(store: Store) -> None:
    """A leader that steps down hands over at once, and may say so twice."""
    lease, other = await store.grant(10), await store.grant(10)
    await store.write([Put(LEADER, {}, lease=lease), Put(A, {}, lease=other)])
    await store.revoke(lease)
    assert await store.get(LEADER) is None
    assert await store.get(A) is not None
    await store.revoke(lease)
    await store.revoke(987654321)
    with pytest.raises(LeaseLost):
        await store.renew(lease)
    await store.renew(other)


async def test_a_put_decides_the_lease_anew(store: Store) -> None:
    """An object that was taken over from its old holder must not go with it."""
    lease = await store.grant(10)
    await store.write([Put(LEADER, numbered(1), lease=lease), Put(A, {}, lease=lease)])
    await store.write([Put(LEADER, numbered(2))])
    await store.write([Delete(A)])
    await store.write([Put(A, {})])
    before = (await store.list())[1]
    await store.revoke(lease)
    assert {one.key for one in (await store.list())[0]} == {LEADER, A}
    assert (await store.list())[1] == before  # nothing was bound: no change at all
