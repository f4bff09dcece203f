"""Where exact limits are counted: in this process, unless there is a Redis (`redis.py`) that several control planes share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tulle.core.ratelimit.buckets import Ask, Buckets, KeyState, Verdict


class Counter(Protocol):
    """Counts requests. One of them may be for several rules; its verdicts are in the order of these."""

    async def take(self, requests: Sequence[Sequence[Ask]]) -> Sequence[Sequence[Verdict]]:
        """Count each of these requests; raises `kit.errors.Unavailable` where it cannot, and then nothing is known of any."""
        ...

    def keep(self, rules: Iterable[str]) -> None:
        """Forget the rules that are not any more."""
        ...

    def states(self) -> Iterable[KeyState]:
        """The keys that were seen by this control plane, of those it knows still."""
        ...


class OwnCounter:
    """In this process. It begins anew with it."""

    def __init__(self, buckets: Buckets | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.buckets, self._clock = buckets or Buckets(), clock

    async def take(self, requests: Sequence[Sequence[Ask]]) -> Sequence[Sequence[Verdict]]:
        """Count each."""
        now = self._clock()
        return [self.buckets.take(asks, now) for asks in requests]

    def keep(self, rules: Iterable[str]) -> None:
        """Forget the others."""
        self.buckets.keep(rules)

    def states(self) -> Iterable[KeyState]:
        """All keys."""
        self.buckets.sweep(self._clock())
        return self.buckets.states(self._clock())
