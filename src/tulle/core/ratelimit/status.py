"""How rate limits stand, as people are told: from what proxies counted, and the exact limiter. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tulle.core.model.calls import Count, Edge
from tulle.core.model.rate_limit import Counting, Limit, Unit
from tulle.core.ratelimit.shares import FLOOR, KEYED_FLOOR

TOP = 10  # keys of a rule, and callers, that are named


class KeyStatus(msgspec.Struct, frozen=True):
    """A key of an exact rule ("": of one without keys): how much of its bucket is `used` (0 to 1), what passed, was refused."""

    key: str
    used: float
    allowed: int
    refused: int


class ProxyStatus(msgspec.Struct, frozen=True):
    """A proxy that counts: its `share` of the limit, what comes to it in a second, and what of that is over the limit."""

    proxy: str
    share: float
    rate: float = 0.0
    over: float = 0.0


class RuleStatus(msgspec.Struct, frozen=True):
    """A rule.

    `rate` is what comes in a second altogether, `over` what of that is over the limit, `failing` what cannot be counted (so that
    `onFailure` holds); `passed`, `refused` and `failed` are since the control planes began. `used` is how much of the limit is
    used (0 to 1; of one with keys by the key that uses most; None: not known). `bound` says how exactly the limit is held.
    """

    rule: str
    counting: str
    limit: int
    window: float
    burst: int = 0
    unit: str = "Requests"
    keyed: bool = False
    shadow: bool = False
    denies: bool = False
    rate: float = 0.0
    over: float = 0.0
    failing: float = 0.0
    passed: int = 0
    refused: int = 0
    failed: int = 0
    used: float | None = None
    bound: str = ""
    proxies: tuple[ProxyStatus, ...] = ()
    keys: tuple[KeyStatus, ...] = ()


class CallerStatus(msgspec.Struct, frozen=True):
    """Whose requests of a service were refused by a limit: how many of how many. `source` is `namespace/name` ("": not known)."""

    source: str
    service: str
    refused: int
    calls: int


class LimitStatuses(msgspec.Struct, frozen=True):
    """All rules, and who was refused most in the last `seconds`. `counter` is where exact limits are counted: memory or redis."""

    rules: tuple[RuleStatus, ...] = ()
    callers: tuple[CallerStatus, ...] = ()
    seconds: float = 0.0
    counter: str = "memory"


def bound(limit: Limit, members: int, *, several: bool = False) -> str:
    """How exactly a limit is held, in words. `several`: exact limits are counted by several control planes, each for itself."""
    most = f"{limit.limit + limit.burst:,} at once"
    if limit.counting is Counting.LOCAL:
        return f"each of {members} proxies by itself; {most} at each"
    if limit.counting is Counting.EXACT:
        away = "refused" if limit.denies else "let through"
        where = "by each control plane for itself" if several else "for all proxies together"
        return f"counted {where}; {most}; while nobody counts, requests are {away}"
    if limit.unit is not Unit.REQUESTS:
        return f"an even part for each of {members} proxies, which no load changes"
    floor = KEYED_FLOOR if limit.key is not None else FLOOR
    return f"shares of {members} proxies, weighed every second; up to {floor:.0%} below where load is uneven; {most}"


def top_keys(keys: Iterable[KeyStatus]) -> tuple[KeyStatus, ...]:
    """Those that were refused most, then those that are nearest to it."""
    return tuple(sorted(keys, key=lambda one: (-one.refused, -one.used, one.key))[:TOP])


def together(one: RuleStatus, other: RuleStatus) -> RuleStatus:
    """What two control planes know of a rule."""
    proxies = {proxy.proxy: proxy for proxy in one.proxies}
    for proxy in other.proxies:
        mine = proxies.get(proxy.proxy)
        if mine is None or proxy.rate > mine.rate:
            proxies[proxy.proxy] = msgspec.structs.replace(proxy, share=mine.share if mine else proxy.share)
    keys: dict[str, KeyStatus] = {key.key: key for key in one.keys}
    for key in other.keys:
        had = keys.get(key.key)
        keys[key.key] = key if had is None else _added(had, key)
    used = [used for used in (one.used, other.used) if used is not None]
    return msgspec.structs.replace(
        one,
        rate=one.rate + other.rate,
        over=one.over + other.over,
        failing=one.failing + other.failing,
        passed=one.passed + other.passed,
        refused=one.refused + other.refused,
        failed=one.failed + other.failed,
        used=max(used) if used else None,
        proxies=tuple(proxies[name] for name in sorted(proxies)),
        keys=top_keys(keys.values()),
    )


def _added(one: KeyStatus, other: KeyStatus) -> KeyStatus:
    return KeyStatus(one.key, max(one.used, other.used), one.allowed + other.allowed, one.refused + other.refused)


def merged(own: Sequence[RuleStatus], others: Iterable[Sequence[RuleStatus]]) -> tuple[RuleStatus, ...]:
    """The rules of this control plane, with what the others know of them."""
    found = {one.rule: one for one in own}
    for rules in others:
        for rule in rules:
            if rule.rule in found:
                found[rule.rule] = together(found[rule.rule], rule)
    return tuple(found.values())


def callers(calls: Mapping[Edge, Count]) -> tuple[CallerStatus, ...]:
    """Who was refused by limits most."""
    total: dict[tuple[str, str], list[int]] = {}
    for edge, count in calls.items():
        limited = "RL" in edge.flags.split(",")
        sums = total.setdefault((edge.source, edge.service), [0, 0])
        # Both ends count a call; the one that refused it says so by a flag.
        sums[0] += count.calls if limited else 0
        sums[1] += count.calls if edge.reporter == "destination" or limited else 0
    rows = [CallerStatus(source, service, *sums) for (source, service), sums in total.items() if sums[0]]
    return tuple(sorted(rows, key=lambda one: (-one.refused, one.source, one.service))[:TOP])
