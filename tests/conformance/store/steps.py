"""What the suite's tests do again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tulle.ports import Event


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    """The next `count` events, with a deadline."""

    async def collect() -> list[Event]:
        return [await anext(events) for _ in range(count)]

    return await asyncio.wait_for(collect(), 10)


def numbered(n: int) -> dict[str, Any]:
    """A body that differs from others."""
    return {"n": n}
