"""Whatever was created, changed and deleted: a rollback brings back exactly what was, and the books of it are right."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.api.registry import kind_of_resource
from tulle.control.apiserver.deletion import Deletion
from tulle.control.apiserver.errors import Denial
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.rollback import Rollback, meant
from tulle.control.apiserver.target import Target, Writing
from tulle.control.store.memory import MemoryStore
from tulle.ports import Cause, Key

CAUSE = Cause("anna", "", 1.0, "update")
RESOURCES = ("namespaces", "configmaps", "services")
State = Mapping[Key, Any]


class Everything:
    """Whoever asks may."""

    async def require(self, verb: str, target: Target) -> None:
        """Nothing is denied."""

    async def check(self, verb: str, target: Target, body: Any, old: Any) -> None:
        """Nothing is denied."""


def target(resource: str, namespace: str, name: str) -> Target:
    kind = kind_of_resource(resource)
    assert kind is not None
    return Target(kind, kind.stored, namespace if kind.namespaced else "", name)


def body(resource: str, value: int) -> dict[str, Any]:
    match resource:
        case "configmaps":
            return {"data": {"value": str(value)}}
        case "services":
            return {"spec": {"ports": [{"port": 80 + value}]}}
    return {"metadata": {"labels": {"value": str(value)}}}


_PLACE = st.tuples(st.sampled_from(["default", "shop"]), st.sampled_from("abc"))
_STEP = st.one_of(
    st.tuples(
        st.sampled_from(["write", "write", "delete"]), st.sampled_from(["configmaps", "services"]), _PLACE, st.integers(0, 3)
    ),
    st.tuples(st.sampled_from(["write", "delete"]), st.just("namespaces"), st.just(("", "shop")), st.integers(0, 3)),
)


async def snapshot(store: MemoryStore) -> State:
    """All objects of people, as they mean them."""
    found, _ = await store.list()
    return {one.key: meant(one.body) for one in found if one.key.resource in RESOURCES}


async def step(objects: Objects, verb: str, where: Target, value: int) -> None:
    """One write as people do it; what cannot be is refused, and changes nothing."""
    options = Writing("test", cause=CAUSE)
    try:
        if verb == "delete":
            await objects.delete(where, Deletion(), options)
        else:
            await objects.apply(where, body(where.kind.resource, value), options)
    except Denial:
        return


async def check_books(store: MemoryStore) -> None:
    """Each Service has an address of its own, which is held for it, and nothing else is held; no object is nowhere."""
    found, _ = await store.list()
    held = {one.key.name: one.body["service"] for one in found if one.key.resource == "_clusterips"}
    services = [one for one in found if one.key.resource == "services"]
    assert held == {one.body["spec"]["clusterIP"]: f"{one.key.namespace}/{one.key.name}" for one in services}
    assert len(held) == len(services)
    spaces = {one.key.name for one in found if one.key.resource == "namespaces"}
    assert {one.key.namespace for one in found if not one.key.resource.startswith("_")} <= spaces | {""}


@settings(deadline=None, max_examples=150)
@given(steps=st.lists(_STEP, min_size=2, max_size=20), back=st.integers(0, 19), again=st.integers(0, 19))
def test_a_rollback_brings_back_what_was(steps: list[tuple[str, str, tuple[str, str], int]], back: int, again: int) -> None:
    """A mesh that never was, two Services with one address, or an object in no namespace."""

    async def run() -> None:
        store = MemoryStore()
        objects = Objects(store, lambda: 1000.0)
        await objects.prepare()
        states = {(await store.list())[1]: await snapshot(store)}
        for verb, resource, (namespace, name), value in steps:
            await step(objects, verb, target(resource, namespace, name), value)
            states[(await store.list())[1]] = await snapshot(store)
        for choice in (back, again):
            revisions = sorted(states)
            to = revisions[choice % len(revisions)]
            before = {one.key: one.body["metadata"]["uid"] for one in (await store.list())[0] if one.key.resource in RESOURCES}
            plan = await Rollback(objects).run(to, None, Everything(), CAUSE, dry_run=False)
            assert await snapshot(store) == states[to]
            states[(await store.list())[1]] = states[to]
            await check_books(store)
            for one in (await store.list())[0]:
                if one.key in before:
                    assert one.body["metadata"]["uid"] == before[one.key]  # what stands stays the same object
            assert (await Rollback(objects).run(to, None, Everything(), CAUSE, dry_run=True)).steps == []
            assert plan.revision <= (await store.list())[1]

    asyncio.run(run())
