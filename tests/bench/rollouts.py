"""What 200 roll-outs that are all under way cost the control plane: the share of a core of controller, store, API and compiler.

Everything is real but the proxies: nodes' reports are made here, as often as nodes send them. `steady`: within an interval, where
there is only looking. `moving`: with a step of each every ten seconds, which writes a status and a route and compiles that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import structlog

from tulle.app.feed import Feed
from tulle.control.apiserver.objects import Objects
from tulle.control.events import Events
from tulle.control.rollouts.controller import Rollouts
from tulle.control.store.sqlite import SqliteStore
from tulle.control.telemetry.tally import Tallies
from tulle.core.model.calls import BOUNDS, Count, Edge
from tulle.core.pipeline import Pipeline
from tulle.ports import Key, Put

ROLLOUTS = 200
_REPORT = 5.0  # seconds between nodes' reports


class Rolling(msgspec.Struct):
    """Percent of a core, over so many seconds each; `steps`: written in the moving part."""

    rollouts: int
    seconds: float
    steady: float
    moving: float
    steps: int


def rolling(number: int, interval: str) -> list[dict[str, Any]]:
    """A service with two versions, its route, and its rollout."""
    name, istio = f"s{number}", "networking.istio.io/v1"
    metadata = {"name": name, "namespace": "default", "uid": name, "generation": 1}
    versions = ("v1", "v2")
    entries = [
        {
            "apiVersion": istio,
            "kind": "WorkloadEntry",
            "metadata": {"name": f"{name}-{version}", "namespace": "default"},
            "spec": {"address": f"10.{at}.{number // 250}.{number % 250 + 1}", "labels": {"app": name, "version": version}},
        }
        for at, version in enumerate(versions)
    ]
    port = {"name": "http", "port": 80}
    split = [{"destination": {"host": name, "subset": version}, "weight": 100 - 100 * at} for at, version in enumerate(versions)]
    analysis = {
        "interval": interval,
        "stepWeights": list(range(1, 100)),
        "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}}],
    }
    spec = {
        "targetRef": {"name": name},
        "stable": {"version": "v1"},
        "candidate": {"version": "v2"},
        "routeRef": {"group": "networking.istio.io", "kind": "VirtualService", "name": name},
        "analysis": analysis,
    }
    subsets = [{"name": version, "labels": {"version": version}} for version in versions]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": {"app": name}, "ports": [port]}},
        *entries,
        {"apiVersion": istio, "kind": "DestinationRule", "metadata": metadata, "spec": {"host": name, "subsets": subsets}},
        {
            "apiVersion": istio,
            "kind": "VirtualService",
            "metadata": metadata,
            "spec": {"hosts": [name], "http": [{"route": split}]},
        },
        {"apiVersion": "tulle.dev/v1alpha1", "kind": "Rollout", "metadata": metadata, "spec": spec},
    ]


RESOURCES = {
    "Service": "services",
    "WorkloadEntry": "workloadentries.networking.istio.io",
    "DestinationRule": "destinationrules.networking.istio.io",
    "VirtualService": "virtualservices.networking.istio.io",
    "Rollout": "rollouts.tulle.dev",
}


def reports() -> list[tuple[Edge, Count]]:
    """What came to both versions of each, all of it good."""
    return [
        (
            Edge("source", "default/caller", destination=f"default/s{number}-{version}", destination_version=version,
                 service=f"s{number}.default.svc.cluster.local", code="200"),
            Count(100, 500.0, (100,) * len(BOUNDS)),
        )
        for number in range(ROLLOUTS)
        for version in ("v1", "v2")
    ]  # fmt: skip


async def _share(interval: str, seconds: float) -> tuple[float, int]:
    """Percent of a core, and how many steps there were."""
    with TemporaryDirectory(prefix="tulle-bench-") as folder:
        store = SqliteStore(Path(folder) / "store.db")
        objects = Objects(store, time.time)
        await objects.prepare()
        for number in range(ROLLOUTS):
            made = rolling(number, interval)
            await store.write([Put(Key(RESOURCES[one["kind"]], "default", one["metadata"]["name"]), one) for one in made])
        pipeline = Pipeline("cluster.local")
        feed = Feed(store, pipeline, lambda _published: None)
        tallies = Tallies()
        rollouts = Rollouts(objects, pipeline, Events(store, time.time), tallies, time.time)
        tasks = [asyncio.create_task(feed.run(await feed.load())), asyncio.create_task(rollouts.run())]
        rows = reports()
        while not all(one.body.get("status", {}).get("weight") for one in (await store.list("rollouts.tulle.dev"))[0]):
            tallies.add(time.time(), rows)
            await asyncio.sleep(0.5)

        async def written() -> int:
            return sum(one.body["status"]["weight"] for one in (await store.list("rollouts.tulle.dev"))[0])

        before, cpu, began = await written(), time.process_time(), time.monotonic()
        while time.monotonic() - began < seconds:
            tallies.add(time.time(), rows)
            await asyncio.sleep(_REPORT)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        steps = await written() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()
        return 100 * cpu / took, steps


async def measure(seconds: float = 20.0) -> Rolling:
    """Both parts, one after the other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    steady, _none = await _share("10m", seconds)
    moving, steps = await _share("10s", seconds)
    return Rolling(ROLLOUTS, seconds, steady, moving, steps)
