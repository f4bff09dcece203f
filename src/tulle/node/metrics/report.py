"""Tells the control plane what this node's proxies have counted, every few seconds; what cannot be told is told the next time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
import structlog

from tulle.client.api import ApiClient
from tulle.core.model.calls import Count, Edge, Report, Use
from tulle.kit.errors import TulleError, Unavailable
from tulle.node.metrics.endpoint import read
from tulle.node.metrics.host import used
from tulle.node.metrics.observed import Counts, news, observed

if TYPE_CHECKING:
    from tulle.node.workload import Workload

log = structlog.get_logger("tulle.node")

PATH = "/tulle/v1/telemetry/report"
_FLUSH = 1.0  # seconds after which Envoy's histograms have what was measured (`stats_flush_interval`)


class Reporter:
    """`workloads` gives those of now, `api` the client; every `interval` seconds. `version` is Envoy's."""

    def __init__(
        self,
        node: str,
        workloads: Callable[[], Iterable[Workload]],
        api: Callable[[], Awaitable[ApiClient]],
        interval: float,
        version: str = "",
    ) -> None:
        self._node, self._workloads, self._api, self._interval, self._version = node, workloads, api, interval, version
        self._told: dict[str, Counts] = {}
        self._at = time.monotonic()  # when every proxy was read whose counts were told
        self._silent = False

    async def run(self) -> None:
        """Report until cancelled."""
        # What was counted before this agent came has been told by the last one.
        self._told = {workload: counts for workload, counts in (await self._look()).items() if counts}
        while True:
            await asyncio.sleep(self._interval)
            await self.once()

    async def once(self) -> None:
        """One report; where nothing was counted it says just that: silence is a loss."""
        at = time.monotonic()
        found = await self._look()
        rows: list[tuple[Edge, Count]] = []
        for workload, counts in found.items():
            rows += news(self._told.get(workload, {}), counts)
        try:
            seconds = time.monotonic() - self._at + _FLUSH
            body = msgspec.to_builtins(Report(self._node, tuple(rows), tuple(self._uses()), seconds))
            await (await self._api()).request("POST", PATH, body=body)
        except TulleError as error:
            if not self._silent:
                log.warning("what proxies have counted was not told; it will be", error=error.message)
            self._silent = True
            return
        self._silent = False
        if not any(counts is self._told.get(workload) for workload, counts in found.items()):  # one that could not be read
            self._at = at
        self._told = found

    def _uses(self) -> Iterator[Use]:
        for workload in tuple(self._workloads()):
            envoy = workload.envoy
            if envoy is not None and envoy.process is not None:
                yield Use(workload.id, *used(envoy.process.pid), envoy.restarts, self._version)

    async def _look(self) -> dict[str, Counts]:
        found: dict[str, Counts] = {}
        for workload in tuple(self._workloads()):
            if workload.envoy is None or not workload.envoy.answers:
                continue
            try:
                found[workload.id] = observed(await read(workload.envoy.admin), workload.described())
            except Unavailable:
                if workload.id in self._told:
                    found[workload.id] = self._told[workload.id]
        return found
