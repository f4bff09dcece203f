"""What nodes told of rate limits: what comes to each proxy now, and what was refused, of every rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tulle.core.model.limit_counts import LimitCount
from tulle.core.model.rate_limit import SharedLimit
from tulle.core.ratelimit.shares import Demand, expected, faded

_GONE = 60.0  # seconds after which a proxy that says nothing is forgotten
_MOST = 50_000  # proxies and rules together


class Seen(msgspec.Struct, frozen=True):
    """Of a rule at a proxy: what came in a second and what of it was refused, of late; all that passed, was over, was refused."""

    demand: Demand
    refusing: Demand
    passed: int = 0
    over: int = 0
    refused: int = 0


class Demands:
    """Of those who report here. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, Seen]] = {}
        self._heard: dict[str, float] = {}
        self._size = 0
        self._swept = 0.0

    def add(self, proxies: Iterable[str], rows: Iterable[LimitCount], seconds: float, now: float) -> None:
        """What these counted in the last `seconds`; of a rule without a row that was nothing."""
        self._sweep(now)
        self._heard |= dict.fromkeys(proxies, now)
        for row in rows:
            of_rule = self._seen.setdefault(row.rule, {})
            before = of_rule.get(row.proxy)
            if before is None:
                if self._size >= _MOST:
                    continue
                self._size += 1
            demand = expected(before.demand if before else None, row.passed + row.over, seconds, now)
            refusing = expected(before.refusing if before else None, row.over, seconds, now)
            old = (before.passed, before.over, before.refused) if before else (0, 0, 0)
            of_rule[row.proxy] = Seen(demand, refusing, old[0] + row.passed, old[1] + row.over, old[2] + row.refused)

    def of(self, rule: str) -> Mapping[str, Seen]:
        """By proxy."""
        return self._seen.get(rule, {})

    def demands(self, rule: SharedLimit) -> dict[str, Demand]:
        """What comes to those who have a rule, as far as they were heard."""
        seen = self._seen.get(rule.limit.id, {})
        found = {}
        for proxy in rule.members:
            if (heard := self._heard.get(proxy)) is None:
                continue
            told = one.demand if (one := seen.get(proxy)) is not None else None
            found[proxy] = told if told is not None and told.at == heard else faded(told, heard)
        return found

    def _sweep(self, now: float) -> None:
        if now - self._swept < _GONE:
            return
        self._swept = now
        kept = {
            rule: left
            for rule, found in self._seen.items()
            if (left := {proxy: seen for proxy, seen in found.items() if now - seen.demand.at < _GONE})
        }
        self._seen, self._size = kept, sum(map(len, kept.values()))
        self._heard = {proxy: at for proxy, at in self._heard.items() if now - at < _GONE}
