"""Keeps the shares of limits where the demand is: about every second the leader weighs anew, and the others take what it has.

    nodes ──▶ Demands (here) ─┐
    others ──▶ Exchange ──────┴─▶ core/ratelimit/shares.py ──▶ Pipeline.take_shares ──▶ proxies

A proxy keeps its last share when there is nobody here; one that comes has its even part at once. Whoever leads next goes on with
the shares that it took from the last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import structlog

from tulle.control.ratelimits.demand import Demands
from tulle.control.telemetry.others import Others, nobody
from tulle.core.encoded import Published
from tulle.core.model.rate_limit import SharedLimit
from tulle.core.ratelimit.shares import NOISE, NOW_AND_THEN, SELDOM, Demand, reweighted, split

log = structlog.get_logger("tulle.ratelimits")

TICK = 1.0  # seconds
_TICK_OF_SEVERAL = 0.5  # what is asked of others comes later by as much
PATH = "/telemetry/limits/exchange"

Shares = dict[str, dict[str, float]]


class SharedLimits(Protocol):
    """What of the pipeline is needed here."""

    @property
    def shared_limits(self) -> tuple[SharedLimit, ...]:
        """The rules that proxies share."""
        ...

    def take_shares(self, given: Mapping[tuple[str, str], float | None]) -> Published:
        """Shares by rule and proxy; None: an even one again."""
        ...


class Exchange(msgspec.Struct, frozen=True):
    """What a control plane tells the others: whether it leads, its shares, and what its nodes told (rate, seconds ago)."""

    leads: bool = False
    shares: Shares = {}
    demands: dict[str, dict[str, tuple[float, float]]] = {}


class Sharing:
    """`publish` is called with what new shares make of the proxies' configuration. `clock`: seconds, never back."""

    def __init__(
        self,
        pipeline: SharedLimits,
        publish: Callable[[Published], None],
        leads: Callable[[], bool],
        others: Others = nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline, self._publish, self._leads, self._others, self._clock = pipeline, publish, leads, others, clock
        self.demands = Demands()
        self.shares: Shares = {}
        self._look = 0
        self.told = 0  # how often proxies were given other shares

    async def run(self) -> None:
        """Until cancelled."""
        tick = TICK if self._others is nobody else _TICK_OF_SEVERAL
        while True:
            await asyncio.sleep(tick)
            await self.once()

    async def once(self) -> None:
        """Look at all shared rules."""
        rules = self._pipeline.shared_limits
        if not rules:
            self._take({})
            return
        heard = await self._heard()
        if self._leads():
            self._look += 1
            found = {rule.limit.id: self._weighed(rule, heard, at) for at, rule in enumerate(rules)}
        else:
            leader = next((one for one in heard if one.leads), None)
            if leader is None:
                return
            found = {rule.limit.id: leader.shares[rule.limit.id] for rule in rules if rule.limit.id in leader.shares}
        self._take(found)

    def exchange(self) -> Exchange:
        """What the others are told."""
        now = self._clock()
        demands = {
            rule.limit.id: {proxy: (one.rate, now - one.at) for proxy, one in self.demands.demands(rule).items()}
            for rule in self._pipeline.shared_limits
        }
        return Exchange(self._leads(), self.shares, demands)

    async def _heard(self) -> list[Exchange]:
        found = []
        for answer in await self._others(PATH, {}):
            try:
                found.append(msgspec.convert(answer, Exchange))
            except msgspec.ValidationError as error:  # of another version
                log.debug("another control plane tells of shares what cannot be read", why=str(error))
        return found

    def _weighed(self, rule: SharedLimit, heard: list[Exchange], at: int) -> dict[str, float]:
        # Not all of them at once.
        noise = NOW_AND_THEN if (self._look + at) % SELDOM == 0 else NOISE
        limit, now = rule.limit, self._clock()
        before = split(rule.members, self.shares.get(limit.id, {}))
        demands = self.demands.demands(rule)
        for one in heard:
            for proxy, (rate, ago) in one.demands.get(limit.id, {}).items():
                if proxy not in demands or now - ago > demands[proxy].at:
                    demands[proxy] = Demand(rate, now - ago)
        return reweighted(before, demands, limit.limit / limit.window, now, keyed=limit.key is not None, noise=noise)

    def _take(self, found: Shares) -> None:
        if found == self.shares:
            return
        before, self.shares = _flat(self.shares), found
        now = _flat(found)
        news: dict[tuple[str, str], float | None] = {key: share for key, share in now.items() if before.get(key) != share}
        news |= dict.fromkeys(before.keys() - now.keys())
        published = self._pipeline.take_shares(news)
        if published.changed:
            self.told += 1
            self._publish(published)


def _flat(shares: Shares) -> dict[tuple[str, str], float]:
    return {(rule, proxy): share for rule, found in shares.items() for proxy, share in found.items()}
