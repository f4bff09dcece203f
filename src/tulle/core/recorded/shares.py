"""How much of the calls is recorded: so much that a node gets no more than its budget of them a second. Pure.

Calls that failed or were denied come first; what they leave of the budget is for a sample of the others. A sample grows slowly
and shrinks at once.
"""

from __future__ import annotations

import msgspec

BEGIN = 0.01  # the share of calls that went well, before anything is known of how many there are
LEAST = 1e-6
_LEFT = 0.1  # of the budget that failures leave to the others
_QUIET = 0.5  # how much of what was seen in this second counts for what is expected: load that comes back is noticed at once
_FASTER = 2.0  # how much a share may grow in a second


class Shares(msgspec.Struct, frozen=True):
    """The shares of calls that are recorded, 0 to 1: of those that failed, and of the others.

    `failing` and `others` are how many of each there are in a second, as far as that is known.
    """

    failures: float = 1.0
    sampled: float = BEGIN
    failing: float = 0.0
    others: float = 0.0


def decide(now: Shares, failing: int, others: int, seconds: float, budget: float) -> Shares:
    """The shares for the next while, after so many were recorded in so many `seconds`."""
    failing_rate = _expected(now.failing, failing / now.failures / seconds)
    others_rate = _expected(now.others, others / now.sampled / seconds)
    failures = _share(now.failures, (1 - _LEFT) * budget, failing_rate)
    left = max(_LEFT * budget, budget - failures * failing_rate)
    return Shares(failures, _share(now.sampled, left, others_rate), failing_rate, others_rate)


def _expected(before: float, seen: float) -> float:
    """More at once, less after a while."""
    return max(seen, before + _QUIET * (seen - before))


def _share(now: float, budget: float, rate: float) -> float:
    most = min(1.0, budget / rate) if rate > 0 else 1.0
    return max(LEAST, min(most, now * _FASTER))


def differs(one: Shares, other: Shares) -> bool:
    """Whether it is worth telling Envoy."""
    return any(
        old != new and (old == 0 or new == 1.0 or not 0.8 < new / old < 1.25)
        for old, new in ((one.failures, other.failures), (one.sampled, other.sampled))
    )
