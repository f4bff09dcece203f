"""Tells the control plane what this node's proxies count of rate limits.

About every second where a limit is shared, for its shares follow that; every few seconds where proxies count for themselves, for
people to see; nothing where there is no limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from tulle.client.api import ApiClient
from tulle.core import type_urls
from tulle.core.model.limit_counts import LimitCount, LimitReport
from tulle.kit.errors import TulleError, Unavailable
from tulle.node.cache import UPSTREAM

if TYPE_CHECKING:
    from tulle.node.workload import Workload

log = structlog.get_logger("tulle.node")

PATH = "/tulle/v1/telemetry/limits"
TICK = 1.0  # seconds
_SLOW = 5  # ticks between two looks where nothing is shared
_PREFIX, _SUFFIX = "ratelimit.", ".http_local_rate_limit."
_STATS = "/stats?filter=%5Eratelimit%5C."
_LIMITS, _COSTS = "limits~", "limit-costs~"  # resources of a proxy that counts, and of one that shares

Totals = dict[tuple[str, str], tuple[int, int, int]]  # proxy, rule → passed, over, refused


class _Told(Protocol):
    """What a workload's proxy was told."""

    def table(self, layer: str, type_url: str) -> Mapping[str, object]:
        """Resources by name."""
        ...


def pace(cache: _Told) -> int:
    """Every how many ticks a proxy's counts are to be told; 0: it counts nothing."""
    names = cache.table(UPSTREAM, type_urls.EXTENSION)
    if any(name.startswith(_COSTS) for name in names):
        return 1
    return _SLOW if any(name.startswith(_LIMITS) for name in names) else 0


def read(text: str) -> dict[str, tuple[int, int, int]]:
    """How many passed, were over and were refused, by rule, in Envoy's words: `ratelimit.RULE.http_local_rate_limit.ok: 7`."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        name, _colon, value = line.rpartition(": ")
        rule, there, what = name.rpartition(_SUFFIX)
        if there and rule.startswith(_PREFIX) and value.isdigit():
            found.setdefault(rule.removeprefix(_PREFIX), {})[what] = int(value)
    return {rule: (one.get("ok", 0), one.get("rate_limited", 0), one.get("enforced", 0)) for rule, one in found.items()}


def since(before: Totals, now: Totals) -> tuple[LimitCount, ...]:
    """What is new. A proxy that has counted less than before has begun anew."""
    rows = []
    for (proxy, rule), (passed, over, refused) in now.items():
        old = before.get((proxy, rule), (0, 0, 0))
        old = old if old <= (passed, over, refused) and old[1] <= over else (0, 0, 0)
        rows.append(LimitCount(proxy, rule, passed - old[0], over - old[1], max(0, refused - old[2])))
    return tuple(rows)


class LimitReporter:
    """`workloads` gives those of now, `api` the client. `clock`: seconds, never back."""

    def __init__(
        self,
        node: str,
        workloads: Callable[[], Iterable[Workload]],
        api: Callable[[], Awaitable[ApiClient]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._workloads, self._api, self._clock = node, workloads, api, clock
        self._told: Totals = {}
        self._at: float | None = None
        self._silent = False

    async def run(self) -> None:
        """Report until cancelled."""
        tick = 0
        while True:
            await asyncio.sleep(TICK)
            tick += 1
            paces = {one: pace(one.feed.cache) for one in tuple(self._workloads())}
            if any(each and tick % each == 0 for each in paces.values()):
                await self.once([one for one, each in paces.items() if each])

    async def once(self, workloads: Iterable[Workload]) -> None:
        """One report of these."""
        now = self._clock()
        proxies, found = await self._look(workloads)
        if self._at is None:  # what was counted before this agent came is no demand of now
            self._told, self._at = found, now - TICK
        if not proxies:
            return
        rows = tuple(row for row in since(self._told, found) if row.passed or row.over)
        try:
            body = msgspec.to_builtins(LimitReport(self._node, max(now - self._at, 0.1), proxies, rows))
            await (await self._api()).request("POST", PATH, body=body)
        except TulleError as error:
            if not self._silent:
                log.warning("what proxies count of rate limits was not told; shares stay as they are", error=error.message)
            self._silent = True
            return
        self._silent = False
        self._told, self._at = found, now

    async def _look(self, workloads: Iterable[Workload]) -> tuple[tuple[str, ...], Totals]:
        """Those that answered, and what is known of all."""
        answered: list[str] = []
        found: Totals = {}
        for workload in workloads:
            text = await _stats(workload)
            if text is None:
                found |= {key: counts for key, counts in self._told.items() if key[0] == workload.id}
            else:
                answered.append(workload.id)
                found |= {(workload.id, rule): counts for rule, counts in read(text).items()}
        return tuple(answered), found


async def _stats(workload: Workload) -> str | None:
    """None where its Envoy does not answer."""
    if workload.envoy is None or not workload.envoy.answers:
        return None
    try:
        status, body = await workload.envoy.admin.get(_STATS)
    except Unavailable:
        return None
    return body.decode(errors="replace") if status == 200 else None
