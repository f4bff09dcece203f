"""Proxies that have a limit together, simulated: Envoy's buckets, a report a second, shares that arrive one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from tulle.core.model.rate_limit import Limit
from tulle.core.ratelimit.shares import SELDOM, Demand, even, expected, reweighted, split

STEP = 0.001  # seconds of the simulation


class Bucket:
    """One of Envoy's: full at first, filled all the time."""

    def __init__(self, limit: Limit) -> None:
        self.rate, self.most = limit.limit / limit.window, limit.limit + limit.burst
        self.tokens, self.at = float(self.most), 0.0

    def take(self, now: float, tokens: float) -> bool:
        self.tokens, self.at = min(self.most, self.tokens + (now - self.at) * self.rate), now
        if self.tokens < tokens:
            return False
        self.tokens -= tokens
        return True


class Replicas:
    """`load(now)` is how many requests a second come, by (replica, client). `keyed`: each client has a bucket of its own."""

    def __init__(
        self,
        members: list[str],
        limit: int,
        load: Callable[[float], Mapping[tuple[str, str], float]],
        burst: int = 0,
        window: float = 1.0,
        keyed: bool = False,
        seed: int = 1,
    ) -> None:
        self.members, self.load, self.keyed = members, load, keyed
        self.limit = Limit("default/all/0", limit, window, burst)
        self.random = random.Random(seed)
        self.now = 0.0
        self.shares: Mapping[str, float] = even(members)
        self.in_force = dict(self.shares)
        self.most_in_force = 1.0
        self.told = 0
        self.allowed: list[tuple[float, str, str]] = []
        self._demands: dict[str, Demand] = {}
        self._came = dict.fromkeys(members, 0)
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._coming: list[tuple[float, str, float]] = []

    def run(self, until: float) -> None:
        """Go on."""
        while self.now < until:
            before = int(self.now)
            self.now += STEP
            for (replica, client), rate in self.load(self.now).items():
                if self.random.random() < rate * STEP:
                    self._request(replica, client)
            for one in [one for one in self._coming if one[0] <= self.now]:
                self._coming.remove(one)
                self.in_force[one[1]] = one[2]
            self.most_in_force = max(self.most_in_force, sum(self.in_force[one] for one in self.members))
            if int(self.now) > before:
                self._tick()

    def _request(self, replica: str, client: str) -> None:
        self._came[replica] += 1
        key = replica, client if self.keyed else ""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self.limit)
        if bucket.take(self.now, 1 / self.in_force[replica]):
            self.allowed.append((self.now, replica, client))

    def _tick(self) -> None:
        for one in self.members:
            self._demands[one] = expected(self._demands.get(one), self._came[one], 1.0, self.now)
            self._came[one] = 0
        before = split(self.members, self.shares)
        thorough = int(self.now) % SELDOM == 0
        rate = self.limit.limit / self.limit.window
        self.shares = reweighted(before, self._demands, rate, self.now, keyed=self.keyed, thorough=thorough)
        if self.shares != before:
            self.told += 1
            for one in self.members:
                self._coming.append((self.now + self.random.uniform(0.02, 0.2), one, self.shares[one]))

    def passed(self, start: float, end: float, client: str | None = None) -> float:
        """How many a second were let through in between."""
        found = sum(start <= at < end and client in (None, who) for at, _replica, who in self.allowed)
        return found / (end - start)
