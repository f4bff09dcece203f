"""The requests of one workload as its Envoy tells them while somebody looks, filtered and bounded.

    Envoy ──StreamAccessLogs──▶ Tap ──▶ Viewer ──▶ who looks
      ◀──RTDS: share, least status── (share 0 while nobody looks)

Envoy tells each request that has at least the lowest status that anybody looks for, as long as these are few; of more it tells a
share, which follows their rate, so that neither Envoy nor this agent is slowed down by a look.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tulle.core.envoy import tap
from tulle.core.model.looks import Look, least_status
from tulle.node.logs.lines import Seen, matches
from tulle.node.logs.requests import Request, read
from tulle.node.logs.runtime import Runtime
from tulle.pb import message_class

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
BUDGET = 300  # requests a second that an Envoy tells
_MILLION = 1_000_000
_LEAST_SHARE = 100  # parts in a million
_KEPT = 1000  # requests that wait for who looks


class Viewer:
    """One who looks. `left_out` is how many requests were wanted and came too fast; `share` what part Envoy tells."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.waiting: deque[Request] = deque()
        self.left_out = 0
        self.moved = asyncio.Event()

    def tell(self, request: Request) -> None:
        """A request that Envoy told."""
        if not matches(self.look.wanted, seen(request)):
            return
        if len(self.waiting) >= _KEPT:
            self.left_out += 1
            return
        self.waiting.append(request)
        self.moved.set()

    def take(self) -> tuple[Request, ...]:
        """What came since the last time."""
        found = tuple(self.waiting)
        self.waiting.clear()
        self.moved.clear()
        return found


class Tap:
    """Of one Envoy."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.runtime = Runtime(tap.NAME)
        self.viewers: set[Viewer] = set()
        self._share = _MILLION
        self._clock = clock
        self._count, self._since = 0, 0.0

    @property
    def able(self) -> bool:
        """Whether Envoy listens to what it is to tell: one that an older agent started does not."""
        return self.runtime.listeners > 0

    @property
    def share(self) -> float:
        """What part of the requests is told, from 0 to 1."""
        return self._share / _MILLION

    def begin(self, look: Look) -> Viewer:
        """Somebody looks."""
        viewer = Viewer(look)
        if not self.viewers:
            self._share, self._count, self._since = _MILLION, 0, self._clock()
        self.viewers.add(viewer)
        self._set()
        return viewer

    def end(self, viewer: Viewer) -> None:
        """No longer; with the last one Envoy is told to be quiet."""
        self.viewers.discard(viewer)
        self._set()

    def _set(self) -> None:
        if not self.viewers:
            self.runtime.set({})
            return
        least = least_status([viewer.look for viewer in self.viewers])
        self.runtime.set({tap.SHARE: self._share, tap.LEAST: least})

    def told(self, requests: list[Any]) -> None:
        """Entries of Envoy's log."""
        self.pace(len(requests))
        if not self.viewers:
            return
        for entry in requests[:BUDGET]:
            request = read(entry)
            for viewer in self.viewers:
                viewer.tell(request)
        for viewer in self.viewers:
            viewer.left_out += max(0, len(requests) - BUDGET)

    def pace(self, count: int = 0) -> None:
        """Let Envoy tell as many as the budget allows, by what came since the last time. To be called when nothing comes, too."""
        self._count += count
        now = self._clock()
        passed = now - self._since
        if passed < 1.0:
            return
        rate = self._count / passed
        self._count, self._since = 0, now
        if rate > BUDGET:
            self._share = max(_LEAST_SHARE, int(self._share * BUDGET / rate))
        elif rate < BUDGET / 3 and self._share < _MILLION:
            self._share = min(_MILLION, int(self._share * min(8.0, BUDGET / max(rate, 1.0) / 2)))
        else:
            return
        self._set()

    @property
    def handlers(self) -> tuple[Any, ...]:
        """For the gRPC server that Envoy calls."""
        method = grpc.stream_unary_rpc_method_handler(self._stream)
        return (grpc.method_handlers_generic_handler(SERVICE, {"StreamAccessLogs": method}), self.runtime.handler)

    async def _stream(self, messages: AsyncIterator[bytes], _context: Any) -> bytes:
        kind = message_class("envoy.service.accesslog.v3.StreamAccessLogsMessage")
        async for data in messages:
            try:
                message: Any = kind.FromString(data)
            except DecodeError:
                continue
            self.told(list(message.http_logs.log_entry))
        return b""


def seen(request: Request) -> Seen:
    """A request as lines of logs are compared."""
    return Seen(
        request.status,
        request.method,
        request.path,
        request.authority,
        request.milliseconds / 1000,
        request.caller,
        request.address,
    )


def shown(request: Request) -> Mapping[str, Any]:
    """As it travels."""
    import msgspec

    found: Mapping[str, Any] = msgspec.to_builtins(request)
    return found
