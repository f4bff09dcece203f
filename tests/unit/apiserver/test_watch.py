"""Watches through the API: every change once, in order, from where the client was."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support.apiserver import Running, running
from tulle.api.registry import kind_for
from tulle.client.api import ApiClient
from tulle.client.errors import Expired
from tulle.control.store.memory import MemoryStore

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
