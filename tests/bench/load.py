"""An open-loop HTTP/1.1 load generator that does not hide coordinated omission.

Every request has the moment at which it is due, whatever happened to those before it; its latency counts from that moment. A
connection that is busy when a request is due makes that request wait, and the wait is measured. One process, one thread; the
request bytes are made once, and replies are only counted, so that at 1,000 requests a second the generator is not the subject.

`python -m tests.bench.load URL --rate 1000 --connections 16 --seconds 8` prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop


class Result(msgspec.Struct):
    """Latencies in milliseconds by percentile; `failed` counts what was not a 200 or never came."""

    requests: int
    failed: int
    seconds: float
    p50: float
    p90: float
    p99: float
    max: float


class _Connection(asyncio.Protocol):
    """One keep-alive connection: requests queue here with the moment at which they were due."""

    def __init__(self, load: _Load) -> None:
        self.load = load
        self.waiting: deque[float] = deque()
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.busy:
            self._finish(ok=False)

    def due(self, moment: float) -> None:
        """A request is due on this connection."""
        self.waiting.append(moment)
        if not self.busy:
            self._send()

    def _send(self) -> None:
        if self.transport is None:
            while self.waiting:
                self.load.done(self.waiting.popleft(), ok=False)
            return
        self.busy = True
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = self._content_length(self.buffer[:head])
        if len(self.buffer) < head + 4 + length:
            return
        ok = self.buffer.startswith(b"HTTP/1.1 200")
        self.buffer = self.buffer[head + 4 + length :]
        self._finish(ok=ok)

    @staticmethod
    def _content_length(head: bytes) -> int:
        lower = head.lower()
        at = lower.find(b"content-length:")
        return int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0

    def _finish(self, *, ok: bool) -> None:
        self.busy = False
        if self.waiting:
            self.load.done(self.waiting.popleft(), ok=ok)
        if self.waiting:
            self._send()


class _Load:
    def __init__(self, url: str, host: str) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {host or parts.netloc}\r\nUser-Agent: bench\r\n\r\n".encode()
        self.latencies: list[float] = []
        self.failed = 0
        self.total = -1
        self.finished = asyncio.Event()

    def done(self, due: float, *, ok: bool) -> None:
        self.latencies.append((time.perf_counter() - due) * 1000)
        self.failed += not ok
        if len(self.latencies) == self.total:
            self.finished.set()

    async def run(self, rate: float, connections: int, seconds: float) -> Result:
        loop = asyncio.get_running_loop()
        pool = []
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), *self.address)
            pool.append(connection)
        start = time.perf_counter() + 0.05
        total = int(rate * seconds)
        for number in range(total):
            moment = start + number / rate
            delay = moment - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            pool[number % connections].due(moment)
        self.total = total
        if len(self.latencies) < total:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.finished.wait(), 10)
        taken = time.perf_counter() - start
        lost = total - len(self.latencies)
        for connection in pool:
            if connection.transport:
                connection.transport.close()
        ordered = sorted(self.latencies) or [0.0]
        p50, p90, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99))
        return Result(total, self.failed + lost, taken, p50, p90, p99, ordered[-1])


def main() -> int:
    """Run once; exit status 0 whatever the latencies are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--host", default="", help="the Host header, where it is not the URL's")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8)
    arguments = parser.parse_args()
    load = _Load(arguments.url, arguments.host)
    result = uvloop.run(load.run(arguments.rate, arguments.connections, arguments.seconds))
    json.dump(msgspec.to_builtins(result), sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
