"""The controller on a real store: what it keeps between two looks never hides a change."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tulle.app.feed import Feed
from tulle.control.apiserver.objects import Objects
from tulle.control.events import Events
from tulle.control.rollouts.controller import COMMAND, Queried, Rollouts
from tulle.control.store.memory import MemoryStore
from tulle.control.telemetry.tally import Tallies, Versions
from tulle.core.model.calls import BOUNDS, Count, Edge
from tulle.core.pipeline import Pipeline
from tulle.kit.errors import Unavailable
from tulle.ports import Cause, Delete, Key, Put
from tulle.xds.status import Progress

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

    def __init__(self, store: MemoryStore, feed: Feed, objects: Objects, prometheus: Queried | None) -> None:
        self.store, self.feed, self.objects, self.prometheus, self.now = store, feed, objects, prometheus, 1000.0
        self.acknowledged = 0  # by the only proxy
        self.stack = AsyncExitStack()

    async def begin(self) -> None:
        """Another control plane leads from now on."""
        await self.stack.aclose()
        self.tallies = Tallies()
        self.rollouts = Rollouts(
            self.objects,
            self.feed.pipeline,
            Events(self.objects.store, lambda: 1000.0),
            self.tallies,
            lambda: self.now,
            self.prometheus,
            lambda: [Progress("default/caller", self.acknowledged)],
        )
        await self.stack.enter_async_context(self.rollouts.beginning())

    async def answers(self) -> None:
        """Prometheus has answered whatever it was asked."""
        await asyncio.gather(*self.rollouts._readings._asked.values())

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


class Flaky(MemoryStore):
    """A store that fails as `chance` (of one) has it: before it has written, or after, when nobody knows."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.chance, self.random = 0.0, random.Random(seed)

    async def write(self, operations: Sequence[Put | Delete], cause: Cause | None = None) -> int:
        if self.random.random() < self.chance:
            raise Unavailable("the store is away")
        revision = await super().write(operations, cause)
        if self.random.random() < self.chance:
            raise Unavailable("the store does not answer")
        return revision


@asynccontextmanager
async def rolling(prometheus: Queried | None = None, store: MemoryStore | None = None) -> AsyncIterator[Rolling]:
    store = store or MemoryStore()
    objects = Objects(store, lambda: 1000.0)
    await objects.prepare()
    await store.write([Put(key, copy.deepcopy(body)) for key, body in OBJECTS.items()])
    pipeline = Pipeline("cluster.local")
    feed = Feed(store, pipeline, lambda _published: None)
    task = asyncio.create_task(feed.run(await feed.load()))
    found = Rolling(store, feed, objects, prometheus)
    try:
        async with asyncio.timeout(60), found.stack:
            await found.begin()
            yield found
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


METRIC = {"name": "request-success-rate", "thresholdRange": {"min": 99}}


def calls(version: str, code: str, number: int = 100) -> tuple[Edge, Count]:
    edge = Edge("source", destination_version=version, service="shop.default.svc.cluster.local", code=code)
    return edge, Count(number, float(number), (number,) * len(BOUNDS))


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_fails_no_step_is_skipped_or_repeated(seed: int) -> None:
    """Broken: a store that fails in the middle of something, or a control plane that dies there, would leave users with a version
    that fails, or give a version users that has not earned them.
    """
    chance, store = random.Random(seed), Flaky(seed)
    fails_from = chance.choice((None, 10, 50))
    async with rolling(store=store) as one:
        body = await one.body()
        body["spec"]["analysis"] |= {"metrics": [METRIC], "threshold": 2}
        await one.write(ROLLOUT, body)
        seen = [0]
        for turn in range(150):
            store.chance = 0.2 if turn < 120 else 0.0
            if chance.random() < 0.1:
                await one.begin()
            fails = fails_from is not None and seen[-1] >= fails_from
            one.tallies.add(one.now, [calls("v1", "200"), calls("v2", "503" if fails else "200")])
            weight = (await one.looks(1, chance.choice((0.5, 3, 11))))[0][1]
            one.acknowledged = one.feed.pipeline.revision if chance.random() < 0.5 else 0
            if weight != seen[-1]:
                seen.append(weight)
        one.acknowledged = one.feed.pipeline.revision
        await one.looks(2)
        assert seen == {None: [0, 10, 50, 100], 10: [0, 10, 0], 50: [0, 10, 50, 0]}[fails_from]
        assert await one.phase() == ("Failed" if fails_from else "Succeeded")
        assert bool((await one.body())["status"].get("acknowledgedAt")) == bool(fails_from)


async def test_what_was_before_does_not_judge() -> None:
    """Broken: nodes tell of calls seconds later, and a bad release would be promoted for what the good one before it did, or a
    mended one taken back for what was mended.
    """
    async with rolling() as one:
        body = await one.body()
        body["spec"]["analysis"] |= {"metrics": [METRIC], "threshold": 1}
        await one.write(ROLLOUT, body)
        assert (await one.looks(4))[0] == [90, 10]
        one.now += 5
        one.tallies.add(one.now, [calls("v1", "200"), calls("v2", "503")], 15.0)
        assert (await one.looks(2, 6))[0] == [90, 10]
        assert "has 0 of" in (await one.body())["status"]["message"]
        one.tallies.add(one.now, [calls("v1", "200"), calls("v2", "200")], 15.0)
        assert (await one.looks(1))[0] == [50, 50]
        body = await one.body()
        body["metadata"]["annotations"] = {COMMAND: "abort 1"}
        await one.write(ROLLOUT, body)
        assert (await one.looks(2))[0] == [100, 0]
        body = await one.body()
        body["metadata"]["annotations"] = {COMMAND: "resume 2"}
        await one.write(ROLLOUT, body)
        assert (await one.looks(4))[0] == [90, 10]
        one.tallies.add(one.now + 1, [calls("v1", "200"), calls("v2", "503")], 2.0)
        assert (await one.looks(1, 12))[0] == [90, 10]


