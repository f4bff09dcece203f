"""That something has changed, for whoever wants to look again: what exactly, he sees then."""

from __future__ import annotations

import asyncio


class News:
    """`tell` wakes all who `wait`; who was busy meanwhile does not miss it."""

    def __init__(self) -> None:
        self.number = 0
        self._next: asyncio.Future[None] | None = None

    def tell(self) -> None:
        """Something is new."""
        self.number += 1
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None

    async def after(self, number: int) -> int:
        """Return the number of the newest news once it is not `number`."""
        while self.number == number:
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._next)
        return self.number
