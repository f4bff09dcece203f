"""Watches through the API: every change once, in order, from where the client was."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support.apiserver import Raw, Running, running
from tulle.api.registry import kind_for
from tulle.client.api import ApiClient
from tulle.client.errors import Expired
from tulle.control.apiserver.shared_watch import Watches
from tulle.control.store.memory import MemoryStore
from tulle.ports import Compacted, Key, Put

_found = kind_for("", "ConfigMap")
assert _found is not None
CONFIG_MAP = _found


def config(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {}}


async def take(events: Any, count: int) -> list[tuple[str, str]]:
    """Type and name of the next events."""

    async def collect() -> list[tuple[str, str]]:
        return [(event["type"], event["object"]["metadata"]["name"]) for event in [await anext(events) for _ in range(count)]]

    return await asyncio.wait_for(collect(), 10)


async def test_list_then_watch_misses_nothing(api: ApiClient) -> None:
    """A controller lists, then watches from there: a gap is a change that nobody acts on."""
    await api.create(config("a"))
    listed = await api.list(CONFIG_MAP)
    await api.create(config("b"))
    events = api.watch(CONFIG_MAP, since=listed["metadata"]["resourceVersion"])
    assert await take(events, 1) == [("ADDED", "b")]
    await api.patch(CONFIG_MAP, "a", {"data": {"x": "y"}})
    await api.delete(CONFIG_MAP, "b")
    assert await take(events, 2) == [("MODIFIED", "a"), ("DELETED", "b")]
    await events.aclose()


async def test_watch_without_a_version_starts_with_what_is_there(api: ApiClient) -> None:
    """`kubectl get -w` of a fresh client would show nothing until something changes."""
    await api.create(config("a"))
    events = api.watch(CONFIG_MAP, "default")
    assert await take(events, 1) == [("ADDED", "a")]
    await api.create(config("b"))
    assert await take(events, 1) == [("ADDED", "b")]
    await events.aclose()


async def test_objects_that_leave_and_enter_a_selection(api: ApiClient) -> None:
    """A watcher by label would keep an object for ever that no longer has the label."""
    await api.create(config("a", app="x"))
    events = api.watch(CONFIG_MAP, label_selector="app=x")
    assert await take(events, 1) == [("ADDED", "a")]
    await api.create(config("other"))
    await api.patch(CONFIG_MAP, "a", {"metadata": {"labels": {"app": "y"}}})
    assert await take(events, 1) == [("DELETED", "a")]
    await api.patch(CONFIG_MAP, "other", {"metadata": {"labels": {"app": "x"}}})
    assert await take(events, 1) == [("ADDED", "other")]
    await events.aclose()
    named = api.watch(CONFIG_MAP, field_selector="metadata.name=a")
    assert await take(named, 1) == [("ADDED", "a")]
    await named.aclose()


async def test_a_version_that_is_gone_is_410() -> None:
    """A client that comes back after long must be told to list again, not be served with a gap."""
    async with running(MemoryStore(log=10)) as served, served.client() as api:
        first = (await api.create(config("a")))["metadata"]["resourceVersion"]
        for n in range(40):
            await api.patch(CONFIG_MAP, "a", {"data": {"n": str(n)}})
        events = api.watch(CONFIG_MAP, since=first)
        with pytest.raises(Expired):
            await asyncio.wait_for(anext(events), 10)


async def test_initial_events_end_with_a_bookmark(api: ApiClient) -> None:
    """New clients list by watching: without the marked bookmark they wait for ever."""
    await api.create(config("a"))
    query = {"watch": "1", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    assert api._session is not None
    async with api._session.get(f"{api.server}/api/v1/configmaps", params=query) as response:
        added = json.loads(await asyncio.wait_for(response.content.readline(), 10))
        mark = json.loads(await asyncio.wait_for(response.content.readline(), 10))
    assert added["type"] == "ADDED"
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["object"]["metadata"]["resourceVersion"] == added["object"]["metadata"]["resourceVersion"]


async def test_a_watch_ends_when_its_time_is_up(api: ApiClient) -> None:
    """Clients ask for an end so that they spread over servers; one that never comes holds them."""
    assert api._session is not None
    async with api._session.get(f"{api.server}/api/v1/configmaps", params={"watch": "1", "timeoutSeconds": "1"}) as response:
        assert await asyncio.wait_for(response.content.read(), 10) == b""


async def test_watchers_that_leave_are_let_go(served: Running) -> None:
    """A watch of a client that is gone would keep memory and a place in the store for ever."""
    async with served.client() as api:
        for _ in range(5):
            events = api.watch(CONFIG_MAP)
            waiting = asyncio.ensure_future(anext(events))
            while not served.server.routes.watches:  # noqa: ASYNC110 - the server keeps no event for it
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await events.aclose()
            await api.create({**config("x"), "metadata": {"generateName": "x-"}})

    async def gone() -> None:
        while served.server.routes.watches:  # noqa: ASYNC110 - the server keeps no event for it
            await asyncio.sleep(0.01)

    await asyncio.wait_for(gone(), 10)


async def lines(http: Raw, query: str, count: int) -> list[dict[str, Any]]:
    """The first events of a watch."""
    url = f"{http.served.url}/api/v1/namespaces/default/configmaps?watch=1&{query}"
    async with http.session.get(url) as response:
        assert response.status == 200
        return [json.loads(await asyncio.wait_for(response.content.readline(), 10)) for _ in range(count)]


async def test_a_version_that_is_gone_is_told_as_an_event() -> None:
    """Kubernetes answers such a watch with 200 and an ERROR event: informers of every language look for exactly that."""
    async with running(MemoryStore(log=10)) as served, served.client() as api, served.raw() as http:
        for n in range(40):
            await api.apply(config("a", n=str(n)))
        (event,) = await lines(http, "resourceVersion=1", 1)
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


async def test_a_watch_can_begin_now(api: ApiClient, http: Raw) -> None:
    """`sendInitialEvents=false` asks for changes only."""
    await api.create(config("old"))
    query = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
    waiting = asyncio.ensure_future(lines(http, query, 1))
    while not http.served.server.routes.watches:  # noqa: ASYNC110 - the server keeps no event for it
        await asyncio.sleep(0)
    await api.create(config("new"))
    (event,) = await waiting
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "new")


async def test_many_watchers_share_one_line(served: Running) -> None:
    """A change is encoded once for all who watch it in the same way, and each way is right."""
    async with served.client() as api, served.raw() as http:
        await api.create(config("a", app="x"))
        plain = [asyncio.ensure_future(lines(http, "labelSelector=app", 2)) for _ in range(20)]
        table = "application/json;as=Table;v=v1;g=meta.k8s.io"
        async with http.session.get(f"{served.url}/api/v1/configmaps?watch=1", headers={"Accept": table}) as tables:
            first = json.loads(await tables.content.readline())
            while len(served.server.routes.watches) < 21:  # noqa: ASYNC110 - the server keeps no event for it
                await asyncio.sleep(0)
            changed = await api.patch(CONFIG_MAP, "a", {"data": {"x": "y"}})
            second = json.loads(await tables.content.readline())
        for events in await asyncio.gather(*plain):
            assert events[1] == {"type": "MODIFIED", "object": changed}
        assert (first["object"]["kind"], second["object"]["kind"]) == ("Table", "Table")
        assert first["object"]["columnDefinitions"]
        assert not second["object"]["columnDefinitions"]
        entries = [entry for log in served.server.routes.shared._logs.values() for entry in log.entries]
        assert max(len(entry.lines) for entry in entries) == 2


async def test_a_bookmark_ends_a_watch_and_shows_the_newest_revision(
    api: ApiClient, http: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle watcher that comes back with an old revision is sent away once that is compacted."""
    monkeypatch.setattr("tulle.control.apiserver.watch._SETTLED", 0.0)
    await api.create(config("a"))
    await api.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}})
    newest = (await api.list(CONFIG_MAP))["metadata"]["resourceVersion"]
    added, mark = await lines(http, "allowWatchBookmarks=true&timeoutSeconds=1", 2)
    assert (added["type"], mark["type"]) == ("ADDED", "BOOKMARK")
    assert mark["object"]["metadata"]["resourceVersion"] == newest


async def test_the_shared_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for watchers must not grow with the life of the server; a watcher that stays behind is told to list again."""
    monkeypatch.setattr("tulle.control.apiserver.shared_watch._KEPT", 20)
    store = MemoryStore()
    shared = Watches(store)
    await shared.open()
    try:
        slow = shared.after(0, "things")
        for number in range(100):
            await store.write([Put(Key("things", "", str(number % 7)), {"n": number})])
        while shared.position < 100:  # noqa: ASYNC110 - it follows by itself
            await asyncio.sleep(0)
        assert sum(len(log.entries) for log in shared._logs.values()) <= 25
        with pytest.raises(Compacted):
            await anext(slow)
        batch = await anext(shared.after(95, "things"))
        assert [entry.event.revision for entry in batch] == [96, 97, 98, 99, 100]
    finally:
        await shared.close()
        await store.close()