async def test_until_the_last_proxy_has_it() -> None:
    """Broken: a roll-back would be called done while a proxy still sends users to the version that fails."""
    async with rolling() as one:
        await one.looks(3)
        body = await one.body()
        body["metadata"]["annotations"] = {COMMAND: "abort 1"}
        await one.write(ROLLOUT, body)
        assert await one.looks(3, 1) == [[100, 0], [100, 0]]
        assert "acknowledgedAt" not in (await one.body())["status"]
        stored = await one.store.get(ROUTE)
        assert stored is not None
        one.acknowledged = stored.revision - 1
        await one.looks(1, 1)
        assert "acknowledgedAt" not in (await one.body())["status"]
        one.acknowledged = stored.revision
        await one.looks(1, 1)
        said = (await one.body())["status"]
        assert (said["rolledBackAt"], said["acknowledgedAt"]) == ("1970-01-01T00:16:41.000Z", "1970-01-01T00:16:45.000Z")
        assert said["message"].endswith("; every proxy had it 4.00 s later")


async def test_two_of_one_service() -> None:
    """Broken: two releases would write against each other, or one that is over would be in the way of the next."""
    other = Key("rollouts.tulle.dev", "default", "other")
    async with rolling() as one:
        await one.looks(3)
        body = await one.body()
        # Older, and in the alphabet before it: the one that has moved traffic keeps the service.
        made = {
            "name": "other",
            "namespace": "default",
            "uid": "other",
            "generation": 0,
            "creationTimestamp": "1960-01-01T00:00:00Z",
        }
        spec = {**body["spec"], "candidate": {"version": "v3"}}  # which the route has not got yet
        await one.write(other, {**body, "metadata": made, "spec": spec, "status": {}})
        await one.looks(3)
        (said,) = (await one.body(other))["status"]["conditions"]
        assert (said["status"], said["message"]) == (
            "False",
            "spec.targetRef: found Service shop, which Rollout shop rolls out; needed another one, or the end of that",
        )
        assert await one.phase() == "Progressing"
        assert await one.looks(6, 11) == [[0, 100], [100, 0]]
        assert await one.phase() == "Succeeded"
        await one.looks(2)
        assert (await one.body(other))["status"]["conditions"][0]["status"] == "True"
        assert (await one.body())["status"]["conditions"][0]["status"] == "True"


def test_calls_find_their_rollouts() -> None:
    """Broken: one rollout would be judged by the calls of another, or one that begins later by none."""
    tallies = Tallies()
    count = Count(10, 1.0, (10,) * len(BOUNDS))

    def of(name: str) -> int:
        names = frozenset({f"default/{name}"})
        return tallies.of(name, Versions(names, names, "v1", "v2"), 0.0).traffic(candidate=True).requests

    rows = [(Edge("source", destination_version="v2", service=f"{name}.default.svc.cluster.local"), count) for name in "ab"]
    assert of("a") == 0
    tallies.add(1.0, rows)
    assert (of("a"), of("b")) == (10, 0)
    tallies.add(2.0, rows)
    assert (of("a"), of("b")) == (20, 10)
    tallies.keep(["b"])
    tallies.add(3.0, rows)
    assert (of("b"), of("a")) == (20, 0)


async def test_who_goes_back_waits_for_nobody() -> None:
    """Broken: with many releases under way, users would stay with a bad one until all others are written; or some never be."""
    async with rolling() as one:
        body, names = await one.body(), [f"other-{number:02}" for number in range(40)]
        for name in names:  # each waits for a route that is not there, and says so
            spec = {**body["spec"], "targetRef": {"name": name}, "routeRef": {**body["spec"]["routeRef"], "name": name}}
            made = {"name": name, "namespace": "default", "uid": name, "generation": 0}
            await one.write(Key("rollouts.tulle.dev", "default", name), {**body, "metadata": made, "spec": spec})
        assert await one.looks(10) == [[90, 10], [100, 0]]
        for name in names:
            assert "is not there" in (await one.body(Key("rollouts.tulle.dev", "default", name)))["status"]["message"]
        for name in names:  # another wish: all are to be written again
            other = await one.body(Key("rollouts.tulle.dev", "default", name))
            await one.write(Key("rollouts.tulle.dev", "default", name), other)
        body = await one.body()
        body["metadata"]["annotations"] = {COMMAND: "abort 1"}
        await one.write(ROLLOUT, body)
        assert await one.looks(1) == [[100, 0], [100, 0]]
        written = [(await one.body(Key("rollouts.tulle.dev", "default", name)))["status"]["observedGeneration"] for name in names]
        assert 0 < written.count(2) < len(names)
