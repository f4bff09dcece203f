"""What of the past is kept: for how long, how much, and of which objects. The stores keep it; this says what.

The history is not the log of `state.py`: that one is short and serves watches; this one is long, has authors, and serves people.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from tulle.kit.errors import Unavailable
from tulle.ports import Key, Store

AGE = 30 * 24 * 3600.0  # seconds that a change is kept, unless a setting says otherwise
_PAUSE = 3600.0  # seconds
COUNT = 50_000  # changes that are kept at most
_PASSING = frozenset({"events", "events.events.k8s.io", "leases.coordination.k8s.io"})


def kept(key: Key) -> bool:
    """Whether changes of this key belong into the history: not what the mesh notes for itself, nor what passes by itself."""
    return not key.resource.startswith("_") and key.resource not in _PASSING


def among(key: Key, resource: str | None, namespace: str | None, name: str | None) -> bool:
    """Whether a history of these (None: any) has the key in it."""
    return resource in (None, key.resource) and namespace in (None, key.namespace) and name in (None, key.name)


class HistoryKeeper:
    """A controller: drops what is older than `age` seconds, at once and then every hour. `now`: seconds since the epoch."""

    def __init__(
        self,
        store: Store,
        age: float,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store, self._age, self._now, self._sleep = store, age, now, sleep

    async def run(self) -> None:
        """Until cancelled. A store that does not answer is tried again an hour later: history can wait."""
        while True:
            with contextlib.suppress(Unavailable):
                await self._store.forget(self._now() - self._age)
            await self._sleep(_PAUSE)
