"""What Prometheus reads of a node, over HTTP on the host's own network: the node itself, and each of its workloads.

    GET /metrics                      the node, and what its proxies take
    GET /workloads/NAMESPACE/NAME     a workload: the same as at port 15020 of it

A workload's own address is often nobody's but its host's (and a gateway has no port of its own), so this is where Prometheus is
sent to; `tulle.dev/metrics` of the WorkloadEntry says where it is.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

import tulle
from tulle.kit.errors import Refused
from tulle.node.metrics.families import Family, Sample
from tulle.node.metrics.text import CONTENT_TYPE, written
from tulle.node.ports import free

if TYPE_CHECKING:
    from tulle.node.workload import Workload

AUTO, OFF = "auto", "off"
_AT = ("127.0.0.1", 15020)  # Istio's number for the metrics of a workload, which nothing else on a host has
_AT_ONCE = 8  # workloads that are read; more scrapes wait
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class HostMetrics:
    """`workloads` are those of now. `where` is HOST:PORT, or `auto`: on the loopback the usual port, or a free one."""

    def __init__(self, where: str, workloads: Callable[[], Mapping[str, Workload]]) -> None:
        self._where, self._workloads = where, workloads
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen; raises `Refused` where that cannot be."""
        app = web.Application()
        app.add_routes([web.get("/metrics", self._own), web.get("/workloads/{namespace}/{name}", self._workload)])
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await self._runner.setup()
        host, port = _AT if self._where == AUTO else _split(self._where)
        try:
            await self._listen(host, port)
        except OSError as error:
            if self._where != AUTO or error.errno != errno.EADDRINUSE:
                raise Refused(f"--metrics-address {self._where}: {error.strerror or error}") from error
            await self._listen(host, free(1, ())[0])

    async def _listen(self, host: str, port: int) -> None:
        assert self._runner is not None
        await web.TCPSite(self._runner, host, port).start()
        self.port = int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _own(self, _request: web.Request) -> web.Response:
        return _page(written(node_families(self._workloads().values())))

    async def _workload(self, request: web.Request) -> web.Response:
        found = self._workloads().get(f"{request.match_info['namespace']}/{request.match_info['name']}")
        if found is None:
            raise web.HTTPNotFound(text="no such workload on this node\n")
        async with self._turns:
            return _page(await found.metrics.text())


def _page(text: str) -> web.Response:
    return web.Response(text=text, headers={"Content-Type": CONTENT_TYPE})


def _split(where: str) -> tuple[str, int]:
    host, colon, port = where.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Refused(f"--metrics-address: found {where}; needed HOST:PORT, {AUTO} or {OFF}")
    return host.strip("[]"), int(port)


def node_families(workloads: Iterable[Workload]) -> Iterator[Family]:
    """What a node says of itself and of its proxies."""
    yield _gauge("istio_build", [({"component": "node", "tag": tulle.__version__}, 1.0)])
    rows: dict[str, list[tuple[dict[str, str], float]]] = {name: [] for name in ("up", "restarts", "cpu", "memory")}
    for one in workloads:
        said = {"namespace": one.spec.namespace, "workload": one.spec.name}
        envoy = one.envoy
        process = envoy.process if envoy else None
        cpu, memory = used(process.pid) if process else (None, None)
        rows["up"].append((said, float(bool(envoy and envoy.answers))))
        rows["restarts"].append((said, float(envoy.restarts if envoy else 0)))
        rows["cpu"] += [(said, cpu)] if cpu is not None else []
        rows["memory"] += [(said, memory)] if memory is not None else []
    yield _gauge("tulle_proxy_up", rows["up"])
    yield _counter("tulle_proxy_restarts_total", rows["restarts"])
    yield _counter("tulle_proxy_cpu_seconds_total", rows["cpu"])
    yield _gauge("tulle_proxy_resident_memory_bytes", rows["memory"])
    cpu, memory = used(os.getpid())
    yield _counter("process_cpu_seconds_total", [({}, cpu)] if cpu is not None else [])
    yield _gauge("process_resident_memory_bytes", [({}, memory)] if memory is not None else [])


def used(pid: int) -> tuple[float | None, float | None]:
    """The CPU (s) and memory (bytes) of a process; None each where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return (int(fields[11]) + int(fields[12])) / _TICKS, float(int(pages) * _PAGE)
    except (OSError, ValueError, IndexError):
        return None, None


def _gauge(name: str, rows: Iterable[tuple[dict[str, str], float]]) -> Family:
    return Family(name, "gauge", [Sample(labels, value) for labels, value in rows])


def _counter(name: str, rows: Iterable[tuple[dict[str, str], float]]) -> Family:
    return Family(name, "counter", [Sample(labels, value) for labels, value in rows])
