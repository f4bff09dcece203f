"""500 proxies that report, on a mesh of 500 services: what it takes of the control plane, and how soon the page is answered.

A real control-plane process whose window is full: it is told six hours of calls before it serves, by the same code that is told
of them later. Then each proxy's node reports every 15 seconds over a connection of its own, what was counted and what was
recorded, while 500 streams of xDS stand. First nobody looks (CPU); then what the views of the page ask is asked in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.http_client import Connection
from tests.bench.scale import NODE, PROXIES, SERVICES, certificates, cpu, fill, ready, rss
from tests.support.mesh import free_port
from tulle.client import kubeconfig
from tulle.control.telemetry import window
from tulle.core.model.calls import BOUNDS, Count, Edge, Report, Use
from tulle.core.model.recorded import Example, Record, RecordedReport, Shape

CALLED = 3  # services that each calls
EVERY = 15.0  # seconds from report to report
_QUIET = 45.0  # seconds without anybody who looks
_PAUSE = 0.02  # seconds between two questions
_REPORT, _RECORDED = "/tulle/v1/telemetry/report", "/tulle/v1/telemetry/recorded"
# What the page's views ask, of ten minutes and of the whole window.
ASKED = {
    name: f"/tulle/v1/{path}"
    for name, path in {
        "inventory": "telemetry/inventory",
        "services": "telemetry/figures?by=service&points=30&seconds=600",
        "services, 6 h": "telemetry/figures?by=service&points=30&seconds=21600",
        "workloads": "telemetry/figures?by=workload&points=30&seconds=600",
        "edges": "telemetry/figures?by=edge&points=30&seconds=600",
        "routes": "telemetry/figures?by=route&points=30&seconds=600",
        "graph": "telemetry/graph?level=app&seconds=600&idle=true",
        "graph, an hour ago": "telemetry/graph?level=workload&seconds=600&until={hour}",
        "graph, 6 h": "telemetry/graph?level=version&seconds=21600",
        "curves": "telemetry/parts?level=service&node=default/s7&seconds=600&points=60",
        "curves, 6 h": "telemetry/parts?level=service&node=default/s7&seconds=21600&points=60",
        "recorded": "telemetry/recorded?destination=default/s7&seconds=86400",
        "proxies": "proxies",
        "uses": "telemetry/proxies",
        "status": "status",
        "findings": "findings",
        "history": "history?limit=150",
        "certificates": "certificates",
        "host": "describe/host?host=s7.default.svc.cluster.local&namespace=default",
        "traces": "telemetry/traces?limit=200&seconds=600",
    }.items()
}


class Reports(msgspec.Struct):
    """`share` of a core (per cent) while nobody looks, memory after everything, and by question p50 and p99 in ms."""

    proxies: int
    kinds: int
    reports_per_second: float
    share: float
    rss_mb: float
    p99: float
    queries: dict[str, tuple[float, float]]


def _edges(proxy: int) -> Iterator[tuple[Edge, Edge]]:
    """The calls of a proxy's workload, as its own proxy and as the called one tells of them; the usual ones first."""
    for at in range(CALLED):
        other = (proxy * 7 + at * 61 + 1) % SERVICES
        for code, flags in (("200", ""), ("404", ""), ("503", "UH")):
            if code != "200" and (proxy + at) % 4:
                continue
            edge = Edge(
                "source",
                source=f"default/w{proxy}",
                source_app=f"s{proxy}",
                source_version="v1",
                destination=f"default/w{other}",
                destination_app=f"s{other}",
                destination_version="v1",
                service=f"s{other}.default.svc.cluster.local",
                code=code,
                flags=flags,
                principal=f"spiffe://cluster.local/ns/default/sa/s{other}",
                mutual=True,
                route=f"default/s{other}.http[0]",
            )
            there = f"spiffe://cluster.local/ns/default/sa/s{proxy}"
            yield edge, msgspec.structs.replace(edge, reporter="destination", principal=there, route="")


def _count(made: random.Random, calls: int) -> Count:
    slow = made.randrange(calls + 1)
    return Count(calls, 4.0 * calls, tuple(0 if bound < 1 else calls - slow if bound < 10 else calls for bound in BOUNDS))


def _rows(made: random.Random, edges: Sequence[Edge]) -> list[tuple[Edge, Count]]:
    """What came in 15 seconds: the usual calls always, errors now and then."""
    return [(edge, _count(made, made.randrange(1, 200))) for edge in edges if edge.code == "200" or made.random() < 0.1]


def _fill_window(full: window.Window, now: float, keep: float) -> None:
    made = random.Random(3)
    edges = [edge for proxy in range(PROXIES) for pair in _edges(proxy) for edge in pair]
    steps, turns = int(keep / window.STEP), [_rows(made, edges) for _ in range(3)]
    for step in range(steps):
        full.add(now - (steps - step) * window.STEP, turns[step % len(turns)])


def plane() -> None:
    """A control plane whose window is full when it begins to serve; its arguments are those of this program."""
    from tulle.cli.main import main

    begin = window.Window.__init__

    def begin_full(self: window.Window, began: float, keep: float = window.KEEP, **more: Any) -> None:
        begin(self, began - keep, keep, **more)
        _fill_window(self, began, keep)

    setattr(window.Window, "__init__", begin_full)  # noqa: B010 - which mypy would not have as an assignment
    main(sys.argv[1:])


