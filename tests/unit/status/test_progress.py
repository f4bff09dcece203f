"""Several control planes over one store: what each other's proxies have acknowledged, and that telling it comes to rest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from tests.unit.status.test_writer import INGRESS, Plane, gateway, service, virtual_service, workload
from tulle.control.progress import RESOURCE, SharedProgress
from tulle.control.store.memory import MemoryStore
from tulle.core import type_urls
from tulle.xds.status import Progress


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if so():
                return
            await asyncio.sleep(0.002)


class Replica(Plane):
    """A control plane beside others. Only one writes statuses; the proxies of all count."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        super().__init__(store)
        self.shared = SharedProgress(
            store, self.pipeline, lambda: self.proxies.values(), name, self.writer.proxies_moved, moment=0
        )
        self.writer.progress = self.shared

    @contextlib.asynccontextmanager
    async def up(self, *, leader: bool) -> AsyncIterator[None]:
        revision = await self.feed.load()
        tasks = [asyncio.ensure_future(self.feed.run(revision)), asyncio.ensure_future(self.shared.run())]
        if leader:
            await self.shared.want()
            tasks.append(asyncio.ensure_future(self.writer.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def move(self, *proxies: Progress) -> None:
        self.proxies = {one.proxy: one for one in proxies}
        self.shared.told()
        self.writer.proxies_moved()

    async def until(self, body: dict[str, object], kind: str, expected: str) -> None:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(KeyError, ValueError, AssertionError):
                    if await self.said(body, kind) == expected:
                        return
                await asyncio.sleep(0.005)

    async def caught_up(self) -> int:
        newest = (await self.store.list("namespaces"))[1]
        await until(lambda: self.pipeline.revision >= newest)
        return newest


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    await Plane(store).objects.prepare()
    return store


async def test_a_gateway_whose_proxy_is_elsewhere(store: MemoryStore) -> None:
    """With three control planes two of three Gateways would never be programmed."""
    leader, other = Replica(store, "a"), Replica(store, "b")
    async with leader.up(leader=True), other.up(leader=False):
        for body in (service(), workload(), gateway(), virtual_service()):
            await leader.objects.apply(leader.target(body), body, leader.writing)
        await leader.until(gateway(), "Programmed", "Unknown Pending")
        await other.caught_up()
        leader.move(Progress("default/one", 10**6))
        other.move(Progress(INGRESS, 10**6), Progress("default/two", 10**6), Progress("default/three", 10**6))
        await leader.until(gateway(), "Programmed", "True Programmed")
        await leader.until(virtual_service(), "Reconciled", "True Reconciled")
        await leader.objects.apply(leader.target(gateway()), gateway(port=81), leader.writing)
        refused = {(type_urls.LISTENER, "0.0.0.0_81"): "cannot bind"}
        await leader.until(gateway(), "Programmed", "True Programmed")
        other.move(Progress(INGRESS, 10**6, refused))
        await leader.until(gateway(), "Programmed", "False Invalid")


async def test_it_comes_to_rest(store: MemoryStore) -> None:
    """Each record would be a revision that proxies acknowledge, and that the next record."""
    leader, other = Replica(store, "a"), Replica(store, "b")
    async with leader.up(leader=True), other.up(leader=False):
        for body in (service(), workload(), gateway()):
            await leader.objects.apply(leader.target(body), body, leader.writing)
        other.move(Progress(INGRESS, 10**6))
        await leader.until(gateway(), "Programmed", "True Programmed")
        before = await leader.caught_up()
        for step in range(50):  # whatever the proxies go on to acknowledge
            other.move(Progress(INGRESS, 10**6 + step))
            leader.move(Progress("default/one", 10**6 + step))
            await asyncio.sleep(0.002)
        assert await leader.caught_up() - before <= 3


async def test_a_leader_that_begins_later_hears_of_what_was_acknowledged_before(store: MemoryStore) -> None:
    """After a change of the leader what was pending would stay so until somebody changed it again."""
    for body in (service(), workload(), gateway()):
        await Plane(store).objects.apply(Plane(store).target(body), body, Plane(store).writing)
    other = Replica(store, "b")
    async with other.up(leader=False):
        other.move(Progress(INGRESS, await other.caught_up()))
        await until(lambda: other.shared.lease != 0)
        for number in range(5):
            body = {**service(f"s{number}")}
            await other.objects.apply(other.target(body), body, other.writing)
        leader = Replica(store, "a")
        async with leader.up(leader=True):
            other.move(Progress(INGRESS, await other.caught_up()))
            await leader.until(gateway(), "Programmed", "True Programmed")


async def test_what_a_control_plane_that_ended_said_is_gone(store: MemoryStore) -> None:
    """Proxies of a machine that died would count for ever."""
    leader, other = Replica(store, "a"), Replica(store, "b")
    async with leader.up(leader=True):
        async with other.up(leader=False):
            other.move(Progress("default/two", 10**6))
            await until(lambda: [one.proxy for one in leader.shared()] == ["one of the proxies at b"])
        (stored,) = (one for one in (await store.list(RESOURCE))[0] if one.key.name == "b")
        assert stored.body["proxies"] == 1
        await store.revoke(other.shared.lease)
        await until(lambda: not leader.shared())
