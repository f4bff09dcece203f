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
from tulle.core.ratelimit.shares import SELDOM, Demand, reweighted, split

log = structlog.get_logger("tulle.ratelimits")

TICK = 1.0  # seconds
_TICK_OF_SEVERAL = 0.5  # what is asked of others comes later by as much
PATH = "/telemetry/limits/exchange"

_AT_ONCE = 100  # rules that are weighed and told before anybody else has a turn

Shares = dict[str, Mapping[str, float]]


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
        there = {rule.limit.id for rule in rules}
        self._take(dict.fromkeys(self.shares.keys() - there))
        if not rules:
            return
        heard = await self._heard()
        leader = None if self._leads() else next((one for one in heard if one.leads), None)
        if leader is None and not self._leads():
            return
        self._look += 1
        for start in range(0, len(rules), _AT_ONCE):
            part = enumerate(rules[start : start + _AT_ONCE], start)
            self._take(
                {
                    rule.limit.id: self._weighed(rule, heard, at) if leader is None else leader.shares.get(rule.limit.id)
                    for at, rule in part
                }
            )
            await asyncio.sleep(0)

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

    def _weighed(self, rule: SharedLimit, heard: list[Exchange], at: int) -> Mapping[str, float] | None:
        """None: as long as nobody has asked anything of a rule its shares are even, which nobody has to be told."""
        limit, members = rule.limit, rule.members
        before = self.shares.get(limit.id)
        others = [told for one in heard if (told := one.demands.get(limit.id))]
        if before is None and not others and not self.demands.of(limit.id):
            return None
        if before is None or tuple(before) != members:
            before = split(members, before or {})
        demands, now = self.demands.demands(rule), self._clock()
        for told in others:
            for proxy, (rate, ago) in told.items():
                if proxy not in demands or now - ago > demands[proxy].at:
                    demands[proxy] = Demand(rate, now - ago)
        # Not all of them at once.
        thorough = (self._look + at) % SELDOM == 0
        return reweighted(before, demands, limit.limit / limit.window, now, keyed=limit.key is not None, thorough=thorough)

    def _take(self, found: Mapping[str, Mapping[str, float] | None]) -> None:
        """Other shares of rules (None: even ones)."""
        news: dict[tuple[str, str], float | None] = {}
        for rule, shares in found.items():
            before = self.shares.get(rule)
            if shares is before or shares == before:
                continue
            had, has = before or {}, shares or {}
            news |= {(rule, proxy): share for proxy, share in has.items() if had.get(proxy) != share}
            news |= {(rule, proxy): None for proxy in had if proxy not in has}
            if shares is None:
                del self.shares[rule]
            else:
                self.shares[rule] = shares
        if not news:
            return
        published = self._pipeline.take_shares(news)
        if published.changed:
            self.told += 1
            self._publish(published)
