"""The API server with 10,000 objects stored: requests a second, lists, how long an event takes to 100 watchers, start to ready.

A real control-plane process; the clients are here, in another process, with kept connections over TLS and client certificates.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tests.bench.http_client import Connection
from tests.support.corpora import ROOT
from tests.support.mesh import free_port
from tulle.api.decode import decode
from tulle.api.documents import read_documents
from tulle.client import kubeconfig
from tulle.control.store.sqlite import SqliteStore
from tulle.ports import Key, Put

NAMESPACES = 100
SERVICES, ROUTES, ENTRIES = 25, 50, 25  # in each namespace: 10,000 objects in all
CONNECTIONS = 32  # enough to keep the server busy: with half as many it waits for the disk a tenth of the time
WATCHERS = 100
_ROUTES = "/apis/networking.istio.io/v1/namespaces/{}/virtualservices"
_TICKS = os.sysconf("SC_CLK_TCK")


class Api(msgspec.Struct):
    """Rates in requests a second, times in seconds; `watch`: from a write's sending to the event at a watcher."""

    objects: int
    start_seconds: float
    get_rate: float
    get_p99: float
    create_rate: float
    create_p99: float
    apply_rate: float
    list_namespace: float
    list_namespace_p99: float
    list_all: float
    watch_p50: float
    watch_p99: float
    rss_mb: float
    corpora_documents: int
    corpora_cpu_seconds: float


def _meta(namespace: str, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "uid": f"{namespace}-{name}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 1,
        "labels": {"app": name, "team": namespace},
    }


def route(namespace: str, name: str, *, seconds: int = 5) -> dict[str, Any]:
    """A VirtualService as people write them: a header match, a split, a time-out, retries."""
    hosts = [{"destination": {"host": "s0", "port": {"number": 80}}, "weight": weight} for weight in (80, 20)]
    http: list[dict[str, Any]] = [
        {"match": [{"headers": {"end-user": {"exact": "jason"}}}], "route": [{"destination": {"host": "s1"}}]},
        {"route": hosts, "timeout": f"{seconds}s", "retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx"}},
    ]
    spec = {"hosts": [f"{name}.example.com"], "http": http}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": _meta(namespace, name), "spec": spec}


