"""Answers what proxies ask of exact limits (`xds/ratelimit.py`): who asks is checked as for ADS, and a stream is for one proxy.

What cannot be counted is answered by nothing, and the proxy does what the rule says of that (`onFailure`).
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
import structlog
from google.protobuf.message import DecodeError

from tulle.control.metrics import Metric
from tulle.control.ratelimits.counter import Counter
from tulle.core.model.rate_limit import ADDRESS_ENTRY, KEY_ENTRY, RULE_ENTRY
from tulle.core.ratelimit.buckets import Ask, Rule, Verdict, refused
from tulle.core.ratelimit.shares import Demand, expected
from tulle.kit.errors import Refused, Unavailable
from tulle.pb.envoy.service.ratelimit.v3 import rls_pb2
from tulle.pb.google.protobuf import duration_pb2
from tulle.xds.ratelimit import METHOD, PROXY, SERVICE, packed, unpacked
from tulle.xds.server import peer_identity, peer_serial

log = structlog.get_logger("tulle.ratelimits")

_Response = rls_pb2.RateLimitResponse
_LONGEST = 1024  # characters of a key; what is longer is counted by its beginning
_MOST_HITS = 2**32 - 1
_WHILE = 5.0  # seconds that rates are measured over, at most
UNKNOWN = "unknown"  # the rule, in metrics, of what was asked of a rule that is not there


class _Peer(NamedTuple):
    identity: str
    serial: str
    proxy: str


class RateLimitService:
    """`rule` finds a rule by its id. `authorize(peer, proxy)` and `revoked(peer, serial)` are those of `AdsServer`; `counts` says
    whether a rule is one of those that a proxy has: of others it may not use anything up.
    """

    def __init__(
        self,
        counter: Counter,
        rule: Callable[[str], Rule | None],
        authorize: Callable[[str | None, str], None],
        revoked: Callable[[str, str], bool] = lambda peer, serial: False,
        counts: Callable[[str, str], bool] = lambda proxy, rule: True,
    ) -> None:
        self.counter = counter
        self._rule, self._authorize, self._revoked, self._counts = rule, authorize, revoked, counts
        self._tally: Tally[tuple[str, str]] = Tally()
        self._calls: set[asyncio.Task[Any]] = set()
        self._failing = ""
        self._rates: dict[str, tuple[Demand, ...]] = {}
        self._measured: tuple[float, dict[str, tuple[int, ...]]] = (float("-inf"), {})

    @property
    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        methods = {METHOD: grpc.stream_stream_rpc_method_handler(self._serve)}
        return (grpc.method_handlers_generic_handler(SERVICE, methods),)

    def count(self, rule: str, result: str) -> int:
        """How many requests of a rule were `allowed`, `refused`, `shadowed` or `failed`."""
        return self._tally[rule, result]

    def measure(self, now: float) -> None:
        """To be called about every second, for `rates`."""
        since, before = self._measured
        seconds = min(now - since, _WHILE)
        counts: dict[str, tuple[int, ...]] = {}
        for rule in {rule for rule, _result in self._tally}:
            over, failed = self._tally[rule, "refused"] + self._tally[rule, "shadowed"], self._tally[rule, "failed"]
            counts[rule] = (self._tally[rule, "allowed"] + over + failed, over, failed)
        for rule, found in counts.items():
            old, had = self._rates.get(rule, (None,) * 3), before.get(rule, (0,) * 3)
            self._rates[rule] = tuple(
                expected(rate, count - then, seconds, now) for rate, count, then in zip(old, found, had, strict=True)
            )
        self._measured = now, counts

    def rates(self, rule: str) -> tuple[float, ...]:
        """How many requests come in a second, how many of them are over the limit, and how many cannot be counted."""
        found = self._rates.get(rule)
        return tuple(one.rate for one in found) if found else (0.0, 0.0, 0.0)

    def keep(self, rules: Sequence[str]) -> None:
        """Forget the rules that are not any more."""
        self.counter.keep(rules)
        wanted = {*rules, UNKNOWN}
        for key in [key for key in self._tally if key[0] not in wanted]:
            del self._tally[key]
        self._rates = {rule: rates for rule, rates in self._rates.items() if rule in wanted}

    def metrics(self) -> list[Metric]:
        """What was asked."""
        rows = [({"rule": rule, "result": result}, float(count)) for (rule, result), count in sorted(self._tally.items())]
        said = "Requests of exact rate limits that were counted, by rule and result; failed: onFailure of the rule holds."
        return [Metric("tulle_ratelimit_requests_total", "counter", said, rows)]

    async def close(self) -> None:
        """End every stream."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _serve(self, _requests: Any, context: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = await self._admit(context)
        self._calls.add(task)
        try:
            await context.send_initial_metadata(())
            while (data := await context.read()) is not grpc.aio.EOF:
                if self._revoked(peer.identity, peer.serial):
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{peer.identity} is revoked")
                try:
                    batch = unpacked(data)
                except ValueError as error:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a batch of requests: {error}")
                    raise
                await context.write(packed(await self.answers(peer.proxy, batch)))
        except asyncio.CancelledError:
            context.set_code(grpc.StatusCode.UNAVAILABLE)
            context.set_details("the server is closing")
        finally:
            self._calls.discard(task)

    async def _admit(self, context: Any) -> _Peer:
        auth = context.auth_context()
        identity, serial = peer_identity(auth) or "", peer_serial(auth)
        proxy = next((str(value) for key, value in context.invocation_metadata() or () if key == PROXY), "")
        try:
            if not proxy:
                raise Refused(f"a stream has to name its proxy in the metadata {PROXY}")
            if self._revoked(identity, serial):
                raise Refused(f"{identity}, or its certificate {serial}, is revoked")
            self._authorize(identity or None, proxy)
        except Refused as refusal:
            log.warning("who asks for rate limits is refused", proxy=proxy, peer=identity, why=refusal.message)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal.message)
        return _Peer(identity, serial, proxy)

    async def answers(self, proxy: str, batch: Sequence[bytes]) -> list[bytes]:
        """What is said of each request of a batch."""
        found = [self._asks(proxy, one) for one in batch]
        asked = [asks for asks in found if asks]
        try:
            verdicts = iter(await self.counter.take(asked) if asked else ())
        except Unavailable as error:
            self._failed(error.message, asked)
            return [b"" for _ in batch]
        self._failing = ""
        return [b"" if asks is None else _OK if not asks else self._answer(asks, next(verdicts)) for asks in found]

    def _asks(self, proxy: str, data: bytes) -> list[Ask] | None:
        """What a request asks for; None where that is nothing that could be counted."""
        try:
            request = rls_pb2.RateLimitRequest.FromString(data)
        except DecodeError:
            return None
        asks: list[Ask] = []
        for descriptor in request.descriptors:
            said = {entry.key: entry.value for entry in descriptor.entries}
            rule = self._rule(said.get(RULE_ENTRY, ""))
            if rule is None or not self._counts(proxy, rule.id):
                self._tally[UNKNOWN, "failed"] += 1
                return None
            hits = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else request.hits_addend or 1
            key = said.get(KEY_ENTRY) or said.get(ADDRESS_ENTRY, "")
            asks.append(Ask(rule, key[:_LONGEST], min(hits, _MOST_HITS)))
        return asks

    def _answer(self, asks: Sequence[Ask], verdicts: Sequence[Verdict]) -> bytes:
        no = refused(asks, verdicts)
        for ask, said in zip(asks, verdicts, strict=True):
            result = "shadowed" if not said.within and ask.rule.shadow else "refused" if not said.within else "allowed"
            self._tally[ask.rule.id, result] += 1
        return _Response(
            overall_code=_Response.OVER_LIMIT if no else _Response.OK,
            statuses=[_status(ask, said) for ask, said in zip(asks, verdicts, strict=True)],
        ).SerializeToString()

    def _failed(self, why: str, asked: Sequence[Sequence[Ask]]) -> None:
        for asks in asked:
            for ask in asks:
                self._tally[ask.rule.id, "failed"] += 1
        if self._failing != why:
            self._failing = why
            log.error("exact rate limits cannot be counted; each rule's onFailure holds", why=why)


def _status(ask: Ask, said: Verdict) -> Any:
    over = not said.within and not ask.rule.shadow
    return _Response.DescriptorStatus(
        code=_Response.OVER_LIMIT if over else _Response.OK,
        # Without its unit: callers are told one number, as of limits that Envoy counts itself.
        current_limit=_Response.RateLimit(requests_per_unit=said.rate.capacity),
        limit_remaining=said.left,
        duration_until_reset=_duration(said.retry if over else said.reset),
    )


def _duration(value: float) -> duration_pb2.Duration:
    whole = math.ceil(value)  # what is told in headers are seconds
    return duration_pb2.Duration(seconds=whole)


_OK = _Response(overall_code=_Response.OK).SerializeToString()
