"""Tells the control plane what this node's proxies have told of traces, every few seconds where there is something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from tulle.client.api import ApiClient
from tulle.core.model.spans import SpanReport
from tulle.kit.errors import TulleError, Unavailable
from tulle.node.spans import Buffer

log = structlog.get_logger("tulle.node")

PATH = "/tulle/v1/telemetry/spans"
INTERVAL = 2.0  # seconds: whoever looks for a trace has just made it
_MOST = 1000  # spans of a report


class SpanReporter:
    """`buffer` is what all proxies of the node fill, `api` gives the client."""

    def __init__(self, node: str, buffer: Buffer, api: Callable[[], Awaitable[ApiClient]], interval: float = INTERVAL) -> None:
        self._node, self._buffer, self._api, self._interval = node, buffer, api, interval
        self._silent = False

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            while await self.once():
                pass

    async def once(self) -> bool:
        """One report; whether there is more to tell at once."""
        spans, dropped = self._buffer.take(_MOST)
        if not spans and not dropped:
            return False
        try:
            body = msgspec.to_builtins(SpanReport(self._node, time.time(), spans, dropped))
            await (await self._api()).request("POST", PATH, body=body)
        except TulleError as error:
            if isinstance(error, Unavailable):
                self._buffer.back(spans, dropped)
            else:  # told again, they would be refused again
                self._buffer.back((), dropped + len(spans))
            if not self._silent:
                log.warning("spans of traces were not told", error=error.message, again=isinstance(error, Unavailable))
            self._silent = True
            return False
        except asyncio.CancelledError:
            self._buffer.back(spans, dropped)
            raise
        self._silent = False
        return len(spans) == _MOST
