"""`/tulle/v1/telemetry/live`: server-sent events that say that something is other than it was, so that the page asks again.

An event has no figures: what somebody may see is decided where it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from aiohttp import web

_LOOK = 1.0  # seconds from look to look
_ALIVE = 15  # looks without news after which a comment keeps proxies between from closing the connection


class State(msgspec.Struct, frozen=True):
    """The `revision` that is served, when nodes last `reported`, how many `proxies` there are and how many are `synced`.

    `notice`: what people are to know of the figures.
    """

    revision: int
    reported: float
    proxies: int
    synced: int
    notice: str = ""


def add_live(app: web.Application, state: Callable[[], State]) -> None:
    """Serve it. Asked with `?watch=true`, it has its share among the watches of a user."""

    async def live(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await answer.prepare(request)
        last, quiet = None, 0
        while True:
            now = state()
            if now != last:
                await answer.write(b"data: " + msgspec.json.encode(now) + b"\n\n")
                last, quiet = now, 0
            elif (quiet := quiet + 1) >= _ALIVE:
                await answer.write(b": still here\n\n")
                quiet = 0
            await asyncio.sleep(_LOOK)

    app.router.add_get("/telemetry/live", live)
