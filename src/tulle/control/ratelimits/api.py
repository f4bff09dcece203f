"""`/tulle/v1/telemetry/limits`: nodes report what proxies counted of rate limits; who may see the mesh asks how these stand.

| path        | answers                                                                        |
|-------------|--------------------------------------------------------------------------------|
| (POST)      | nothing: a node's `LimitReport`                                                 |
| (GET)       | `core.ratelimit.status.LimitStatuses`; `rule` (an id, or its beginning), `seconds` |
| `/exchange` | `sharing.Exchange`: for the other control planes                                |
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog
from aiohttp import web

from tulle.control.apiserver import errors
from tulle.control.ratelimits.service import RateLimitService
from tulle.control.ratelimits.sharing import Sharing
from tulle.control.telemetry.others import Others, nobody
from tulle.core.model.calls import Count, Edge
from tulle.core.model.limit_counts import LimitCount, LimitReport
from tulle.core.model.rate_limit import Counting, SharedLimit, Unit
from tulle.core.ratelimit.buckets import KeyState
from tulle.core.ratelimit.shares import split
from tulle.core.ratelimit.status import KeyStatus, LimitStatuses, ProxyStatus, RuleStatus, bound, callers, merged, top_keys

log = structlog.get_logger(__name__)

_MOST_ROWS = 20_000
_LONGEST = 512
PATH = "/telemetry/limits"

Calls = Callable[[float], Awaitable[Mapping[Edge, Count]]]


class LimitsApi:
    """`limits` are all rules, with the proxies that have them; `runs(node, proxy)` says whether a node runs a proxy; `calls`
    gives what was counted in the last seconds; `reporter` is the node that asks, or "". `counter` names where it is counted.
    """

    def __init__(
        self,
        limits: Callable[[], Iterable[SharedLimit]],
        sharing: Sharing,
        service: RateLimitService,
        reporter: Callable[[web.Request], str],
        runs: Callable[[str, str], bool],
        calls: Calls,
        counter: str,
        others: Others = nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits, self._sharing, self._service, self._reporter = limits, sharing, service, reporter
        self._runs, self._calls, self._counter, self._others, self._clock = runs, calls, counter, others, clock

    def add(self, app: web.Application) -> None:
        """Serve the paths."""
        app.router.add_post(PATH, self.report)
        app.router.add_get(PATH, self.statuses)
        app.router.add_get(f"{PATH}/exchange", self.exchange)

    async def report(self, request: web.Request) -> web.Response:
        """What a node's proxies have counted since its last report."""
        try:
            told = msgspec.json.decode(await request.read(), type=LimitReport)
        except msgspec.DecodeError as error:
            raise errors.bad_request(f"report: {error}") from error
        node = self._reporter(request)
        if node and told.node != node:
            raise errors.Denial(403, "Forbidden", f"report.node: found {told.node!r}; node {node} reports for itself only")
        mine = {proxy for proxy in told.proxies[:_MOST_ROWS] if self._runs(told.node, proxy)}
        rows = [row for row in told.rows[:_MOST_ROWS] if row.proxy in mine and _sane(row)]
        if len(rows) < len(told.rows):
            log.warning("counts of rate limits that make no sense are left out", node=told.node, rows=len(told.rows) - len(rows))
        self._sharing.demands.add(mine, rows, min(max(told.seconds, 0.1), 3600.0), self._clock())
        return web.json_response({})

    async def exchange(self, _request: web.Request) -> web.Response:
        """What the others need to make shares."""
        return _answer(self._sharing.exchange())

    async def statuses(self, request: web.Request) -> web.Response:
        """How the rules stand."""
        wanted = request.query.get("rule", "")
        try:
            seconds = min(max(float(request.query.get("seconds", "600")), 1.0), 1e6)
        except ValueError:
            raise errors.bad_request("seconds: needed a number") from None
        here = request.query.get("here") == "true"
        own = self.here(wanted)
        if here:
            return _answer(LimitStatuses(own, counter=self._counter))
        answers = await self._others(PATH, {"rule": wanted})
        others = [msgspec.convert(answer, LimitStatuses).rules for answer in answers]
        found = callers(await self._calls(seconds))
        return _answer(LimitStatuses(merged(own, others), found, seconds, self._counter))

    def here(self, wanted: str = "") -> tuple[RuleStatus, ...]:
        """What this control plane knows of the rules whose ids begin with `wanted`."""
        limits = [one for one in self._limits() if one.limit.id.startswith(wanted)]
        keys: dict[str, list[KeyState]] = {}
        if any(one.limit.counting is Counting.EXACT for one in limits):
            for state in self._service.counter.states():
                keys.setdefault(state.rule, []).append(state)
        return tuple(self._status(one, keys.get(one.limit.id, ())) for one in sorted(limits, key=lambda one: one.limit.id))

    def _status(self, one: SharedLimit, keys: Iterable[KeyState]) -> RuleStatus:
        limit = one.limit
        common: dict[str, Any] = {
            "rule": limit.id,
            "counting": limit.counting.value,
            "limit": limit.limit,
            "window": limit.window,
            "burst": limit.burst,
            "unit": limit.unit.value,
            "keyed": limit.key is not None,
            "shadow": limit.shadow,
            "denies": limit.denies,
        }
        if limit.counting is Counting.EXACT:
            several = self._counter == "memory" and self._others is not nobody
            return _exact(common, limit.id, self._service, keys, bound(limit, len(one.members), several=several))
        return self._counted(common, one)

    def _counted(self, common: dict[str, Any], one: SharedLimit) -> RuleStatus:
        """By the proxies."""
        limit, seen, now = one.limit, self._sharing.demands.of(one.limit.id), self._clock()
        shares = (
            split(one.members, self._sharing.shares.get(limit.id, {}))
            if limit.counting is Counting.SHARED
            else dict.fromkeys(one.members, 1.0)
        )
        proxies = []
        for proxy in one.members:
            found = seen.get(proxy)
            fresh = found is not None and now - found.demand.at < 30
            rate, over = (found.demand.rate, found.refusing.rate) if found is not None and fresh else (0.0, 0.0)
            proxies.append(ProxyStatus(proxy, round(shares.get(proxy, 0.0), 4), round(rate, 2), round(over, 2)))
        speed = limit.limit / limit.window
        used: float | None = None
        if limit.key is None and limit.unit is Unit.REQUESTS:
            passing = [max(0.0, proxy.rate - proxy.over) / speed for proxy in proxies]
            used = min(1.0, sum(passing) if limit.counting is Counting.SHARED else max(passing, default=0.0))
        return RuleStatus(
            **common,
            rate=round(sum(proxy.rate for proxy in proxies), 2),
            over=round(sum(proxy.over for proxy in proxies), 2),
            passed=sum(found.passed for found in seen.values()),
            refused=sum(found.refused for found in seen.values()),
            used=used,
            bound=bound(limit, len(one.members)),
            proxies=tuple(proxies),
        )


def _exact(common: dict[str, Any], rule: str, service: RateLimitService, keys: Iterable[KeyState], words: str) -> RuleStatus:
    keys = tuple(keys)
    rate, over, failing = service.rates(rule)
    return RuleStatus(
        **common,
        rate=round(rate, 2),
        over=round(over, 2),
        failing=round(failing, 2),
        passed=service.count(rule, "allowed") + service.count(rule, "shadowed"),
        refused=service.count(rule, "refused"),
        failed=service.count(rule, "failed"),
        used=max((key.used for key in keys), default=0.0),
        bound=words,
        keys=top_keys(KeyStatus(key.key, round(key.used, 4), key.allowed, key.refused) for key in keys),
    )


def _sane(row: LimitCount) -> bool:
    """Garbage of a broken node does not become anybody's share."""
    return all(0 <= number < 1 << 40 for number in (row.passed, row.over, row.refused)) and len(row.rule) <= _LONGEST


def _answer(found: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")
