"""What 1,000 RateLimits cost a control plane, alone and together with 200 roll-outs: the share of a core that its process takes.

A real control plane with a store on disk; 1,000 proxies in a process of their own, which acknowledge every share (`proxies.py`);
reports of 20 nodes about what these count, and of what came to the roll-outs, over HTTPS as nodes send them. Three replicas have
three limits together, of 100 requests a second each.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.bench import rollouts
from tests.bench.scale import NODE, certificates, cpu, ready
from tests.support.mesh import free_port
from tulle.client.api import ApiClient
from tulle.control.store.sqlite import SqliteStore
from tulle.core.model.calls import Report
from tulle.core.model.limit_counts import LimitCount, LimitReport
from tulle.ports import Key, Put

LIMITS, LIMIT = 1000, 100
REPLICAS, OF_SERVICE, OF_NODE = 3, 3, 50
SERVICES = -(-LIMITS // OF_SERVICE)
PROXIES = SERVICES * REPLICAS
# How much comes to each limit, as a part of it, and how many seconds from one move of its load to another replica to the next.
LOADS: Mapping[str, tuple[float, float]] = {
    "nothing comes": (0, 0),
    "30% of each limit, moves every 10 s": (0.3, 10),
    "10 times each limit, even": (10, 0),
    "10 times each limit, moves every 10 s": (10, 10),
    "10 times each limit, moves every second": (10, 1),
}
_RESOURCES = rollouts.RESOURCES | {"RateLimit": "ratelimits.tulle.dev", "Namespace": "namespaces"}


class Controlled(msgspec.Struct):
    """Percent of a core by load; `told`: how often proxies took other shares, a second.

    `pace`: the reports that came, as a part of those that were due. On a machine that is busy with other things it is less than
    1, and so is what they cost.
    """

    limits: int
    proxies: int
    rollouts: int
    seconds: float
    alone: dict[str, float]
    together: dict[str, float]
    told: dict[str, float]
    pace: dict[str, float]


def _objects(rolling: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "uid": "default"}}]
    for number in range(SERVICES):
        name = f"l{number}"
        meta: dict[str, Any] = {"name": name, "namespace": "default", "uid": name}
        spec: dict[str, Any] = {"selector": {"app": name}, "ports": [{"name": "http", "port": 9080}]}
        found.append({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    for number in range(PROXIES):
        labels = {"app": f"l{number // REPLICAS}", "version": "v1"}
        notes = {"tulle.dev/node": NODE, "tulle.dev/capture": "netns", "tulle.dev/ready": "true"}
        meta = {"name": f"w{number}", "namespace": "default", "uid": f"w{number}", "annotations": notes, "labels": labels}
        spec = {"address": f"10.9.{number // 250}.{number % 250 + 1}", "labels": labels}
        found.append({"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": meta, "spec": spec})
    for number in range(LIMITS):
        meta = {"name": f"limit{number}", "namespace": "default", "uid": f"limit{number}", "generation": 1}
        refs = [{"kind": "Service", "name": f"l{number // OF_SERVICE}"}]
        spec = {"targetRefs": refs, "rules": [{"name": "all", "limit": LIMIT, "scope": "global"}]}
        found.append({"apiVersion": "tulle.dev/v1alpha1", "kind": "RateLimit", "metadata": meta, "spec": spec})
    for number in range(rollouts.ROLLOUTS if rolling else 0):
        found += rollouts.rolling(number, "10s")
    return found


class _Found(NamedTuple):
    share: float
    told: float
    pace: float


class _Load:
    """What the proxies would have counted. `reported`: how many reports there were."""

    def __init__(self, much: float, moves: float) -> None:
        self.much, self.moves = much, moves
        self.reported = 0
        self.random = random.Random(1)

    def counts(self, proxy: int, at: float) -> list[LimitCount]:
        """Of one proxy, in the second before `at`."""
        service, replica = divmod(proxy, REPLICAS)
        found = []
        for number in range(service * OF_SERVICE, min(LIMITS, (service + 1) * OF_SERVICE)):
            part = 1 / REPLICAS
            if self.moves:
                # Of each limit at another moment: nine tenths of it comes to one of them.
                part = 0.9 if int((at + number * 0.618) / self.moves) % REPLICAS == replica else 0.1 / (REPLICAS - 1)
            mean = self.much * LIMIT * part
            came = max(0, round(self.random.gauss(mean, mean**0.5)))
            passed = min(came, LIMIT // REPLICAS)
            if came:
                rule = f"default/limit{number}/all"
                found.append(LimitCount(f"default/w{proxy}", rule, passed, came - passed, came - passed))
        return found


async def measure(seconds: float = 20.0) -> Controlled:
    """Both, one after the other."""
    alone = await _mesh(False, LOADS, seconds)
    together = await _mesh(True, LOADS, seconds)
    share = {name: one.share for name, one in alone.items()}
    both, told, pace = ({name: getattr(one, field) for name, one in together.items()} for field in ("share", "told", "pace"))
    return Controlled(LIMITS, PROXIES, rollouts.ROLLOUTS, seconds, share, both, told, pace)


async def _mesh(rolling: bool, loads: Mapping[str, tuple[float, float]], seconds: float) -> dict[str, _Found]:
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        state = Path(folder, "state")
        state.mkdir(mode=0o700)
        store = SqliteStore(state / "store.db")
        await store.write(
            [
                Put(Key(_RESOURCES[one["kind"]], one["metadata"].get("namespace", ""), one["metadata"]["name"]), one)
                for one in _objects(rolling)
            ]
        )
        await store.close()
        certificates(state, Path(folder))
        api_port, xds_port = free_port(), free_port()
        argv = ["-m", "tulle", "control-plane", "--state-dir", str(state)]
        argv += ["--api-address", f"127.0.0.1:{api_port}", "--xds-address", f"127.0.0.1:{xds_port}"]
        plane = await asyncio.create_subprocess_exec(sys.executable, *argv, stderr=asyncio.subprocess.DEVNULL)
        crowd = None
        try:
            await ready(state / "kubeconfig")
            argv = ["-m", "tests.bench.proxies", f"127.0.0.1:{xds_port}", folder, "--count", str(PROXIES)]
            argv += ["--extensions", "limits~9080", "limit-costs~9080"]
            crowd = await asyncio.create_subprocess_exec(
                sys.executable, *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            assert crowd.stdout
            json.loads(await crowd.stdout.readline())
            found: dict[str, _Found] = {}
            async with ApiClient.from_kubeconfig(state / "kubeconfig") as api:
                for name, (much, moves) in loads.items():
                    load = _Load(much, moves)
                    reporting = asyncio.gather(_report(api, load), *([_report_calls(api)] if rolling else []))
                    await asyncio.sleep(8)  # what was before is over
                    spent, began = cpu(plane.pid), time.monotonic()
                    told, reported = await _told(crowd), load.reported
                    await asyncio.sleep(seconds)
                    took = time.monotonic() - began
                    pace = (load.reported - reported) / took / -(-PROXIES // OF_NODE)
                    found[name] = _Found(100 * (cpu(plane.pid) - spent) / took, (await _told(crowd) - told) / took, pace)
                    reporting.cancel()
                    with suppress(asyncio.CancelledError):
                        await reporting
            return found
        finally:
            for child in (crowd, plane):
                if child is not None and child.returncode is None:
                    child.send_signal(signal.SIGTERM)
                    await child.wait()


async def _report(api: ApiClient, load: _Load) -> None:
    """About every second, each node at another moment of it."""
    nodes = [range(first, min(PROXIES, first + OF_NODE)) for first in range(0, PROXIES, OF_NODE)]
    last = {node: time.monotonic() - 1.0 + at / len(nodes) for at, node in enumerate(nodes)}
    while True:
        for node in nodes:
            await asyncio.sleep(max(0.0, last[node] + 1.0 - time.monotonic()))
            now = time.monotonic()
            rows = tuple(row for proxy in node for row in load.counts(proxy, now))
            report = LimitReport(NODE, now - last[node], tuple(f"default/w{proxy}" for proxy in node), rows)
            last[node] = now
            await api.request("POST", "/tulle/v1/telemetry/limits", body=msgspec.to_builtins(report))
            load.reported += 1


async def _report_calls(api: ApiClient) -> None:
    body = msgspec.to_builtins(Report(NODE, tuple(rollouts.reports())))
    while True:
        await api.request("POST", "/tulle/v1/telemetry/report", body=body)
        await asyncio.sleep(5)


async def _told(crowd: asyncio.subprocess.Process) -> int:
    """How many responses the proxies have taken."""
    assert crowd.stdin
    assert crowd.stdout
    crowd.stdin.write(b"taken\n")
    return int(json.loads(await crowd.stdout.readline())["taken"])