async def _connected(port: int, tls: ssl.SSLContext) -> Connection:
    """As a node does it: again, where the other end had no time."""
    while True:
        with contextlib.suppress(OSError):
            return await Connection("127.0.0.1", port, tls).open()
        await asyncio.sleep(1)


class _Agents:
    """The nodes: one a proxy, each with a connection of its own."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=str(folder / "root.pem"))
        self._tls.check_hostname = False
        self._tls.load_cert_chain(folder / "node.pem", folder / "node.key")
        self._into: dict[str, list[Edge]] = {}
        for _edge, there in (pair for proxy in range(PROXIES) for pair in _edges(proxy)):
            self._into.setdefault(there.destination, []).append(there)
        self.reports = 0

    async def run(self, proxy: int) -> None:
        """Report until cancelled, each at its own time."""
        made = random.Random(proxy)
        await asyncio.sleep(EVERY * proxy / PROXIES)
        connection = await _connected(self._port, self._tls)
        out = [pair[0] for pair in _edges(proxy)]
        into = self._into.get(f"default/w{proxy}", [])
        cpu_seconds = 0.0
        while True:
            began = time.monotonic()
            cpu_seconds += made.random()
            use = Use(f"default/w{proxy}", cpu_seconds, 60e6, 0, "1.36.0")
            told = Report(NODE, tuple(_rows(made, [*out, *into])), (use,))
            await connection.request("POST", _REPORT, msgspec.json.encode(told))
            await connection.request("POST", _RECORDED, msgspec.json.encode(self._recorded(proxy, into)))
            self.reports += 1
            await asyncio.sleep(max(0.0, began + EVERY - time.monotonic()))

    def _recorded(self, proxy: int, into: Sequence[Edge]) -> RecordedReport:
        now = time.time()
        shapes = [
            Shape("destination", edge.source, edge.destination, edge.service, 9080, "http", "GET", f"/{what}", edge.code)
            for edge in into
            for what in ("items", "items/{id}")
        ]
        examples = tuple(Example(f"{proxy}-{now}-{at}", now - at, 3.0, f"default/w{proxy}") for at in range(3))
        return RecordedReport(NODE, tuple((one, Record(Count(9, 30.0), 9.0, now - 9, now, examples)) for one in shapes), sent=now)


async def measure(rounds: int = 30) -> Reports:
    """Start everything, wait, ask so many times, stop everything."""
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as name:
        folder, state = Path(name), Path(name, "state")
        state.mkdir(mode=0o700)
        await fill(state)
        certificates(state, folder)
        api_port, xds_port = free_port(), free_port()
        argv = ["-m", "tests.bench.reports", "control-plane", "--state-dir", str(state)]
        argv += ["--api-address", f"127.0.0.1:{api_port}", "--xds-address", f"127.0.0.1:{xds_port}"]
        server = await asyncio.create_subprocess_exec(sys.executable, *argv, stderr=asyncio.subprocess.DEVNULL)
        crowd = None
        try:
            await ready(state / "kubeconfig", 900)
            crowd = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.proxies", f"127.0.0.1:{xds_port}", name, "--count", str(PROXIES)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert crowd.stdout
            json.loads(await crowd.stdout.readline())
            return await _measured(server.pid, api_port, folder, state, rounds)
        finally:
            for child in (crowd, server):
                if child is not None and child.returncode is None:
                    child.send_signal(signal.SIGTERM)
                    await child.wait()


async def _measured(pid: int, port: int, folder: Path, state: Path, rounds: int) -> Reports:
    agents = _Agents(port, folder)
    running = [asyncio.ensure_future(agents.run(proxy)) for proxy in range(PROXIES)]
    try:
        await asyncio.sleep(2 * EVERY)  # all of them are connected and have reported
        before, began, told = cpu(pid), time.monotonic(), agents.reports
        await asyncio.sleep(_QUIET)
        share, rate = (100 * (cpu(pid) - before) / _QUIET, (agents.reports - told) / (time.monotonic() - began))
        taken = await _asked(state, port, rounds)
        for task in running:
            if task.done():
                task.result()
        everything = sorted(one for times in taken.values() for one in times)
        kinds = sum(1 for proxy in range(PROXIES) for pair in _edges(proxy) for _edge in pair)
        queries = {name: (1000 * statistics.median(times), 1000 * _p99(times)) for name, times in taken.items()}
        return Reports(PROXIES, kinds, rate, share, rss(pid), 1000 * _p99(everything), queries)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _asked(state: Path, port: int, rounds: int) -> dict[str, list[float]]:
    config = kubeconfig.read(state / "kubeconfig")
    connection = await _connected(port, config.tls())
    taken: dict[str, list[float]] = {name: [] for name in ASKED}
    for _ in range(rounds):
        for name, path in ASKED.items():
            began = time.perf_counter()
            await connection.request("GET", path.format(hour=int(time.time()) - 3600))
            taken[name].append(time.perf_counter() - began)
            await asyncio.sleep(_PAUSE)
    connection.close()
    return taken


def _p99(times: Sequence[float]) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


if __name__ == "__main__":
    plane()
