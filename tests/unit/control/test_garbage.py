"""Garbage collection: owners and dependents, in the background, in the foreground, orphaned; and namespaces that wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tulle.api.registry import kind_for
from tulle.control.apiserver.deletion import Deletion, Policy
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.target import Target, Writing
from tulle.control.events import Events
from tulle.control.garbage import GarbageCollector
from tulle.control.store.memory import MemoryStore
from tulle.ports import Key, Stored

NOW = 1_700_000_000.0
BY = Writing("test")


class Mesh:
    """Objects in a store in memory, with a garbage collector that may run."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.objects = Objects(self.store, lambda: NOW)
        self.events = Events(self.store, lambda: NOW)
        self.collector = GarbageCollector(self.store, self.objects, self.events)

    @contextlib.asynccontextmanager
    async def collecting(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.collector.run())
        try:
            yield
            await self.settled()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def settled(self) -> None:
        """Return when the collector has seen everything and has nothing left to do."""
        async with asyncio.timeout(10):
            while True:
                _, revision = await self.store.list("_none")
                if self.collector.position >= revision and self.collector.idle.is_set() and not self.collector._work:
                    return
                await asyncio.sleep(0)

    def at(self, kind: str, name: str, namespace: str = "default") -> Target:
        found = kind_for("", kind)
        assert found is not None
        return Target(found, "v1", namespace if found.namespaced else "", name)

    async def make(
        self, name: str, *owners: dict[str, Any], kind: str = "ConfigMap", namespace: str = "default", **metadata: Any
    ) -> dict[str, Any]:
        body = {"metadata": {"name": name, "ownerReferences": list(owners), **metadata}}
        return (await self.objects.create(self.at(kind, "", namespace), body, BY)).body

    async def delete(self, name: str, policy: Policy = "", kind: str = "ConfigMap", namespace: str = "default") -> None:
        await self.objects.delete(self.at(kind, name, namespace), Deletion(policy), BY)

    async def get(self, name: str, kind: str = "ConfigMap", namespace: str = "default") -> Stored | None:
        return await self.store.get(self.at(kind, name, namespace).key)

    async def told(self) -> list[dict[str, Any]]:
        return [one.body for one in (await self.store.list("events"))[0]]


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    one = Mesh()
    await one.objects.prepare()
    yield one
    await one.store.close()


