"""One suite over every store: what the API server, the pipeline and the CA rely on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.store.steps import numbered, take
from tulle.kit.errors import Unavailable
from tulle.ports import Compacted, Conflict, Delete, Event, Key, Put, Store

A = Key("services", "default", "a")
B = Key("services", "default", "b")
C = Key("services", "other", "c")
T = Key("_jointokens", "", "t")


async def test_get_returns_what_was_put(store: Store) -> None:
    """A body would come back changed, or an absent key as something."""
    body: dict[str, Any] = {"metadata": {"name": "a", "labels": {"ü": "✓"}}, "list": [1, 2.5, None, True, {"x": []}]}
    revision = await store.write([Put(A, body)])
    found = await store.get(A)
    assert found is not None
    assert (found.key, found.body, found.revision) == (A, body, revision)
    assert await store.get(B) is None


async def test_a_readers_changes_do_not_reach_the_store(store: Store) -> None:
    """A caller that edits what it read, or what it wrote, would silently change the stored object."""
    body = {"labels": {"app": "a"}}
    await store.write([Put(A, body)])
    body["labels"]["app"] = "changed"
    first = await store.get(A)
    assert first is not None
    first.body["labels"]["app"] = "changed too"
    second = await store.get(A)
    assert second is not None
    assert second.body == {"labels": {"app": "a"}}


async def test_revisions_grow_over_all_keys(store: Store) -> None:
    """Two writes with one revision could not be ordered by a watcher."""
    revisions = [await store.write([Put(key, {})]) for key in (A, B, A, C)]
    assert revisions == sorted(set(revisions))
    found = await store.get(A)
    assert found is not None
    assert found.revision == revisions[2]


async def test_list_is_sorted_and_filtered_and_says_its_revision(store: Store) -> None:
    """A list that holds at another revision than it says makes a watcher miss or repeat a change."""
    await store.write([Put(C, numbered(3)), Put(T, numbered(4))])
    revision = await store.write([Put(B, numbered(2)), Put(A, numbered(1))])
    services, at = await store.list("services")
    assert [one.key for one in services] == [A, B, C]
    assert at == revision
    assert [one.key for one in (await store.list("services", "default"))[0]] == [A, B]
    assert [one.key for one in (await store.list())[0]] == [T, A, B, C]
    assert (await store.list("nothing"))[0] == []


async def test_expectations(store: Store) -> None:
    """Optimistic concurrency: the second of two writers must learn that it lost, and what is there now."""
    first = await store.write([Put(A, numbered(1), expect=0)])
    with pytest.raises(Conflict) as conflict:
        await store.write([Put(A, numbered(2), expect=0)])
    assert (conflict.value.key, conflict.value.expected, conflict.value.found) == (A, 0, first)
    second = await store.write([Put(A, numbered(2), expect=first)])
    for stale in (Put(A, numbered(3), expect=first), Delete(A, expect=first)):
        with pytest.raises(Conflict):
            await store.write([stale])
    with pytest.raises(Conflict) as absent:
        await store.write([Put(B, numbered(1), expect=second)])
    assert absent.value.found == 0
    await store.write([Delete(A, expect=second)])
    with pytest.raises(Conflict):
        await store.write([Delete(A, expect=second)])
    await store.write([Put(A, numbered(4), expect=0)])


async def test_deleting_what_is_absent(store: Store) -> None:
    """Without an expectation it is no change at all; a revision for it would be an event that nobody sees."""
    before = await store.write([Put(A, {})])
    assert await store.write([Delete(B)]) == before
    assert await store.write([]) == before


async def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    """Half of a transaction would be a used token without its certificate."""
    revision = await store.write([Put(A, numbered(1))])
    with pytest.raises(Conflict):
        await store.write([Put(B, numbered(2)), Delete(A), Put(C, numbered(3), expect=revision)])
    assert await store.get(B) is None
    assert await store.get(A) is not None
    at = await store.write([Delete(A), Put(B, numbered(2), expect=0), Put(C, numbered(3))])
    assert {one.revision for one in (await store.list())[0]} == {at}
    with pytest.raises(ValueError, match="twice"):
        await store.write([Put(A, {}), Delete(A)])


async def test_watch_replays_then_follows(store: Store) -> None:
    """A watcher must see what came after its revision and nothing before, with the bodies before and after."""
    await store.write([Put(A, numbered(1))])
    since = await store.write([Put(B, numbered(1))])
    changed = await store.write([Put(A, numbered(2))])
    events = store.watch(since)
    assert await take(events, 1) == [Event(A, changed, numbered(2), numbered(1))]
    waiting = asyncio.ensure_future(take(events, 3))
    await asyncio.sleep(0)
    deleted = await store.write([Delete(A), Put(C, numbered(5))])
    created = await store.write([Put(T, numbered(6))])
    assert await waiting == [
        Event(A, deleted, None, numbered(2)),
        Event(C, deleted, numbered(5)),
        Event(T, created, numbered(6)),
    ]
    await events.aclose()


async def test_watch_of_one_resource(store: Store) -> None:
    """A watcher of services would be woken for, or confused by, other kinds."""
    events = store.watch(0, "services")
    await store.write([Put(T, {}), Put(A, numbered(1))])
    await store.write([Put(T, {})])
    last = await store.write([Delete(A)])
    assert [(event.key, event.revision) for event in await take(events, 2)] == [(A, last - 2), (A, last)]


async def test_no_event_is_missed_or_repeated(store: Store) -> None:
    """Watchers that start anywhere, amid concurrent writers, must each see every later change exactly once, in order."""
    seen: list[list[Event]] = []

    async def follow(since: int) -> None:
        mine: list[Event] = []
        seen.append(mine)
        async for event in store.watch(since):
            mine.append(event)
            if event.key.name == "end":
                return

    async def writer(name: str) -> None:
        for n in range(40):
            await store.write([Put(Key("x", name, "one"), numbered(n)), Put(Key("x", name, "two"), numbered(n))])

    watchers = [asyncio.ensure_future(follow(0))]
    writers = [asyncio.ensure_future(writer(f"w{n}")) for n in range(5)]
    starts = [0]
    for pending in writers:
        _, revision = await store.list()
        starts.append(revision)
        watchers.append(asyncio.ensure_future(follow(revision)))
        await pending
    await store.write([Put(Key("x", "", "end"), {})])
    await asyncio.wait_for(asyncio.gather(*watchers), 20)
    whole = seen[0]
    assert len(whole) == 5 * 40 * 2 + 1
    for start, mine in zip(starts, seen, strict=True):
        assert mine == [event for event in whole if event.revision > start]
    for name in ("w0", "w4"):
        ours = [event.body for event in whole if event.key == Key("x", name, "one")]
        assert ours == [numbered(n) for n in range(40)]


async def test_concurrent_increments_lose_nothing(store: Store) -> None:
    """Compare-and-swap under contention: a lost update would be a change that a person saw accepted."""
    await store.write([Put(A, numbered(0))])

    async def increment() -> None:
        while True:
            found = await store.get(A)
            assert found is not None
            try:
                await store.write([Put(A, numbered(found.body["n"] + 1), expect=found.revision)])
            except Conflict:
                continue
            return

    await asyncio.wait_for(asyncio.gather(*(increment() for _ in range(30))), 30)
    found = await store.get(A)
    assert found is not None
    assert found.body == numbered(30)


async def test_a_cancelled_writer_harms_nobody(store: Store) -> None:
    """A client that hangs up while its write is on the way must not stop the writes of others."""
    tasks = [asyncio.ensure_future(store.write([Put(Key("x", "", str(n)), numbered(n))])) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(store.write([Put(A, {})]), 10)
    names = {one.key.name for one in (await store.list("x"))[0]}
    assert {str(n) for n in range(1, 20, 2)} <= names


async def test_compaction(open_store: Callable[..., Store]) -> None:
    """A watcher from a forgotten revision must be told so; silence would be a missed change."""
    store = open_store(log=10)
    first = await store.write([Put(A, numbered(0))])
    slow = store.watch(first)
    for n in range(1, 100):
        await store.write([Put(A, numbered(n)), Put(B, numbered(n))])
    with pytest.raises(Compacted) as compacted:
        await take(store.watch(first), 1)
    with pytest.raises(Compacted):
        await take(slow, 1)
    oldest = compacted.value.oldest
    assert compacted.value.asked == first
    _, revision = await store.list()
    assert revision - 20 < oldest < revision - 4
    events = await take(store.watch(oldest), 2 * (revision - oldest))
    assert [event.revision for event in events] == [at for at in range(oldest + 1, revision + 1) for _ in range(2)]


async def test_close_ends_watches_and_refuses_writes(store: Store) -> None:
    """A watcher that waits for ever on a closed store would keep the process from stopping."""
    waiting = asyncio.ensure_future(take(store.watch(0), 1))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await store.write([Put(A, {})])
    await store.close()
