"""Limits of the API server's public face, and the counts behind them. Pure: whoever asks says what time it is.

Health checks and `system:masters` are exempt from rates and from what one user may have at once, as with Kubernetes' priority
levels; what protects the process itself (sizes, time-outs, totals) holds for everybody.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tulle.control.apiserver.errors import Denial

_USERS = 10_000  # whose rates are remembered


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, rates in requests a second with a burst of twice that."""

    body: int = 3 * 2**20  # Kubernetes' own
    url: int = 16 * 2**10
    head: int = 64 * 2**10  # the request line and all headers; an OIDC token with many groups is long
    handshake_seconds: float = 10.0
    head_seconds: float = 10.0  # also from the connection to the first byte
    body_seconds: float = 30.0
    write_seconds: float = 30.0  # how long a client may read nothing of what waits for it
    idle_seconds: float = 120.0
    connections: int = 10_000
    connections_per_address: int = 2_000  # nodes behind one address, test clients, load balancers
    strangers: int = 500  # connections that have not yet shown who they are; the oldest goes first
    rate: float = 500.0
    failures: float = 20.0  # bad bearer tokens from one address whose signature is checked
    at_once: int = 200  # requests of one user
    at_once_in_all: int = 1_000
    watches: int = 500  # of one user
    watches_in_all: int = 5_000


class Rates:
    """A token bucket for each name; the names that were quiet longest are forgotten first."""

    def __init__(self, rate: float) -> None:
        self.rate, self.burst = rate, 2 * rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str, now: float, *, take: bool = True) -> float:
        """Take one (or only look whether there is one); 0, or in how many seconds there is one."""
        left, since = self._buckets.get(name, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        if take:
            self._buckets[name] = (left - 1 if left >= 1 else left, now)
            self._buckets.move_to_end(name)
            if len(self._buckets) > _USERS:
                self._buckets.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self.rate


class Shares:
    """How many things of a sort each user has at once, and all have together."""

    def __init__(self, each: int, in_all: int, what: str) -> None:
        self.each, self.in_all, self.what = each, in_all, what
        self._of: Counter[str] = Counter()
        self.count = 0

    @contextmanager
    def hold(self, name: str, exempt: bool) -> Iterator[None]:
        """One of them, for as long as the context lasts. Raises a `Denial` (429). `exempt`: only the total counts."""
        if self.count >= self.in_all:
            raise too_many(f"the server has {self.in_all} {self.what} already")
        if not exempt and self._of[name] >= self.each:
            raise too_many(f'user "{name}" has {self.each} {self.what} already')
        self._of[name] += 1
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            self._of[name] -= 1
            if not self._of[name]:
                del self._of[name]


def too_many(why: str, seconds: float = 1.0) -> Denial:
    """Later; clients of Kubernetes wait so long and try again."""
    wait = max(1, round(seconds + 0.5))
    return Denial(429, "TooManyRequests", f"Too many requests, please try again later: {why}", {"retryAfterSeconds": wait})
