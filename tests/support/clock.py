"""A clock that a test turns: `ports.Clock` without waiting."""

from __future__ import annotations

import asyncio


class TurnedClock:
    """Stands still until `advance`; whoever sleeps beyond the new time is woken then."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        """The time that it was turned to."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return when it was turned that far."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeping.append((self._now + seconds, woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Turn it on."""
        self._now += seconds
        for until, woken in self._sleeping:
            if until <= self._now and not woken.done():
                woken.set_result(None)
        self._sleeping = [(until, woken) for until, woken in self._sleeping if not woken.done()]