def owner(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    metadata = body["metadata"]
    return {
        "apiVersion": body.get("apiVersion", "v1"),
        "kind": body["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        **more,
    }


async def test_dependents_go_with_their_last_owner(mesh: Mesh) -> None:
    """What a controller made for an object would otherwise live for ever; what has another owner must stay."""
    async with mesh.collecting():
        first, second = await mesh.make("first"), await mesh.make("second")
        await mesh.make("both", owner(first), owner(second))
        child = await mesh.make("child", owner(first))
        await mesh.make("grandchild", owner(child))
        await mesh.make("free")
        await mesh.settled()
        await mesh.delete("first")
        await mesh.settled()
        for name in ("first", "child", "grandchild"):
            assert await mesh.get(name) is None, name
        both = await mesh.get("both")
        assert both is not None
        assert [one["name"] for one in both.body["metadata"]["ownerReferences"]] == ["second"]
        assert await mesh.get("free") is not None


async def test_what_happened_while_nobody_collected(mesh: Mesh) -> None:
    """After a restart of the control plane nothing that was missed may stay."""
    first = await mesh.make("first")
    await mesh.make("child", owner(first))
    await mesh.delete("first")
    async with mesh.collecting():
        pass
    assert await mesh.get("child") is None


async def test_an_owner_of_the_same_name_is_another(mesh: Mesh) -> None:
    """An object made anew under an old name owns nothing of its predecessor's."""
    first = await mesh.make("first")
    await mesh.make("child", owner(first))
    await mesh.delete("first")
    await mesh.make("first")
    async with mesh.collecting():
        pass
    assert await mesh.get("child") is None


async def test_owners_that_cannot_be_looked_up_keep_their_dependents(mesh: Mesh) -> None:
    """Objects that come from a Kubernetes cluster name owners that are not served here; deleting them would be a loss."""
    await mesh.make("child", {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "1"})
    async with mesh.collecting():
        pass
    assert await mesh.get("child") is not None


async def test_foreground_waits_for_the_dependents_that_block(mesh: Mesh) -> None:
    """Whoever waits for the owner to be gone must be able to rely on its dependents being gone, too."""
    first = await mesh.make("first")
    child = await mesh.make("child", owner(first, blockOwnerDeletion=True), finalizers=["example.com/x"])
    await mesh.make("grandchild", owner(child, blockOwnerDeletion=True))
    async with mesh.collecting():
        await mesh.delete("first", "Foreground")
        await mesh.settled()
        assert await mesh.get("grandchild") is None
        held = await mesh.get("child")
        assert held is not None
        assert held.body["metadata"]["deletionTimestamp"]
        assert held.body["metadata"]["finalizers"] == ["example.com/x"]
        assert await mesh.get("first") is not None
        await mesh.objects.patch(
            mesh.at("ConfigMap", "child"), lambda live: {**live, "metadata": {**live["metadata"], "finalizers": []}}, BY
        )
        await mesh.settled()
        assert await mesh.get("child") is None
        assert await mesh.get("first") is None


async def test_foreground_does_not_wait_for_the_others(mesh: Mesh) -> None:
    """Only dependents that say so block."""
    first = await mesh.make("first")
    await mesh.make("child", owner(first), finalizers=["example.com/x"])
    async with mesh.collecting():
        await mesh.delete("first", "Foreground")
        await mesh.settled()
        assert await mesh.get("first") is None
        held = await mesh.get("child")
        assert held is not None
        assert "deletionTimestamp" in held.body["metadata"]


async def test_two_that_own_each_other_go(mesh: Mesh) -> None:
    """A circle in which each waits for the other would never end."""
    first = await mesh.make("first")
    second = await mesh.make("second", owner(first, blockOwnerDeletion=True))
    await mesh.objects.patch(
        mesh.at("ConfigMap", "first"),
        lambda live: {**live, "metadata": {**live["metadata"], "ownerReferences": [owner(second, blockOwnerDeletion=True)]}},
        BY,
    )
    async with mesh.collecting():
        await mesh.settled()
        await mesh.delete("first", "Foreground")
        await mesh.settled()
        assert await mesh.get("first") is None
        assert await mesh.get("second") is None


async def test_orphans_stay_and_forget_their_owner(mesh: Mesh) -> None:
    """`kubectl delete --cascade=orphan`: a reference that stayed would take them at the next look."""
    first, second = await mesh.make("first"), await mesh.make("second")
    await mesh.make("child", owner(first), owner(second))
    await mesh.make("only", owner(first))
    async with mesh.collecting():
        await mesh.delete("first", "Orphan")
        await mesh.settled()
        assert await mesh.get("first") is None
        child, only = await mesh.get("child"), await mesh.get("only")
        assert child is not None
        assert only is not None
        assert [one["name"] for one in child.body["metadata"]["ownerReferences"]] == ["second"]
        assert "ownerReferences" not in only.body["metadata"]
        paths = str(only.body["metadata"]["managedFields"])
        assert "ownerReferences" not in paths


async def test_an_owner_in_another_namespace_is_none(mesh: Mesh) -> None:
    """Somebody who may write in one namespace must not tie objects to another's; the Event says why it went."""
    await mesh.make("shop", kind="Namespace")
    elsewhere = await mesh.make("first", namespace="shop")
    await mesh.make("child", owner(elsewhere))
    async with mesh.collecting():
        await mesh.settled()
        assert await mesh.get("child") is None
        assert await mesh.get("first", namespace="shop") is not None
        (event,) = await mesh.told()
        assert (event["type"], event["reason"], event["involvedObject"]["name"]) == (
            "Warning",
            "OwnerRefInvalidNamespace",
            "child",
        )


async def test_a_cluster_scoped_object_with_an_owner_in_a_namespace_stays(mesh: Mesh) -> None:
    """Which namespace is meant nobody can say: Kubernetes keeps it and says so."""
    first = await mesh.make("first")
    await mesh.make("shop", owner(first), kind="Namespace")
    async with mesh.collecting():
        await mesh.settled()
        await mesh.delete("first")
        await mesh.settled()
        assert await mesh.get("shop", "Namespace") is not None
        assert {event["reason"] for event in await mesh.told()} == {"OwnerRefInvalidNamespace"}


async def test_a_namespace_ends_when_its_last_object_is_gone(mesh: Mesh) -> None:
    """A namespace that waited for a finalizer must not need a second delete."""
    await mesh.make("shop", kind="Namespace")
    await mesh.make("held", namespace="shop", finalizers=["example.com/x"])
    async with mesh.collecting():
        await mesh.delete("shop", kind="Namespace")
        await mesh.settled()
        assert await mesh.get("shop", "Namespace") is not None
        unheld = lambda live: {**live, "metadata": {**live["metadata"], "finalizers": []}}  # noqa: E731
        await mesh.objects.patch(mesh.at("ConfigMap", "held", "shop"), unheld, BY)
        await mesh.settled()
        assert await mesh.get("shop", "Namespace") is None


async def test_a_namespace_that_was_left_half_deleted(mesh: Mesh) -> None:
    """A control plane that stopped in the middle of a delete ends it when it comes back."""
    await mesh.make("shop", kind="Namespace")
    await mesh.make("a", namespace="shop")
    stored = await mesh.store.get(Key("namespaces", "", "shop"))
    assert stored is not None
    from tulle.control.apiserver.removal import marked
    from tulle.ports import Put

    await mesh.store.write([Put(stored.key, marked(stored.body, [], NOW))])
    async with mesh.collecting():
        pass
    assert not [one.key for one in (await mesh.store.list())[0] if "shop" in (one.key.namespace, one.key.name)]


async def test_collections_are_told_in_the_history(mesh: Mesh) -> None:
    """Who reads the history must see that nobody deleted it by hand."""
    first = await mesh.make("first")
    await mesh.make("child", owner(first))
    async with mesh.collecting():
        await mesh.delete("first")
    (change,) = await mesh.store.history(name="child")
    assert (change.cause.author, change.cause.verb, change.body) == ("system:controller:garbage-collector", "delete", None)
