"""Events: counted while they repeat, swept when they are old, never in the way of what they are about."""

from __future__ import annotations

from typing import Any

from tulle.control.apiserver.objects import Objects
from tulle.control.events import Events
from tulle.control.store.memory import MemoryStore
from tulle.ports import Delete, Key

ABOUT: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "reviews", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
}


class Time:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def kept(store: MemoryStore) -> list[dict[str, Any]]:
    return [one.body for one in (await store.list("events"))[0]]


async def ready() -> tuple[MemoryStore, Time, Events]:
    store, time = MemoryStore(), Time()
    await Objects(store, time).prepare()
    return store, time, Events(store, time)


async def test_the_same_again_is_counted() -> None:
    """A condition that flaps would fill the store, and hide every other Event from a reader."""
    store, time, events = await ready()
    for _ in range(3):
        await events.record(ABOUT, "Warning", "HostNotFound", "no host reviews")
        time.now += 60
    (event,) = await kept(store)
    assert (event["count"], event["firstTimestamp"], event["lastTimestamp"]) == (
        3,
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:15:20Z",
    )
    assert event["involvedObject"] == {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "name": "reviews",
        "namespace": "default",
        "uid": "u1",
        "resourceVersion": "7",
    }
    await events.record(ABOUT, "Warning", "HostNotFound", "no host ratings")
    await events.record({**ABOUT, "metadata": {**ABOUT["metadata"], "uid": "u2"}}, "Warning", "HostNotFound", "no host reviews")
    assert [one["count"] for one in await kept(store)].count(1) == 2


async def test_after_an_hour_it_is_new() -> None:
    """A count since last week says nothing about today."""
    store, time, events = await ready()
    await events.record(ABOUT, "Normal", "Accepted", "all is well")
    time.now += 3700
    await events.record(ABOUT, "Normal", "Accepted", "all is well")
    (event,) = await kept(store)
    assert (event["count"], event["firstTimestamp"]) == (1, event["lastTimestamp"])


async def test_old_events_are_swept() -> None:
    """Nobody deletes Events by hand; those that other programs wrote go as well."""
    store, time, events = await ready()
    await events.record(ABOUT, "Normal", "Accepted", "all is well")
    time.now += 3000
    await events.record(ABOUT, "Warning", "HostNotFound", "no host")
    time.now += 1000
    assert await events.sweep() == 1
    assert [one["reason"] for one in await kept(store)] == ["HostNotFound"]


async def test_cluster_scoped_objects_have_their_events_in_default() -> None:
    """`kubectl describe` looks for them there."""
    store, _, events = await ready()
    await events.record(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "u"}}, "Normal", "Made", "made"
    )
    (event,) = await kept(store)
    assert (event["metadata"]["namespace"], event["involvedObject"]["name"]) == ("default", "shop")
    assert "namespace" not in event["involvedObject"]


async def test_nothing_is_written_into_a_namespace_that_is_gone() -> None:
    """An Event would be left behind there for ever."""
    store, _, events = await ready()
    await store.write([Delete(Key("namespaces", "", "default"))])
    await events.record(ABOUT, "Normal", "Accepted", "all is well")
    assert await kept(store) == []


async def test_a_store_that_fails_is_no_reason_to_stop() -> None:
    """The status writer and the garbage collector do their work without Events, too."""
    store, _, events = await ready()
    await store.close()
    await events.record(ABOUT, "Normal", "Accepted", "all is well")
