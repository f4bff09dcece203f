"""The history: what people ask who changed what, and what a rollback stands on."""

from __future__ import annotations

import pytest

from tests.conformance.store.conftest import Open
from tests.conformance.store.steps import numbered
from tulle.ports import Cause, Change, Compacted, Conflict, Delete, Key, Put, Store

A = Key("services", "default", "a")
B = Key("services", "other", "b")
V = Key("virtualservices.networking.istio.io", "default", "a")


def by(author: str, time: float = 100.0, verb: str = "update") -> Cause:
    return Cause(author, "192.0.2.7", time, verb)


async def test_every_change_with_a_cause_is_kept(store: Store) -> None:
    """Who asks what happened must get all of it, with both sides, the newest first."""
    first = await store.write([Put(A, numbered(1)), Put(B, numbered(1))], by("anna", 1.0, "create"))
    await store.write([Put(A, numbered(2))])  # a status: nobody's change
    third = await store.write([Put(A, numbered(3)), Put(V, numbered(1))], by("ben", 3.0))
    fourth = await store.write([Delete(A), Delete(Key("services", "default", "absent"))], by("cleo", 4.0, "delete"))
    assert list(await store.history()) == [
        Change(A, fourth, numbered(3), None, by("cleo", 4.0, "delete")),
        Change(A, third, numbered(2), numbered(3), by("ben", 3.0)),
        Change(V, third, None, numbered(1), by("ben", 3.0)),
        Change(A, first, None, numbered(1), by("anna", 1.0, "create")),
        Change(B, first, None, numbered(1), by("anna", 1.0, "create")),
    ]
    assert [one.revision for one in await store.history(resource="services", namespace="default", name="a")] == [
        fourth,
        third,
        first,
    ]
    assert [one.key for one in await store.history(namespace="other")] == [B]
    assert [one.key for one in await store.history(name="a", resource=V.resource)] == [V]
    assert [one.revision for one in await store.history(since=third)] == [fourth]
    assert [one.revision for one in await store.history(limit=2)] == [fourth, third]


async def test_what_never_belongs_into_it(store: Store) -> None:
    """Internal records and what passes by itself would push out what people look for, or show what is not theirs."""
    passing = [
        Key("_jointokens", "", "t"),
        Key("events", "default", "e"),
        Key("events.events.k8s.io", "default", "e"),
        Key("leases.coordination.k8s.io", "default", "l"),
    ]
    await store.write([Put(key, {}) for key in passing], by("anna"))
    await store.write([Delete(key) for key in passing], by("anna"))
    assert list(await store.history()) == []


async def test_a_refused_write_leaves_no_history(store: Store) -> None:
    """A change that never was would be rolled back."""
    await store.write([Put(A, numbered(1))], by("anna"))
    with pytest.raises(Conflict):
        await store.write([Put(B, {}), Put(A, numbered(2), expect=0)], by("ben"))
    assert [one.cause.author for one in await store.history()] == ["anna"]


async def test_forgetting_by_time(store: Store) -> None:
    """Kept for longer than was said, or gone earlier; and a rollback must learn that something is missing."""
    for n in range(10):
        last = await store.write([Put(A, numbered(n))], by("anna", 100.0 + n))
    assert await store.forget(105.0) == 5
    assert await store.forget(105.0) == 0
    kept = await store.history()
    assert [one.cause.time for one in kept] == [109.0, 108.0, 107.0, 106.0, 105.0]
    oldest = last - 5  # the newest revision that was forgotten: everything after it is kept
    assert list(await store.history(since=oldest)) == list(kept)
    with pytest.raises(Compacted) as error:
        await store.history(since=oldest - 1)
    assert (error.value.asked, error.value.oldest) == (oldest - 1, oldest)


async def test_forgetting_by_count(open_store: Open) -> None:
    """A script that writes all day must not fill the disk within the month that history is kept."""
    store = open_store(kept=20)
    revisions = [await store.write([Put(A, numbered(n))], by("anna")) for n in range(100)]
    kept = [one.revision for one in await store.history()]
    assert 20 <= len(kept) <= 26
    assert kept == revisions[: -len(kept) - 1 : -1]
    with pytest.raises(Compacted):
        await store.history(since=revisions[0])
    assert [one.revision for one in await store.history(since=revisions[-3])] == revisions[:-3:-1]
