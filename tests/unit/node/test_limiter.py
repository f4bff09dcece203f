"""The way of an exact limit, without Envoy: a client of the RateLimitService, the node's limiter, the control plane's service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from tulle.control.ratelimits.counter import OwnCounter
from tulle.control.ratelimits.service import RateLimitService
from tulle.core.ratelimit.buckets import Ask, Rate, Rule, Verdict
from tulle.kit.errors import Refused, Unavailable
from tulle.node.limiter import ENVOY_SERVICE, Limiter
from tulle.pb.envoy.service.ratelimit.v3 import rls_pb2
from tulle.xds.client import Upstream

OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
RULES = {"default/all/0": Rule("default/all/0", Rate(10, 3600)), "default/all/1": Rule("default/all/1", Rate(3, 3600))}
PROXY = "default/reviews-1"


def request(*rules: str, key: str = "") -> bytes:
    made = rls_pb2.RateLimitRequest(domain="tulle")
    for rule in rules:
        entries = made.descriptors.add().entries
        entries.add(key="rule", value=rule)
        if key:
            entries.add(key="key", value=key)
    return made.SerializeToString()


class Way:
    """All of it; the control plane's part can be ended and begun again."""

    def __init__(self, folder: Path) -> None:
        self.above, self.below = f"unix:{folder}/above", f"unix:{folder}/below"
        self.upstream = Upstream(self.above)
        self.limiter = Limiter(self.upstream, PROXY)
        self.counter: Any = OwnCounter()
        self.denied = ""

    def _authorize(self, peer: str | None, proxy: str) -> None:
        if self.denied or (peer, proxy) != (None, PROXY):
            raise Refused(self.denied or f"{proxy} is not yours")

    async def begin(self) -> None:
        """The control plane."""
        self.service = RateLimitService(self.counter, RULES.get, self._authorize)
        self.plane = grpc.aio.server()
        self.plane.add_generic_rpc_handlers(self.service.handlers)
        self.plane.add_insecure_port(self.above)
        await self.plane.start()

    async def end(self) -> None:
        await self.service.close()
        await self.plane.stop(None)

    async def start(self) -> None:
        await self.begin()
        self.node = grpc.aio.server()
        self.node.add_generic_rpc_handlers(self.limiter.handlers)
        self.node.add_insecure_port(self.below)
        await self.node.start()
        self.channel = grpc.aio.insecure_channel(self.below)

    async def close(self) -> None:
        await self.channel.close()
        await self.limiter.close()
        await self.node.stop(None)
        await self.upstream.close()
        await self.end()

    async def ask(self, data: bytes) -> Any:
        answer = await self.channel.unary_unary(f"/{ENVOY_SERVICE}/ShouldRateLimit")(data)
        return rls_pb2.RateLimitResponse.FromString(answer)


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    made = Way(tmp_path)
    await made.start()
    yield made
    await made.close()


async def test_many_at_once_are_counted_exactly(way: Way) -> None:
    """Otherwise batches would lose, mix up or double requests."""
    answers = await asyncio.gather(*(way.ask(request("default/all/0", key=f"k{number % 7}")) for number in range(700)))
    assert sum(one.overall_code == OK for one in answers) == 70
    assert sum(one.overall_code == OVER for one in answers) == 630
    assert way.service.count("default/all/0", "refused") == 630


async def test_the_answer_says_what_is_left_and_when_to_come_back(way: Way) -> None:
    """Otherwise Envoy could not tell callers, in headers, how they stand."""
    first = await way.ask(request("default/all/0", "default/all/1"))
    assert [one.limit_remaining for one in first.statuses] == [9, 2]
    assert [one.current_limit.requests_per_unit for one in first.statuses] == [10, 3]
    for _ in range(2):
        await way.ask(request("default/all/1"))
    last = await way.ask(request("default/all/0", "default/all/1"))
    assert [one.code for one in last.statuses] == [OK, OVER]
    assert last.overall_code == OVER
    assert 0 < last.statuses[1].duration_until_reset.seconds <= 1200


async def test_who_has_no_key_shares_a_bucket_with_all_who_have_none(way: Way) -> None:
    """Otherwise leaving the key out would be a way around the limit, or use up the limit of those who have one."""
    codes = [(await way.ask(request("default/all/1"))).overall_code for _ in range(4)]
    assert codes == [OK, OK, OK, OVER]
    assert (await way.ask(request("default/all/1", key="a"))).overall_code == OK


async def test_a_rule_that_is_not_there_is_not_counted_as_allowed(way: Way) -> None:
    """Otherwise a rule that this control plane does not know yet would be no limit, whatever its onFailure says."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await way.ask(request("default/none/0"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert way.service.count("unknown", "failed") == 1


async def test_without_a_control_plane_there_is_an_error_at_once_and_afterwards_answers_again(way: Way) -> None:
    """Otherwise requests would hang when the control plane is away, or the limit stay off when it is back."""
    assert (await way.ask(request("default/all/0"))).overall_code == OK
    await way.end()
    with pytest.raises(grpc.aio.AioRpcError):
        await asyncio.wait_for(way.ask(request("default/all/0")), 2)
    assert way.limiter.failed
    await way.begin()
    async with asyncio.timeout(10):
        while True:
            try:
                answer = await way.ask(request("default/all/0"))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                break
    assert answer.statuses[0].limit_remaining == 8, "who counts in its process keeps its counts as long as that"


async def test_who_may_not_speak_for_a_proxy_uses_up_nothing(way: Way) -> None:
    """Otherwise any node could lock out the clients of others."""
    way.denied = "default/reviews-1 runs on another node"
    with pytest.raises(grpc.aio.AioRpcError, match="another node"):
        await way.ask(request("default/all/0"))
    assert way.service.count("default/all/0", "allowed") == 0


async def test_a_proxy_uses_up_only_limits_that_it_has(way: Way) -> None:
    """Otherwise a node could use up the limits of services that run elsewhere."""
    way.service._counts = lambda proxy, rule: (proxy, rule) == (PROXY, "default/all/1")
    with pytest.raises(grpc.aio.AioRpcError):
        await way.ask(request("default/all/0"))
    assert (await way.ask(request("default/all/1"))).overall_code == OK


async def test_garbage_is_answered_with_an_error(way: Way) -> None:
    """Otherwise one broken message would end the stream for all others."""
    with pytest.raises(grpc.aio.AioRpcError):
        await way.ask(b"\xff\xff\xff")
    assert (await way.ask(request("default/all/0"))).overall_code == OK


class Broken:
    """Counts nothing."""

    async def take(self, _requests: Sequence[Sequence[Ask]]) -> Sequence[Sequence[Verdict]]:
        raise Unavailable("redis://127.0.0.1:1 does not answer")

    def keep(self, _rules: Any) -> None: ...

    def states(self) -> tuple[()]:
        return ()


async def test_what_cannot_be_counted_is_an_error_and_is_counted(way: Way) -> None:
    """Otherwise a Redis that is away would let through all, or nobody would see it."""
    way.service.counter = Broken()
    with pytest.raises(grpc.aio.AioRpcError):
        await way.ask(request("default/all/0"))
    assert way.service.count("default/all/0", "failed") == 1
    way.service.measure(1.0)
    comes, over, failing = way.service.rates("default/all/0")
    assert (comes, over) == (failing, 0)
    assert failing > 0
    for second in range(2, 12):
        way.service.measure(float(second))
    assert way.service.rates("default/all/0")[2] < 0.01, "what is over is not said to be now"
    assert "tulle_ratelimit_requests_total" in {one.name for one in way.service.metrics()}
