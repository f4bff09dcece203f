"""Exact counting: token buckets by rule and key, in memory that is bounded. Pure.

A bucket holds `limit + burst` at most, and `limit` come in each window, evenly over it. What is kept is how much of it is used,
which goes down by itself: a bucket that nobody used for a window is as one that never was, and is forgotten. Time that goes back
fills nothing and empties nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

MOST = 200_000  # buckets altogether, some 60 MB
MOST_OF_RULE = 100_000
OTHERS = "\x00others"  # the key that all share for which there is no room
_KEEP = 60.0  # seconds that what was refused is remembered of a key
_SWEEP = 1.0  # seconds from one look for what can be forgotten to the next
ROUNDING = 1e-6  # what floating point may be off by, in requests


class Rate(msgspec.Struct, frozen=True):
    """`limit` in each `window` (s), and `burst` more at once."""

    limit: int
    window: float = 1.0
    burst: int = 0

    @property
    def capacity(self) -> int:
        """What a bucket holds."""
        return self.limit + self.burst

    @property
    def speed(self) -> float:
        """What comes in in a second."""
        return self.limit / self.window


class Rule(msgspec.Struct, frozen=True):
    """What is counted under an id: the same for each key, but for those of `overrides`. With `shadow` nothing is refused."""

    id: str
    rate: Rate
    overrides: Mapping[str, Rate] = {}
    shadow: bool = False

    def of(self, key: str) -> Rate:
        """What holds for a key."""
        return self.overrides.get(key, self.rate)


class Ask(msgspec.Struct, frozen=True):
    """So many `hits` of a rule for a key ("": it has none)."""

    rule: Rule
    key: str = ""
    hits: int = 1


class Verdict(msgspec.Struct, frozen=True):
    """Whether it is `within` the limit, what is left, in how many seconds the bucket is full, and when to `retry` (0.0: now)."""

    rate: Rate
    within: bool
    left: int
    reset: float
    retry: float = 0.0


class KeyState(msgspec.Struct, frozen=True):
    """A key of a rule, for people: how much of its bucket is used (0 to 1), and how often it was let through and refused."""

    rule: str
    key: str
    used: float
    allowed: int
    refused: int


def verdict(rate: Rate, used: float, hits: int) -> Verdict:
    """What is said where so much is used before."""
    within = used + hits <= rate.capacity + ROUNDING
    after = used + hits if within else used
    left = max(0, int(rate.capacity - after + ROUNDING))
    retry = 0.0 if within else min(rate.window, (used + hits - rate.capacity) / rate.speed)
    return Verdict(rate, within, left, after / rate.speed, retry)


def refused(asks: Sequence[Ask], verdicts: Sequence[Verdict]) -> bool:
    """Whether a request is: by one rule that is not a shadow."""
    return any(not said.within and not ask.rule.shadow for ask, said in zip(asks, verdicts, strict=True))


class _Bucket:
    __slots__ = ("allowed", "at", "refused", "used")

    def __init__(self, now: float) -> None:
        self.used, self.at, self.allowed, self.refused = 0.0, now, 0, 0


class Buckets:
    """All that is counted here. `now`: seconds of a clock that should not go back, and may."""

    def __init__(self, most: int = MOST, most_of_rule: int = MOST_OF_RULE) -> None:
        self._most, self._most_of_rule = most, most_of_rule
        self._rules: dict[str, tuple[Rule, dict[str, _Bucket]]] = {}
        self._swept = float("-inf")
        self.size = 0
        self.folded = 0  # requests of keys for which there was no room

    def take(self, asks: Sequence[Ask], now: float) -> list[Verdict]:
        """Count a request for all of these, or, where one refuses it, for none but the shadows."""
        found = [self._bucket(ask, now) for ask in asks]
        verdicts = [verdict(ask.rule.of(ask.key), one.used, ask.hits) for ask, one in zip(asks, found, strict=True)]
        no = refused(asks, verdicts)
        for ask, one, said in zip(asks, found, verdicts, strict=True):
            if said.within and (not no or ask.rule.shadow):
                one.used += ask.hits
                one.allowed += ask.hits
            elif not said.within:
                one.refused += ask.hits
        return verdicts

    def saw(self, asks: Sequence[Ask], verdicts: Sequence[Verdict], now: float) -> None:
        """What somebody else has counted, for `states` alone."""
        for ask, said in zip(asks, verdicts, strict=True):
            one = self._bucket(ask, now)
            one.used = said.reset * said.rate.speed
            if said.within:
                one.allowed += ask.hits
            else:
                one.refused += ask.hits

    def _bucket(self, ask: Ask, now: float) -> _Bucket:
        """The bucket of a key as it is now."""
        rule = ask.rule
        known = self._rules.get(rule.id)
        if known is None or known[0] is not rule:
            known = self._rules[rule.id] = rule, known[1] if known else {}
        buckets, key = known[1], ask.key
        one = buckets.get(key)
        if one is None:
            if not self._room(buckets, now):
                self.folded += ask.hits
                key = OTHERS
                one = buckets.get(key)
            if one is None:
                one = buckets[key] = _Bucket(now)
                self.size += 1
        rate = rule.of(key)
        one.used = min(rate.capacity, max(0.0, one.used - max(0.0, now - one.at) * rate.speed))
        one.at = now
        return one

    def _room(self, buckets: dict[str, _Bucket], now: float) -> bool:
        if self.size < self._most and len(buckets) < self._most_of_rule:
            return True
        self.sweep(now)
        return self.size < self._most and len(buckets) < self._most_of_rule

    def sweep(self, now: float) -> None:
        """Forget what is full, and of which nothing was refused lately."""
        if 0.0 <= now - self._swept < _SWEEP:
            return
        self._swept = now
        full = self.size >= self._most
        for rule, buckets in self._rules.values():
            tight = full or len(buckets) >= self._most_of_rule
            gone = [key for key, one in buckets.items() if _idle(rule.of(key), one, now, 0.0 if tight else _KEEP)]
            for key in gone:
                del buckets[key]
            self.size -= len(gone)

    def keep(self, rules: Iterable[str]) -> None:
        """Forget all rules but these."""
        wanted = set(rules)
        for rule in [rule for rule in self._rules if rule not in wanted]:
            self.size -= len(self._rules.pop(rule)[1])

    def states(self, now: float) -> Iterator[KeyState]:
        """Every key that is known."""
        for rule, buckets in self._rules.values():
            for key, one in buckets.items():
                rate = rule.of(key)
                used = max(0.0, one.used - max(0.0, now - one.at) * rate.speed)
                yield KeyState(rule.id, key, min(1.0, used / rate.capacity), one.allowed, one.refused)


def _idle(rate: Rate, one: _Bucket, now: float, keep: float) -> bool:
    return now - one.at >= max(one.used / rate.speed, keep)
