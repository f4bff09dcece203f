"""The controller on a real store: what it keeps between two looks never hides a change."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tulle.app.feed import Feed
from tulle.control.apiserver.objects import Objects
from tulle.control.events import Events
from tulle.control.rollouts.controller import COMMAND, Rollouts
from tulle.control.store.memory import MemoryStore
from tulle.control.telemetry.tally import Tallies, Versions
from tulle.core.model.calls import BOUNDS, Count, Edge
from tulle.core.pipeline import Pipeline
from tulle.ports import Key, Put

ISTIO = "networking.istio.io/v1"
ROLLOUT, ROUTE = Key("rollouts.tulle.dev", "default", "shop"), Key("virtualservices.networking.istio.io", "default", "shop")


def named(kind: str, api: str, spec: dict[str, Any], name: str = "shop") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": f"{kind}-{name}", "generation": 1}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def split(name: str) -> dict[str, Any]:
    versions = [{"destination": {"host": "shop", "subset": one}, "weight": weight} for one, weight in (("v1", 100), ("v2", 0))]
    return {"name": name, "route": versions}


OBJECTS = {
    Key("services", "default", "shop"): named(
        "Service", "v1", {"selector": {"app": "shop"}, "ports": [{"name": "http", "port": 80}]}
    ),
    **{
        Key("workloadentries.networking.istio.io", "default", f"shop-{one}"): named(
            "WorkloadEntry",
            ISTIO,
            {"address": f"10.0.0.{number}", "labels": {"app": "shop", "version": one}},
            f"shop-{one}",
        )
        for number, one in enumerate(("v1", "v2"), 1)
    },
    Key("destinationrules.networking.istio.io", "default", "shop"): named(
        "DestinationRule", ISTIO, {"host": "shop", "subsets": [{"name": one, "labels": {"version": one}} for one in ("v1", "v2")]}
    ),
    ROUTE: named("VirtualService", ISTIO, {"hosts": ["shop"], "http": [split("first"), split("second")]}),
    ROLLOUT: named(
        "Rollout",
        "tulle.dev/v1alpha1",
        {
            "targetRef": {"name": "shop"},
            "stable": {"version": "v1"},
            "candidate": {"version": "v2"},
            "routeRef": {"group": "networking.istio.io", "kind": "VirtualService", "name": "shop", "sectionName": "first"},
            "analysis": {"interval": "10s", "stepWeights": [10, 50]},
        },
    ),
}


class Rolling:
    """A controller whose clock goes on by hand."""

    def __init__(self, store: MemoryStore, rollouts: Rollouts, feed: Feed) -> None:
        self.store, self.rollouts, self.feed, self.now = store, rollouts, feed, 1000.0

    async def looks(self, times: int = 1, after: float = 0.0) -> list[list[int]]:
        """Look so many times, so many seconds apart; the weights in the route then."""
        for _ in range(times):
            self.now += after
            await self.rollouts.once()
            await self.feed.reached((await self.store.list("rollouts.tulle.dev"))[1])
        return [[one.get("weight", 0) for one in rule["route"]] for rule in (await self.body(ROUTE))["spec"]["http"]]

    async def body(self, key: Key = ROLLOUT) -> dict[str, Any]:
        stored = await self.store.get(key)
        assert stored is not None
        return copy.deepcopy(stored.body)

    async def phase(self) -> str:
        return str((await self.body())["status"]["phase"])

    async def write(self, key: Key, body: dict[str, Any]) -> None:
        body["metadata"]["generation"] += 1
        await self.feed.reached(await self.store.write([Put(key, body)]))


@asynccontextmanager
async def rolling() -> AsyncIterator[Rolling]:
    store = MemoryStore()
    objects = Objects(store, lambda: 1000.0)
    await objects.prepare()
    await store.write([Put(key, copy.deepcopy(body)) for key, body in OBJECTS.items()])
    pipeline = Pipeline("cluster.local")
    feed = Feed(store, pipeline, lambda _published: None)
    task = asyncio.create_task(feed.run(await feed.load()))
    found: list[Rolling] = []
    rollouts = Rollouts(objects, pipeline, Events(store, lambda: 1000.0), Tallies(), lambda: found[0].now)
    found.append(Rolling(store, rollouts, feed))
    try:
        async with asyncio.timeout(60), rollouts.beginning():
            yield found[0]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_command_after_the_end() -> None:
    """Broken: a rollout that has failed or succeeded would never hear of anything again."""
    async with rolling() as one:
        assert await one.looks(3) == [[90, 10], [100, 0]]
        assert await one.looks(5, 11) == [[0, 100], [100, 0]]
        assert await one.phase() == "Succeeded"
        await one.looks(3, 100)
        body = await one.body()
        body["metadata"]["annotations"] = {COMMAND: "abort 1"}
        await one.write(ROLLOUT, body)
        assert await one.looks(2) == [[100, 0], [100, 0]]
        assert await one.phase() == "Failed"


async def test_another_rule_of_the_same_route() -> None:
    """Broken: a rollout that is changed would go on with what it has read before."""
    async with rolling() as one:
        await one.looks(3)
        body = await one.body()
        body["spec"]["routeRef"]["sectionName"] = "second"
        await one.write(ROLLOUT, body)
        assert (await one.looks(3))[1] == [90, 10]


async def test_another_hand_while_nothing_else_happens() -> None:
    """Broken: within an interval nobody would see that somebody has changed the route, or taken it away."""
    async with rolling() as one:
        await one.looks(6, 1)
        route = await one.body(ROUTE)
        route["spec"]["http"][0]["route"] = route["spec"]["http"][1]["route"][:1]
        await one.write(ROUTE, route)
        await one.looks(2)
        assert "no rule 'first' of it has both versions" in (await one.body())["status"]["message"]
        route["spec"]["http"][0] = split("first")
        route["spec"]["http"][0]["route"][1]["weight"] = 33
        await one.write(ROUTE, route)
        await one.looks(2)
        assert await one.phase() == "Paused"


def test_calls_find_their_rollouts() -> None:
    """Broken: one rollout would be judged by the calls of another, or one that begins later by none."""
    tallies = Tallies()
    count = Count(10, 1.0, (10,) * len(BOUNDS))

    def of(name: str) -> int:
        names = frozenset({f"default/{name}"})
        return tallies.of(name, Versions(names, names, "v1", "v2")).traffic(candidate=True).requests

    rows = [(Edge("source", destination_version="v2", service=f"{name}.default.svc.cluster.local"), count) for name in "ab"]
    assert of("a") == 0
    tallies.add(1.0, rows)
    assert (of("a"), of("b")) == (10, 0)
    tallies.add(2.0, rows)
    assert (of("a"), of("b")) == (20, 10)
    tallies.keep(["b"])
    tallies.add(3.0, rows)
    assert (of("b"), of("a")) == (20, 0)
