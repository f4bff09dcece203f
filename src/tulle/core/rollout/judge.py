"""What was measured of both versions in the same while → whether the candidate is good. Pure.

Shares are compared by a one-sided test of two proportions: failures of all requests, or requests that took longer than the stable
version's 99th percentile (to the bound of a bucket). So a quiet service is neither promoted nor condemned by chance.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec

from tulle.core.model.calls import BOUNDS, Count, quantile
from tulle.core.rollout.plan import Check

_SLOW = 0.99


class Traffic(msgspec.Struct, frozen=True):
    """The requests of one version: how many, of them failed, and how many took at most each of `calls.BOUNDS`."""

    requests: int = 0
    failures: int = 0
    buckets: tuple[int, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """`good` is None where too little is known. `sentence` says why, for a person."""

    good: bool | None
    sentence: str


def judge(check: Check, stable: Traffic, candidate: Traffic) -> Verdict:
    """What one check says of the candidate."""
    missing = [
        f"{name} has {one.requests} of {check.requests} requests"
        for name, one in (("the candidate", candidate), *((("the stable version", stable),) if check.confidence else ()))
        if one.requests < check.requests
    ]
    if missing:
        return Verdict(None, f"{check.name}: " + " and ".join(missing))
    value, unit = _value(check, candidate)
    said = f"{check.name}: {value:.4g}{unit}"
    if check.least is not None and value < check.least:
        return Verdict(False, f"{said}; needed at least {check.least:g}{unit}")
    if check.most is not None and value > check.most:
        return Verdict(False, f"{said}; needed at most {check.most:g}{unit}")
    if check.confidence:
        other, _unit = _value(check, stable)
        beside = f"{said} beside {other:.4g}{unit} of the stable version"
        return (
            Verdict(False, f"{beside}: worse, with {check.confidence:g}% confidence")
            if _worse(check, stable, candidate)
            else (Verdict(True, beside))
        )
    return Verdict(True, said)


def _value(check: Check, one: Traffic) -> tuple[float, str]:
    if check.name == "request-success-rate":
        return 100 * (one.requests - one.failures) / one.requests, "%"
    # What took longer than every bound is in no bucket: as slow as the highest.
    return quantile(Count(one.requests, 0.0, _whole(one)), _SLOW) or 0.0, " ms"


def _whole(one: Traffic) -> tuple[int, ...]:
    return (*one.buckets[: len(BOUNDS) - 1], one.requests) if one.buckets else ()


def _worse(check: Check, stable: Traffic, candidate: Traffic) -> bool:
    if check.name == "request-success-rate":
        allowed = check.tolerance / 100
        bad = stable.failures, candidate.failures
    else:
        allowed = 0.0
        limit = _value(check, stable)[0] * (1 + check.tolerance / 100)
        index = next((index for index, bound in enumerate(BOUNDS) if bound >= limit), len(BOUNDS) - 1)
        bad = _above(stable, index), _above(candidate, index)
    shares = bad[0] / stable.requests, bad[1] / candidate.requests
    both = (bad[0] + bad[1]) / (stable.requests + candidate.requests)
    spread = math.sqrt(both * (1 - both) * (1 / stable.requests + 1 / candidate.requests))
    more = shares[1] - shares[0] - allowed
    return more > 0 and (spread == 0 or more / spread > NormalDist().inv_cdf(check.confidence / 100))


def _above(one: Traffic, index: int) -> int:
    return max(0, one.requests - (one.buckets[index] if index < len(one.buckets) else one.requests))
