"""Lists of an earlier revision: what the second page of a list must show, whatever was written since the first."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.store.conftest import Open
from tests.conformance.store.steps import numbered, take
from tulle.ports import Compacted, Delete, Future, Key, Put, Store

A = Key("services", "default", "a")
B = Key("services", "default", "b")
C = Key("services", "other", "c")
T = Key("_jointokens", "", "t")


async def test_a_list_of_an_earlier_revision(store: Store) -> None:
    """A page that shows another moment than the page before repeats an object, or leaves one out."""
    first = await store.write([Put(A, numbered(1)), Put(C, numbered(1))])
    second = await store.write([Put(A, numbered(2)), Put(B, numbered(1))])
    third = await store.write([Delete(A), Put(T, numbered(1)), Delete(C)])
    fourth = await store.write([Put(A, numbered(4))])
    states = {
        first: [(A, numbered(1), first), (C, numbered(1), first)],
        second: [(A, numbered(2), second), (B, numbered(1), second), (C, numbered(1), first)],
        third: [(B, numbered(1), second)],
        fourth: [(A, numbered(4), fourth), (B, numbered(1), second)],
    }
    for at, state in states.items():
        found, revision = await store.list("services", at=at)
        assert [(one.key, one.body, one.revision) for one in found] == state
        assert revision == at
    found, _ = await store.list("services", "other", at=second)
    assert [one.key for one in found] == [C]
    found, _ = await store.list(at=third)
    assert [one.key for one in found] == [T, B]


async def test_a_revision_that_is_not_there_yet(store: Store) -> None:
    """A client that has seen a later revision (of a store that was put back) must learn it, not get an older list as that."""
    revision = await store.write([Put(A, {})])
    with pytest.raises(Future) as error:
        await store.list(at=revision + 5)
    assert (error.value.asked, error.value.current) == (revision + 5, revision)


async def test_a_watch_of_the_future_waits_for_it(store: Store) -> None:
    """Events of before the asked revision would be news from the past."""
    revision = await store.write([Put(A, numbered(0))])
    events = store.watch(revision + 2)
    for n in range(1, 5):
        await store.write([Put(A, numbered(n))])
    assert [event.body for event in await take(events, 2)] == [numbered(3), numbered(4)]


async def test_a_revision_that_is_forgotten(open_store: Open) -> None:
    """A wrong page is worse than one that must be asked for anew."""
    store = open_store(log=10)
    first = await store.write([Put(A, numbered(0))])
    for n in range(1, 100):
        await store.write([Put(A, numbered(n))])
    with pytest.raises(Compacted) as error:
        await store.list("services", at=first)
    assert error.value.asked == first
    found, _ = await store.list("services", at=error.value.oldest)
    assert [one.revision for one in found] == [error.value.oldest]


async def test_other_resources_do_not_make_a_watch_old(open_store: Open) -> None:
    """A watch of something that seldom changes would end whenever other things change a lot."""
    store = open_store(log=10)
    since = await store.write([Put(A, numbered(0))])
    events = store.watch(since, "services")
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    for n in range(100):
        await store.write([Put(T, numbered(n))])
    last = await store.write([Put(A, numbered(1))])
    assert (await asyncio.wait_for(waiting, 10)).revision == last
