"""How a limit that all replicas have together is split over their proxies. Pure.

    what each proxy let through and refused in a while ──▶ Demand ──▶ `reweighted` ──▶ shares ──▶ `split` over who is there now

A share is a part of the limit, more than 0 and at most 1; those of a rule are never more than 1 together. A proxy gets what
comes to it, in proportion where that is too much altogether; what nobody uses is spread evenly; and a part of all (`FLOOR`)
always is, so that whoever had nothing to do is not without a share when something comes. Proxies take up new shares one after
the other: meanwhile, some tenths of a second, the sum in force is at most that of the larger of each proxy's old and new share.

No bucket is thrown away for a new share: it is what a request takes out of a bucket of the whole limit (`model/rate_limit.py`).
So what is in a bucket is worth more or less from one moment to the next, and nobody is given anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

# What is always split evenly, of the whole: the most by which a limit may be missed when all that comes, comes to one proxy.
FLOOR = 0.05
# The same where each key has a bucket of its own and not all of them find room in the limit: the demand of all keys together says
# little of one, and a small client may come by another proxy than the large ones.
KEYED_FLOOR = 0.2
# How much of what was seen last counts for what is expected: after two looks nine tenths of a change are known.
_NEW = 0.7
# Changes below this part of a share are noise, for which no proxy is told anything.
NOISE = 0.1
# Now and then (every so many looks) there is a thorough look: smaller changes count, too, by which this part of the limit more
# would be used.
SELDOM, GAIN = 5, 0.01
# A proxy to which no more than this part of its share comes is at ease: another share would change nothing for its callers. Where
# all are, shares wait for the thorough look; so load that moves far below the limit costs next to nothing.
EASE = 0.6
_LEAST = 1e-9  # what is less is no share, and no demand
_SILENT = 5.0  # seconds without a word after which a proxy's demand is not known any more


class Demand(msgspec.Struct, frozen=True):
    """What came to a proxy for a rule, in a second, let through or not; `at` (s, any clock): told last."""

    rate: float
    at: float


def expected(before: Demand | None, count: int, seconds: float, now: float) -> Demand:
    """The demand, after so many came in so many seconds until `now`."""
    seen = max(0, count) / max(seconds, 0.1)
    if before is None or not _fresh(before, now):
        return Demand(seen, now)
    return Demand(before.rate + _NEW * (seen - before.rate), now)


def faded(before: Demand | None, now: float) -> Demand:
    """The demand where nothing came since it was told last."""
    rate = before.rate * (1.0 - _NEW) ** (now - before.at) if before is not None and _fresh(before, now) else 0.0
    return Demand(rate, now)


def _fresh(one: Demand, now: float) -> bool:
    """Whether it is known still; what was told before a clock went back is not."""
    return 0.0 <= now - one.at <= _SILENT


def even(members: Iterable[str]) -> dict[str, float]:
    """The same for each."""
    there = sorted(set(members))
    return {one: 1 / len(there) for one in there}


def split(members: Iterable[str], given: Mapping[str, float]) -> dict[str, float]:
    """The shares of those who are there now, where `given` was made for those who were: who is new has his even part at once."""
    there = sorted(set(members))
    known = {one: given[one] for one in there if given.get(one, 0.0) > _LEAST}
    if not known:
        return even(there)
    part = 1 / len(there)
    rest = part * len(known) / sum(known.values())
    return {one: known[one] * rest if one in known else part for one in there}


def reweighted(
    before: Mapping[str, float],
    demands: Mapping[str, Demand],
    rate: float,
    now: float,
    *,
    keyed: bool = False,
    thorough: bool = False,
) -> Mapping[str, float]:
    """The shares for what is asked of whom; `before` has those of all who are there, and is the answer where nothing that matters
    changed: what is noise, or what nobody would notice, who has enough.

    `rate`: what the limit lets through in a second. Who has said nothing for a while keeps the share that it had, for it may be
    there all the same, and without a control plane. `thorough`: what nobody would notice counts, too.
    """
    if len(before) < 2:
        return before
    heard: dict[str, float] = {}
    total = left = 0.0
    eased = True
    for one, share in before.items():
        found = demands.get(one)
        if found is None or not _fresh(found, now):
            continue
        came = heard[one] = found.rate
        total += came
        left += share
        eased = eased and came <= EASE * share * rate
    if not heard or left <= 0.0 or (eased and not thorough):
        return before
    most = rate * left
    spare = max(0.0, 1.0 - total / most) if most > 0 else 0.0
    floor = _floor(total, most, keyed)
    # What each has whatever comes to it, and what there is for all that comes.
    base = left / len(heard) * (floor + (1.0 - floor) * (spare if total > _LEAST else 1.0))
    each = left * (1.0 - floor) * (1.0 - spare) / total if total > _LEAST else 0.0
    after = {one: base + each * came for one, came in heard.items()}
    part = 1 / len(before)
    if all(abs(share - before[one]) <= NOISE * max(before[one], part) for one, share in after.items()) and not (
        thorough and _used(after, heard, rate) - _used(before, heard, rate) > GAIN * rate
    ):
        return before
    return {one: after.get(one, share) for one, share in before.items()}


def _used(shares: Mapping[str, float], heard: Mapping[str, float], rate: float) -> float:
    """How much of a limit is used with such shares."""
    return sum(min(came, shares[one] * rate) for one, came in heard.items())


def _floor(total: float, most: float, keyed: bool) -> float:
    """What is split evenly: more of it where keys compete, without a jump at the limit."""
    if not keyed or most <= 0:
        return FLOOR
    return FLOOR + (KEYED_FLOOR - FLOOR) * min(1.0, max(0.0, total / most - 1.0))
