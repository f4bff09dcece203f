"""The feed: what the API server has decoded of what it wrote is what the mesh reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tulle.api.decode import decode
from tulle.api.istio import VirtualService
from tulle.api.object import Object
from tulle.api.registry import kind_of_resource
from tulle.app.feed import Feed, as_read
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.target import Target, Writing
from tulle.control.store.memory import MemoryStore
from tulle.control.store.sqlite import SqliteStore
from tulle.core.compile.objects import bare, virtual_services
from tulle.core.pipeline import Pipeline
from tulle.ports import Key, Put

VIRTUAL_SERVICES = "virtualservices.networking.istio.io"
STATUS = {"conditions": [{"type": "Reconciled", "status": "True"}]}


class Mesh:
    """A judge that notes what it is to expect, and hands it on."""

    def __init__(self) -> None:
        self.feed: Feed | None = None
        self.expected: list[tuple[Key, dict[str, Any], Object]] = []

    async def judge(self, *_: Any) -> list[str]:
        return []

    def expect(self, key: Key, revision: int, body: dict[str, Any], new: Object) -> None:
        self.expected.append((key, body, new))
        if self.feed is not None:
            self.feed.expect(key, revision, body, new)


def at(resource: str, name: str, *, version: str = "", subresource: str = "") -> Target:
    kind = kind_of_resource(resource)
    assert kind is not None
    return Target(kind, version or kind.stored, "default" if kind.namespaced else "", name, subresource)


def route(host: str = "reviews") -> dict[str, Any]:
    spec = {"hosts": [host], "http": [{"timeout": "5s", "route": [{"destination": {"host": host}}]}]}
    return {"metadata": {"name": "r", "labels": {"a": "b"}}, "spec": spec}


@asynccontextmanager
async def fed(kept: SqliteStore | None = None) -> AsyncIterator[tuple[Objects, Mesh, Feed, MemoryStore | SqliteStore]]:
    store, mesh = kept or MemoryStore(), Mesh()
    objects = Objects(store, lambda: 1_700_000_000.0, mesh)
    await objects.prepare()
    mesh.feed = Feed(store, Pipeline(), lambda _published: None)
    work = asyncio.create_task(mesh.feed.run(await mesh.feed.load()))
    try:
        yield objects, mesh, mesh.feed, store
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await store.close()


async def test_what_was_written_is_what_is_read() -> None:
    """The mesh would act on another object than the stored one: of another generation, or with a status that it must not see."""
    async with fed() as (objects, mesh, _feed, store):
        written = Writing("me")
        await objects.create(
            at("services", "reviews"), {"metadata": {"name": "reviews"}, "spec": {"ports": [{"port": 80}]}}, written
        )
        labelled = {"labels": {"a": "b"}}
        await objects.patch(
            at("services", "reviews"), lambda live: {**live, "metadata": {**live["metadata"], **labelled}}, written
        )
        await objects.create(at(VIRTUAL_SERVICES, "r"), route(), written)
        await objects.patch(at(VIRTUAL_SERVICES, "r", subresource="status"), lambda live: {**live, "status": STATUS}, written)
        await objects.patch(at(VIRTUAL_SERVICES, "r"), lambda live: {**live, "spec": route("ratings")["spec"]}, written)
        await objects.apply(at(VIRTUAL_SERVICES, "r"), route("details"), Writing("other", force=True))
        stored = await store.get(Key(VIRTUAL_SERVICES, "default", "r"))
    assert stored is not None
    assert stored.body["metadata"]["generation"] == 3
    assert stored.body["status"] == STATUS
    assert len(mesh.expected) == 4, "neither a status, nor a Service that gets its address only after it was decoded"
    for key, body, one in mesh.expected:
        decoded, problems = decode({field: value for field, value in body.items() if field != "status"})
        assert decoded is not None, problems
        read = as_read(one, body)
        assert bare(read) == bare(decoded), key
        assert read.metadata.generation == decoded.metadata.generation, key


async def test_only_what_was_stored_counts() -> None:
    """Where another hand was faster, or wrote in another version, the mesh would act on what is not in the store."""
    async with fed() as (objects, _mesh, feed, store):
        key = Key(VIRTUAL_SERVICES, "default", "r")
        created = await objects.create(at(VIRTUAL_SERVICES, "r"), route(), Writing("me"))
        elsewhere = {**created.body, "spec": route("elsewhere")["spec"]}
        other, _ = decode(elsewhere)
        assert other is not None
        at_next = int(created.body["metadata"]["resourceVersion"]) + 1
        for revision in (at_next - 1, at_next + 1):  # of before, and of what is not written at all
            feed.expect(key, revision, elsewhere, other)
        await store.write([Put(key, {**created.body, "spec": route("details")["spec"]})])
        assert await feed.reached(at_next)
        row = feed.pipeline.flow.get(virtual_services, ("default", "r"))
        assert row is not None
        assert row.spec.hosts == ("details",)
        await objects.patch(
            at(VIRTUAL_SERVICES, "r", version="v1beta1"), lambda live: {**live, "spec": route("ratings")["spec"]}, Writing("me")
        )
        assert await feed.reached((await store.list())[1])
        row = feed.pipeline.flow.get(virtual_services, ("default", "r"))
        assert row is not None
        assert row.spec.hosts == ("ratings",)
        assert row.api_version == "networking.istio.io/v1"


async def test_what_was_decoded_is_not_decoded_again(tmp_path: Path) -> None:
    """Broken: every write through the API server would cost a decoding more."""
    async with fed(SqliteStore(tmp_path / "s.db")) as (objects, mesh, feed, store):

        async def taken_over() -> bool:
            assert await feed.reached((await store.list())[1])
            row, new = feed.pipeline.flow.get(virtual_services, ("default", "r")), mesh.expected[-1][2]
            return row is not None and isinstance(new, VirtualService) and row.spec is new.spec

        await objects.create(at(VIRTUAL_SERVICES, "r"), route(), Writing("me"))
        assert await taken_over()
        await objects.patch(at(VIRTUAL_SERVICES, "r"), lambda live: {**live, "spec": route("ratings")["spec"]}, Writing("me"))
        assert await taken_over()


async def test_a_revision_that_does_not_come_is_not_waited_for_for_ever() -> None:
    """A write would hang where the store is away while the mesh reads."""
    async with fed() as (_objects, _mesh, feed, store):
        now = (await store.list())[1]
        assert await feed.reached(now)
        assert not await feed.reached(now + 1, within=0.01)
