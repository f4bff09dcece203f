"""Leases of the embedded stores: who holds one says so again and again, and when it falls silent its keys go.

A lease lives in the process that granted it and is not kept: with the process, whoever could renew it lost the way to it, too.
So a lease never survives a restart, and a store with a disk deletes what was bound to one when it opens.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tulle.kit.errors import Unavailable
from tulle.ports import Clock, Delete, LeaseLost, Put

_AGAIN = 1.0  # seconds until an ended lease's keys are tried again, where the disk did not take it


class SteadyClock:
    """`ports.Clock` by the machine's monotonic clock: setting the time of day does not move it."""

    def now(self) -> float:
        """Seconds since some moment of the past."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class _Lease:
    seconds: float
    deadline: float
    watch: asyncio.Task[None]


class Leases:
    """The leases of one store. `end(lease)` deletes the keys that are bound to it."""

    def __init__(self, end: Callable[[int], Awaitable[None]], clock: Clock | None = None) -> None:
        self._end, self._clock = end, clock or SteadyClock()
        self._leases: dict[int, _Lease] = {}
        self._ending: dict[int, asyncio.Task[None]] = {}

    async def grant(self, seconds: float) -> int:
        """As `Store.grant`."""
        if seconds <= 0:
            raise ValueError(f"a lease of {seconds} seconds")
        lease = secrets.randbits(62) + 1
        watch = asyncio.create_task(self._watch(lease), name="lease")
        self._leases[lease] = _Lease(seconds, self._clock.now() + seconds, watch)
        return lease

    async def renew(self, lease: int) -> None:
        """As `Store.renew`."""
        held = self._held(lease)
        held.deadline = self._clock.now() + held.seconds

    async def revoke(self, lease: int) -> None:
        """As `Store.revoke`. Where the disk does not take it, this waits until it does."""
        held = self._leases.pop(lease, None)
        if held is not None:
            held.watch.cancel()
            self._ending[lease] = asyncio.create_task(self._finish(lease), name="lease")
        if (ending := self._ending.get(lease)) is not None:
            await asyncio.shield(ending)

    def check(self, operations: Sequence[Put | Delete]) -> None:
        """Raise `LeaseLost` where an operation is bound to a lease that is none."""
        for operation in operations:
            if isinstance(operation, Put) and operation.lease:
                self._held(operation.lease)

    async def close(self) -> None:
        """Stop counting. What is bound stays where it is."""
        tasks = [*(held.watch for held in self._leases.values()), *self._ending.values()]
        self._leases.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _held(self, lease: int) -> _Lease:
        held = self._leases.get(lease)
        if held is None or held.deadline <= self._clock.now():
            raise LeaseLost(lease)
        return held

    async def _watch(self, lease: int) -> None:
        while (left := self._leases[lease].deadline - self._clock.now()) > 0:
            await self._clock.sleep(left)
        self._ending[lease] = self._leases.pop(lease).watch
        await self._finish(lease)

    async def _finish(self, lease: int) -> None:
        try:
            while True:
                with contextlib.suppress(Unavailable):
                    return await self._end(lease)
                await self._clock.sleep(_AGAIN)
        finally:
            self._ending.pop(lease, None)
