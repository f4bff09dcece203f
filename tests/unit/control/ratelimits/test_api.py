"""What nodes may report of limits, and what people are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.support.clock import TurnedClock
from tests.unit.control.ratelimits.test_sharing import MEMBERS, RULE, Mesh
from tulle.control.apiserver.errors import Denial
from tulle.control.ratelimits.api import PATH, LimitsApi
from tulle.control.ratelimits.counter import OwnCounter
from tulle.control.ratelimits.service import RateLimitService
from tulle.control.ratelimits.sharing import Sharing
from tulle.core.model.calls import Count, Edge
from tulle.core.model.limit_counts import LimitCount, LimitReport
from tulle.core.model.rate_limit import Counting, Limit, SharedLimit
from tulle.core.ratelimit.buckets import Ask, Rate, Rule
from tulle.core.ratelimit.status import LimitStatuses

EXACT = Rule("default/exact/0", Rate(2, 3600))


@web.middleware
async def _denials(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except Denial as denial:
        return web.Response(status=denial.http)
    return answer


class Api:
    """Served; node `n` runs the first two members."""

    def __init__(self) -> None:
        self.mesh, self.clock = Mesh(), TurnedClock()
        self.sharing = Sharing(self.mesh, self.mesh.publish, lambda: True, clock=self.clock.now)
        self.service = RateLimitService(OwnCounter(), {EXACT.id: EXACT}.get, lambda _peer, _proxy: None)
        limits = (*self.mesh.limits, SharedLimit(Limit(EXACT.id, 2, 3600, counting=Counting.EXACT), MEMBERS))

        async def calls(_seconds: float) -> dict[Edge, Count]:
            return {Edge("destination", "default/curl", service="reviews", code="429", flags="RL"): Count(3)}

        self.client: Any = None
        self.app = web.Application(middlewares=[_denials])
        runs = lambda node, proxy: node == "n" and proxy in MEMBERS[:2]  # noqa: E731 - a line is enough
        LimitsApi(
            lambda: limits, self.sharing, self.service, lambda _request: "n", runs, calls, "memory", clock=self.clock.now
        ).add(self.app)

    async def statuses(self, **query: str) -> LimitStatuses:
        answer = await self.client.get(PATH, params=query)
        assert answer.status == 200
        return msgspec.json.decode(await answer.read(), type=LimitStatuses)

    async def report(self, *rows: LimitCount, node: str = "n", proxies: tuple[str, ...] = MEMBERS) -> int:
        body = msgspec.json.encode(LimitReport(node, 1.0, proxies, rows))
        return int((await self.client.post(PATH, data=body)).status)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    async with TestClient(TestServer(made.app)) as client:
        made.client = client
        yield made


async def test_a_rule_stands_as_its_proxies_told(api: Api) -> None:
    """Otherwise nobody would see who is limited."""
    assert await api.report(LimitCount(MEMBERS[0], RULE, 80, 20, 20), LimitCount(MEMBERS[1], RULE, 10)) == 200
    found = await api.statuses(rule="default/all/")
    (rule,) = found.rules
    assert (rule.rate, rule.over, rule.passed, rule.refused) == (110, 20, 90, 20)
    assert rule.used == pytest.approx(0.9)
    assert [(one.proxy, one.rate) for one in rule.proxies] == [(MEMBERS[0], 100), (MEMBERS[1], 10), (MEMBERS[2], 0)]
    assert found.callers[0].source == "default/curl"


async def test_an_exact_rule_names_its_keys(api: Api) -> None:
    """Otherwise whose key is used up would be known to nobody."""
    for key in ("a", "a", "a", "b"):
        await api.service.counter.take([[Ask(EXACT, key)]])
    (rule,) = (await api.statuses(rule=EXACT.id)).rules
    assert [(one.key, one.allowed, one.refused) for one in rule.keys] == [("a", 2, 1), ("b", 1, 0)]
    assert rule.used == pytest.approx(1.0, abs=0.01)


async def test_a_node_tells_of_its_own_proxies_only(api: Api) -> None:
    """Otherwise a node could draw the limits of others to itself, or starve them."""
    assert await api.report(LimitCount(MEMBERS[2], RULE, 10**6)) == 200
    assert api.sharing.demands.of(RULE) == {}
    assert await api.report(node="other") == 403


@pytest.mark.parametrize("number", [-1, 1 << 41])
async def test_counts_that_make_no_sense_are_left_out(api: Api, number: int) -> None:
    """Otherwise a broken node would have all shares."""
    assert await api.report(LimitCount(MEMBERS[0], RULE, number)) == 200
    assert api.sharing.demands.of(RULE) == {}


async def test_garbage_is_refused(api: Api) -> None:
    """Otherwise it would be an error of the control plane."""
    assert (await api.client.post(PATH, data=b"{")).status == 400
    assert (await api.client.get(PATH, params={"seconds": "x"})).status == 400
