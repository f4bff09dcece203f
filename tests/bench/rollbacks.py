"""How soon roll-outs are back of 200 that are all under way, each cause for itself: one of them, and all at the same moment.

Everything is real but the proxies: one that acknowledges what is compiled at once stands for them, for what real Envoys take is
measured in `tests/e2e/test_rollout.py`. From the cause (of `threshold`: the end of the bad window; of `telemetry`: the end of the
time that nothing may be heard) until the last of the 200 is written, compiled, and known to be acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from tests.bench.rollouts import RESOURCES, ROLLOUTS, reports, rolling
from tulle.api.registry import kind_of_resource
from tulle.app.feed import Feed
from tulle.control.apiserver.deletion import Deletion
from tulle.control.apiserver.objects import Objects
from tulle.control.apiserver.target import Target, Writing
from tulle.control.events import Events
from tulle.control.rollouts.controller import RESOURCE, Rollouts
from tulle.control.store.sqlite import SqliteStore
from tulle.control.telemetry.tally import Tallies
from tulle.core.model.calls import Count, Edge
from tulle.core.pipeline import Pipeline
from tulle.core.rollout.decide import _PATIENCE
from tulle.core.rollout.record import _seconds
from tulle.ports import Delete, Key, Put
from tulle.xds.status import Progress

CAUSES = ("threshold", "telemetry", "endpoints", "deleted", "paused")
_INTERVAL = 10.0  # seconds


class Backs(msgspec.Struct):
    """Seconds until the last of so many was back, and of a core until then, by cause: of one, and of all."""

    rollouts: int
    one: dict[str, tuple[float, float]]
    all: dict[str, tuple[float, float]]


async def _share(cause: str, many: int) -> tuple[float, float]:
    with TemporaryDirectory(prefix="tulle-bench-") as folder:
        store = SqliteStore(Path(folder) / "store.db")
        objects = Objects(store, time.time)
        await objects.prepare()
        for number in range(ROLLOUTS):
            made = rolling(number, f"{_INTERVAL:g}s")
            made[-1]["spec"]["analysis"]["threshold"] = 1
            await store.write([Put(Key(RESOURCES[one["kind"]], "default", one["metadata"]["name"]), one) for one in made])
        pipeline = Pipeline("cluster.local")
        tallies = Tallies()
        rollouts = Rollouts(
            objects, pipeline, Events(store, time.time), tallies, time.time, None, lambda: [Progress("all", pipeline.revision)]
        )
        feed = Feed(store, pipeline, lambda _published: rollouts.proxies_moved())
        tasks = [asyncio.create_task(feed.run(await feed.load())), asyncio.create_task(rollouts.run())]
        try:
            return await _measured(cause, many, store, objects, tallies)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.close()


async def _measured(cause: str, many: int, store: SqliteStore, objects: Objects, tallies: Tallies) -> tuple[float, float]:
    # Too few to judge by: nothing moves until it is to.
    few = [(edge, msgspec.structs.replace(count, calls=1)) for edge, count in reports()[1::2]][:1]

    async def standing() -> dict[str, dict[str, Any]]:
        return {one.key.name: one.body for one in (await store.list(RESOURCE))[0]}

    while not all(one.get("status", {}).get("previousWeight") for one in (await standing()).values()):
        tallies.add(time.time(), few)
        await asyncio.sleep(0.2)
    before = {name: _seconds(one["status"]["checkedAt"]) for name, one in (await standing()).items()}
    before = dict(sorted(before.items())[:many])
    began, cpu = dict.fromkeys(before, time.time()), time.process_time()
    match cause:
        case "threshold":
            tallies.add(time.time(), [_failed(*row) for row in reports()][: 2 * many])
            began = {name: max(at + _INTERVAL, time.time()) for name, at in before.items()}
        case "telemetry":
            began = dict.fromkeys(before, tallies.heard + max(_PATIENCE, 3 * _INTERVAL))
            began = {name: max(at, before[name] + max(_PATIENCE, 3 * _INTERVAL)) for name, at in began.items()}
        case "endpoints":
            await store.write([Delete(Key(RESOURCES["WorkloadEntry"], "default", f"{name}-v2")) for name in before])
        case "deleted":
            kind = kind_of_resource(RESOURCE)
            assert kind is not None
            for name in before:
                began[name] = time.time()
                await objects.delete(Target(kind, kind.versions[0], "default", name), Deletion(), Writing("bench"))
        case _:
            wished = {name: one for name, one in (await standing()).items() if name in before}
            puts = [
                Put(Key(RESOURCE, "default", name), {**one, "spec": {**one["spec"], "suspend": True}})
                for name, one in wished.items()
            ]
            await store.write(puts)
    took: dict[str, float] = {}
    while len(took) < len(before):
        found = await standing()
        for name in before.keys() - took.keys():
            if name not in found:
                took[name] = time.time() - began[name]
            elif at := found[name].get("status", {}).get("acknowledgedAt"):
                took[name] = _seconds(at) - began[name]
        await asyncio.sleep(0.25)  # to look costs as much as to go back; when that was is in the status
    return max(took.values()), time.process_time() - cpu


def _failed(edge: Edge, count: Count) -> tuple[Edge, Count]:
    return (msgspec.structs.replace(edge, code="503") if edge.destination_version == "v2" else edge), count


async def measure() -> Backs:
    """Each cause with a mesh of its own, twice; telemetry vanishes for all."""
    alone = {cause: await _share(cause, 1) for cause in CAUSES if cause != "telemetry"}
    return Backs(ROLLOUTS, alone, {cause: await _share(cause, ROLLOUTS) for cause in CAUSES})
