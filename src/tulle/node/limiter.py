"""Answers Envoy's questions about exact rate limits by those of the control plane, many at once over one stream a proxy.

    Envoy ──RateLimitService, the Unix socket of ADS──▶ Limiter ──xds/ratelimit.py──▶ control plane

Nothing is looked into here. Where the control plane does not answer, neither does this: Envoy then does what the rule says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import grpc
import structlog

from tulle.xds.client import Upstream
from tulle.xds.ratelimit import METHOD, PROXY, SERVICE, packed, unpacked

log = structlog.get_logger("tulle.node")

ENVOY_SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
_MOST = 10_000  # requests that wait for an answer; more are not asked
_BATCH = 500  # requests of a message, at most
_PAUSE = 0.5  # seconds in which a control plane that did not answer is not asked
_LAST = 2.0  # seconds that answers may take on a channel that is given up

_CALL = f"/{SERVICE}/{METHOD}"
_Waiting = asyncio.Future[bytes]


class NotCounted(Exception):
    """The control plane has not said whether a request is within its limits."""


class Limiter:
    """For the Envoy of one proxy (`namespace/name`)."""

    def __init__(self, upstream: Upstream, proxy: str) -> None:
        self._upstream, self._proxy = upstream, proxy
        self._queue: deque[tuple[bytes, _Waiting]] = deque()
        self._sent: deque[list[_Waiting]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._again = 0.0  # the loop's time before which nobody is asked
        self._complaint = ""
        self.failed = 0  # requests that got no answer

    @property
    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """For the server that Envoy talks to."""
        methods = {"ShouldRateLimit": grpc.unary_unary_rpc_method_handler(self._should)}
        return (grpc.method_handlers_generic_handler(ENVOY_SERVICE, methods),)

    async def _should(self, data: bytes, context: Any) -> bytes:
        try:
            return await self.ask(data)
        except NotCounted as error:
            self.failed += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise

    async def ask(self, data: bytes) -> bytes:
        """The answer to a `RateLimitRequest`; raises `NotCounted`."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._again:
            raise NotCounted("the control plane does not answer")
        if len(self._queue) + sum(map(len, self._sent)) >= _MOST:
            raise NotCounted(f"{_MOST} requests wait for the control plane")
        waiting: _Waiting = loop.create_future()
        self._queue.append((data, waiting))
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"rate limits of {self._proxy}")
        answer = await waiting
        if not answer:
            raise NotCounted("the control plane could not count it")
        return answer

    async def close(self) -> None:
        """Hang up; who waits gets no answer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail("the node agent is closing")

    async def _run(self) -> None:
        """Streams, one after the other, as long as there is something to ask."""
        while True:
            await self._wake.wait()
            why = await self._stream()
            if self._sent or (why and self._queue):
                self._again = asyncio.get_running_loop().time() + _PAUSE
                if why != self._complaint:
                    log.warning("exact rate limits are not counted; each rule's onFailure holds", proxy=self._proxy, why=why)
                self._complaint = why
                self._fail(why)

    async def _stream(self) -> str:
        """One stream, until there is another channel; what it ended of, "" where that was all."""
        channel = self._upstream.channel
        call = channel.stream_stream(_CALL)(metadata=((PROXY, self._proxy),))
        reader = asyncio.create_task(self._read(call))
        writer = asyncio.create_task(self._write(call, channel))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():  # what is under way is answered on the old channel
                await asyncio.wait((reader,), timeout=_LAST)
        finally:
            reader.cancel()
            writer.cancel()
            call.cancel()
            results = await asyncio.gather(reader, writer, return_exceptions=True)
        return next((_said(one) for one in results if isinstance(one, BaseException)), "")

    async def _write(self, call: Any, channel: Any) -> None:
        """What waits, in batches: what comes while one is written goes with the next."""
        while True:
            await self._wake.wait()
            if channel is not self._upstream.channel:
                await call.done_writing()
                return
            self._wake.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                batch = [one for one in batch if not one[1].done()]  # Envoy waits no longer for the others
                if batch:
                    self._sent.append([waiting for _data, waiting in batch])
                    await call.write(packed(data for data, _waiting in batch))

    async def _read(self, call: Any) -> None:
        """Answers, to the end of the stream."""
        while (data := await call.read()) is not grpc.aio.EOF:
            answers = unpacked(data)
            if not self._sent or len(self._sent[0]) != len(answers):
                raise ValueError("the control plane answers what nobody asked")
            self._complaint = ""
            for waiting, answer in zip(self._sent.popleft(), answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise ValueError(f"{code.name}: {await call.details()}")

    def _fail(self, why: str) -> None:
        waiting = [one for batch in self._sent for one in batch] + [one for _data, one in self._queue]
        self._sent.clear()
        self._queue.clear()
        self._wake.clear()
        for one in waiting:
            if not one.done():
                one.set_exception(NotCounted(why or "the control plane does not answer"))


def _said(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
