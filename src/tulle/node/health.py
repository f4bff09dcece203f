"""Whether an application is ready: the ports that it declared listen, or are bound (UDP). Read from the kernel's tables, never by
calling it.

A port's owner cannot be asked to tell, so this looks: often while an application starts, once a second later. An application is
ready when all its ports are there, and no longer when one of them has been gone for a while (a restart of the application within
that time is not announced: its callers' retries cover it).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

FAST = 0.05  # seconds between two looks while it is not ready
SLOW = 1.0
PATIENCE = 60.0  # how long to look often
GONE_FOR = 1.5  # seconds without the ports before it counts as not ready


class Readiness:
    """Pure: looks in, changes out."""

    def __init__(self, ready: bool = False) -> None:
        self.ready = ready
        self._began: float | None = None
        self._missing: float | None = None

    def look(self, listening: bool, now: float) -> bool:
        """Note a look; True where `ready` changed by it."""
        if self._began is None:
            self._began = now
        if listening:
            self._missing = None
            changed, self.ready = not self.ready, True
            return changed
        if not self.ready:
            return False
        if self._missing is None:
            self._missing = now
        if now - self._missing < GONE_FOR:
            return False
        self.ready, self._missing, self._began = False, None, now
        return True

    def pause(self, now: float) -> float:
        """Seconds until the next look."""
        began = now if self._began is None else self._began
        return FAST if not self.ready and now - began < PATIENCE else SLOW


async def watch(
    ports: Collection[int],
    listening: Callable[[Collection[int]], set[int]],
    changed: Callable[[bool], None],
    readiness: Readiness,
    datagrams: Collection[int] = (),
    receiving: Callable[[], set[int]] = set,
) -> None:
    """Look for ever and tell changes: of TCP `ports`, and of UDP ports (`datagrams`) that are bound.

    Without either the application is ready at once, and stays so.
    """
    if not ports and not datagrams:
        if not readiness.ready:
            readiness.ready = True
            changed(True)
        return
    wanted, bound = set(ports), set(datagrams)

    def there() -> bool:
        return wanted <= listening(wanted) and (not bound or bound <= receiving())

    while True:
        if readiness.look(await asyncio.to_thread(there), time.monotonic()):
            changed(readiness.ready)
        await asyncio.sleep(readiness.pause(time.monotonic()))
