"""Rate limits in a control plane: shares that follow the demand, the counting of exact limits, what people are told of both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import structlog
from aiohttp import web

from tulle.app.peers import Peers
from tulle.control.metrics import Metric
from tulle.control.ratelimits.api import Calls, LimitsApi
from tulle.control.ratelimits.counter import OwnCounter
from tulle.control.ratelimits.service import RateLimitService
from tulle.control.ratelimits.sharing import TICK, Sharing
from tulle.control.telemetry.others import Others, nobody
from tulle.core.compile.counters import limits_at
from tulle.core.compile.route_limits import gateway_limited, mesh_limited
from tulle.core.encoded import Published
from tulle.core.model.rate_limit import NO_ROUTES, Limit, SharedLimit
from tulle.core.pipeline import Pipeline
from tulle.core.ratelimit.buckets import Rate, Rule
from tulle.kit.errors import Refused

log = structlog.get_logger("tulle.ratelimits")


class RateLimits:
    """`redis` is where exact limits are counted ("": in this process), `publish` takes what new shares make, `leads` whether
    this control plane does; `authorize` and `revoked` are those of the xDS server. `peers`: the others, if any.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        redis: str,
        peers: Peers | None,
        publish: Callable[[Published], None],
        leads: Callable[[], bool],
        authorize: Callable[[str | None, str], None],
        revoked: Callable[[str, str], bool],
    ) -> None:
        self._pipeline, self._peers = pipeline, peers
        self._others: Others = peers.answers if peers is not None else nobody
        self._where = "redis" if redis else "memory"
        self._counter = _counter(redis)
        self._rules: dict[str, Rule] = {}
        self._limits: tuple[Limit, ...] = ()
        self._of_proxy: dict[str, frozenset[str]] = {}
        self._warned = False
        self._service = RateLimitService(self._counter, self._rule, authorize, revoked, self._counts)
        self._sharing = Sharing(pipeline, publish, leads, self._others)

    def add(self, app: web.Application, reporter: Callable[[web.Request], str], calls: Calls) -> None:
        """Serve what is reported and asked."""
        LimitsApi(self._all, self._sharing, self._service, reporter, self._runs, calls, self._where, self._others).add(app)

    @property
    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """For the gRPC server of nodes."""
        return self._service.handlers

    def published(self) -> None:
        """The mesh may have other limits."""
        self._of_proxy = {}
        limits = self._pipeline.exact_limits
        if limits is self._limits:
            return
        self._limits = limits
        self._rules = {limit.id: self._known(rule_of(limit)) for limit in limits}
        self._service.keep(tuple(self._rules))
        if limits and not self._warned and self._where == "memory" and self._peers is not None:
            self._warned = True
            log.warning("each control plane counts exact rate limits for itself: --ratelimit-redis makes them count together")

    def _known(self, rule: Rule) -> Rule:
        """The same object as before where it is the same."""
        before = self._rules.get(rule.id)
        return before if before == rule else rule

    async def run(self) -> None:
        """Weigh shares, and measure what is counted here, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sharing.run())
            group.create_task(self._measure())

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._service.measure(time.monotonic())

    def metrics(self) -> list[Metric]:
        """What was counted here, and how often shares became others."""
        said = "How often proxies were given other shares of limits that they have together."
        return [
            *self._service.metrics(),
            Metric("tulle_ratelimit_shares_total", "counter", said, [({}, float(self._sharing.told))]),
            *_of_rules(self._sharing, self._pipeline.shared_limits),
        ]

    async def close(self) -> None:
        """Hang up."""
        await self._service.close()
        close = getattr(self._counter, "close", None)
        if close is not None:
            await close()

    def _rule(self, name: str) -> Rule | None:
        return self._rules.get(name)

    def _counts(self, proxy: str, rule: str) -> bool:
        """Whether a proxy has a rule."""
        known = self._of_proxy.get(proxy)
        if known is None:
            known = self._of_proxy[proxy] = frozenset(limit.id for limit in self._limits_of(proxy))
        return rule in known

    def _limits_of(self, proxy: str) -> Iterator[Limit]:
        """What a proxy counts, or asks for: at its ports, and for routes, at gateways by these and elsewhere by callers."""
        namespace, _slash, name = proxy.partition("/")
        get, key = self._pipeline.flow.get, (namespace, name)
        of_routes = get(gateway_limited, key) if self._pipeline.is_gateway(proxy) else get(mesh_limited, None)
        for limits in (*(get(limits_at, key) or {}).values(), *(of_routes or NO_ROUTES).all):
            yield from limits

    def _runs(self, node: str, proxy: str) -> bool:
        workload = self._pipeline.workload(proxy)
        return workload is not None and workload.node == node

    def _all(self) -> list[SharedLimit]:
        """Every limit that stands somewhere, and at which proxies."""
        limits: dict[str, Limit] = {}
        members: dict[str, set[str]] = {}
        for proxy in self._pipeline.run_by_nodes:
            for limit in self._limits_of(proxy):
                limits.setdefault(limit.id, limit)
                members.setdefault(limit.id, set()).add(proxy)
        shared = {one.limit.id: one for one in self._pipeline.shared_limits}
        return [shared.get(name) or SharedLimit(limit, tuple(sorted(members[name]))) for name, limit in limits.items()]


def rule_of(limit: Limit) -> Rule:
    """How a limit is counted."""
    overrides = {value: Rate(one.limit, limit.window, one.burst) for one in limit.overrides for value in one.values}
    return Rule(limit.id, Rate(limit.limit, limit.window, limit.burst), overrides, limit.shadow)


def _counter(redis: str) -> Any:
    if not redis:
        return OwnCounter()
    try:
        from tulle.control.ratelimits.redis import RedisCounter
    except ImportError as error:
        raise Refused("counting in Redis needs its client", hint="pip install 'tulle[redis]'") from error
    return RedisCounter(redis)


def _of_rules(sharing: Sharing, rules: Sequence[SharedLimit]) -> Iterator[Metric]:
    seen = {rule.limit.id: sharing.demands.of(rule.limit.id).values() for rule in rules}
    results = (("passed", lambda one: one.passed), ("over", lambda one: one.over), ("refused", lambda one: one.refused))
    rows = [
        ({"rule": rule, "result": name}, float(sum(map(read, found))))
        for rule, found in sorted(seen.items())
        for name, read in results
    ]
    yield Metric("tulle_ratelimit_shared_requests_total", "counter", "Requests of shared limits, as proxies counted them.", rows)