def _objects() -> list[Put]:
    puts = []
    for number in range(NAMESPACES):
        space = f"team-{number}"
        puts.append(Put(Key("namespaces", "", space), {"apiVersion": "v1", "kind": "Namespace", "metadata": _meta("", space)}))
        for one in range(SERVICES):
            name, address = f"s{one}", f"240.240.{number}.{one + 1}"
            spec = {"selector": {"app": name}, "clusterIP": address, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
            body = {"apiVersion": "v1", "kind": "Service", "metadata": _meta(space, name), "spec": spec}
            puts.append(Put(Key("services", space, name), body))
        routes = [route(space, f"r{one}") for one in range(ROUTES)]
        puts += [Put(Key("virtualservices.networking.istio.io", space, body["metadata"]["name"]), body) for body in routes]
        for one in range(ENTRIES):
            entry = {"address": f"10.{number}.0.{one + 1}", "labels": {"app": f"s{one}"}, "serviceAccount": "default"}
            body = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": _meta(space, f"w{one}")}
            puts.append(Put(Key("workloadentries.networking.istio.io", space, f"w{one}"), {**body, "spec": entry}))
    return puts


async def _fill(path: Path) -> int:
    store = SqliteStore(path)
    puts = _objects()
    await store.write(puts)
    await store.close()
    return len(puts)


def _rss(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


class Server:
    """The control plane under measurement."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.port = free_port()
        self.process: asyncio.subprocess.Process
        self.tls: ssl.SSLContext

    async def start(self) -> float:
        """Start it; the seconds until it is ready, its interpreter's start included."""
        argv = ["-m", "tulle", "control-plane", "--state-dir", str(self.state)]
        argv += ["--api-address", f"127.0.0.1:{self.port}", "--xds-address", f"127.0.0.1:{free_port()}"]
        began = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(sys.executable, *argv, stderr=asyncio.subprocess.DEVNULL)
        while time.monotonic() - began < 120:
            try:
                config = kubeconfig.read(self.state / "kubeconfig")
                assert urlsplit(config.server).port == self.port
                self.tls = config.tls()
                connection = await self.connection()
                await connection.request("GET", "/readyz")
                connection.close()
                return time.monotonic() - began
            except Exception:
                await asyncio.sleep(0.02)
        raise RuntimeError("the control plane did not come up")

    async def settle(self) -> None:
        """Wait until the status of every stored object is written, which the first start over a full store has to do."""
        connection = await self.connection()
        before = -1
        while True:
            revision = int((await connection.json("GET", "/api/v1/namespaces?limit=1"))["metadata"]["resourceVersion"])
            if revision == before:
                break
            before = revision
            await asyncio.sleep(2)
        connection.close()

    async def stop(self) -> None:
        """Stop it."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()

    async def connection(self) -> Connection:
        """A connection as the administrator."""
        return await Connection("127.0.0.1", self.port, self.tls).open()


async def _rate(server: Server, seconds: float, one: Callable[[Connection, int], Awaitable[Any]]) -> tuple[float, float]:
    """Requests a second with all connections busy, and the 99th percentile of their latency."""
    connections = [await server.connection() for _ in range(CONNECTIONS)]
    times: list[float] = []
    end = time.monotonic() + seconds

    async def work(connection: Connection, worker: int) -> None:
        number = worker
        while time.monotonic() < end:
            began = time.perf_counter()
            await one(connection, number)
            times.append(time.perf_counter() - began)
            number += CONNECTIONS

    began = time.monotonic()
    await asyncio.gather(*(work(connection, worker) for worker, connection in enumerate(connections)))
    taken = time.monotonic() - began
    for connection in connections:
        connection.close()
    return len(times) / taken, _percentile(times, 0.99)


def _percentile(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _lists(connection: Connection, path: str, rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        await connection.request("GET", path)
        times.append(time.perf_counter() - began)
    return times


async def _watched(server: Server, changes: int) -> list[float]:
    """The delays of every event at every watcher, at ten changes a second."""
    revision = (await (await server.connection()).json("GET", _ROUTES.format("team-7") + "?limit=1"))["metadata"][
        "resourceVersion"
    ]
    sent: dict[int, float] = {}
    delays: list[float] = []
    watching = [await server.connection() for _ in range(WATCHERS)]

    async def watch(connection: Connection) -> None:
        connection.send("GET", f"/apis/networking.istio.io/v1/virtualservices?watch=true&resourceVersion={revision}")
        await connection.head()
        rest, seen, met = b"", 0, set[int]()
        while seen < changes:
            *lines, rest = (rest + await connection.chunk()).split(b"\n")
            for line in lines:
                now = time.perf_counter()
                turn = int(json.loads(line)["object"]["spec"]["http"][1]["timeout"][:-1])
                if turn in sent and turn not in met:  # the status writer writes, too
                    delays.append(now - sent[turn])
                    met.add(turn)
                    seen += 1

    tasks = [asyncio.create_task(watch(connection)) for connection in watching]
    await asyncio.sleep(1)
    writer = await server.connection()
    for turn in range(changes):
        body = route("team-7", "r7", seconds=turn + 100)
        patch = json.dumps({"spec": body["spec"]}).encode()
        sent[turn + 100] = time.perf_counter()
        await writer.request("PATCH", _ROUTES.format("team-7") + "/r7", patch, "application/merge-patch+json")
        await asyncio.sleep(0.1)
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    for connection in (*watching, writer):
        connection.close()
    return delays


def _corpora() -> tuple[int, float]:
    """How many documents of the corpora, and the processor seconds to read and decode them all."""
    files = sorted(
        file
        for folder in ("istio", "gateway-api")
        for file in (ROOT / folder).rglob("*.yaml")
        if "crd" not in str(file.parent.name)
    )
    files = [file for file in files if file.name != "crds.yaml"]
    texts = [(file.name, file.read_bytes()) for file in files]
    decode({})
    began, count = time.process_time(), 0
    for name, text in texts:
        for document in read_documents(text, name)[0]:
            decode(document.raw, document.locate)
            count += 1
    return count, time.process_time() - began


async def measure(rounds: int = 9) -> Api:
    """Start it over a full store, ask, stop it."""
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        state = Path(folder, "state")
        state.mkdir(mode=0o700)
        objects = await _fill(state / "store.db")
        server = Server(state)
        starts = []
        try:
            for turn in range(min(rounds, 3)):
                if turn:
                    await server.stop()
                starts.append(await server.start())
            await server.settle()
            return await _rounds(server, objects, statistics.median(starts), rounds)
        finally:
            await server.stop()


async def _rounds(server: Server, objects: int, start: float, rounds: int) -> Api:
    async def get(connection: Connection, number: int) -> None:
        await connection.request("GET", _ROUTES.format(f"team-{number % NAMESPACES}") + f"/r{number % ROUTES}")

    counter = itertools.count(1)

    async def create(connection: Connection, number: int) -> None:
        space = f"team-{number % NAMESPACES}"
        body = route(space, f"new-{next(counter)}")
        body["metadata"] = {"name": body["metadata"]["name"], "labels": body["metadata"]["labels"]}
        await connection.request("POST", _ROUTES.format(space), json.dumps(body).encode())

    async def apply(connection: Connection, number: int) -> None:
        space = f"team-{number % NAMESPACES}"
        body = route(space, f"r{number % ROUTES}", seconds=next(counter))
        body["metadata"] = {"name": body["metadata"]["name"]}
        path = _ROUTES.format(space) + f"/{body['metadata']['name']}?fieldManager=bench&force=true"
        await connection.request("PATCH", path, json.dumps(body).encode(), "application/apply-patch+yaml")

    gets, creates, applies = [], [], []
    for _ in range(min(rounds, 5)):
        await server.settle()  # what the round before left to do for the statuses is not this one's
        gets.append(await _rate(server, 2, get))
        creates.append(await _rate(server, 2, create))
        applies.append(await _rate(server, 2, apply))
    connection = await server.connection()
    space = await _lists(connection, _ROUTES.format("team-3"), 30)
    whole = await _lists(connection, "/apis/networking.istio.io/v1/virtualservices", 3)
    connection.close()
    await server.settle()
    delays = await _watched(server, 50)
    documents, cpu = _corpora()
    return Api(
        objects=objects,
        start_seconds=start,
        get_rate=statistics.median(rate for rate, _ in gets),
        get_p99=statistics.median(p99 for _, p99 in gets),
        create_rate=statistics.median(rate for rate, _ in creates),
        create_p99=statistics.median(p99 for _, p99 in creates),
        apply_rate=statistics.median(rate for rate, _ in applies),
        list_namespace=statistics.median(space),
        list_namespace_p99=_percentile(space, 0.99),
        list_all=statistics.median(whole),
        watch_p50=statistics.median(delays),
        watch_p99=_percentile(delays, 0.99),
        rss_mb=_rss(server.process.pid),
        corpora_documents=documents,
        corpora_cpu_seconds=cpu,
    )
