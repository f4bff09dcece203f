"""The known floods against a proxy, each as a program of its own: `python -m tests.support.floods KIND HOST PORT [CERTIFICATE]`.

It says `{"at": "full"}` once everything that it wants to hold is held (or enough was closed by the proxy to call it a flood),
goes on until its input ends, and says what it counted.
With a certificate (and its key, one file) it is an insider that speaks the mesh's mutual TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

ROOT = Path(__file__).resolve().parents[2]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
# GET http / with `host: a`, of the static table alone: the same bytes for every stream.
REQUEST = b"\x82\x86\x84\x01\x01a"
# A header of 4,000 bytes for the dynamic table, and the one byte that names it from then on.
LARGE = b"\x40\x01x" + b"\x7f\xa1\x1e" + b"a" * 4000
AGAIN = b"\xbe"
COOKIE = b"\x60" + b"\x7f\xa1\x1e" + b"c" * 4000


class Target:
    """Where the flood goes, and what became of its connections: `opened`, `closed` by the proxy, `answers` (HTTP/1 codes)."""

    def __init__(self, host: str, port: int, certificate: str = "") -> None:
        self.host, self.port = host, port
        self.opened = self.closed = self.sent = 0
        self.answers: dict[str, int] = {}
        self._insider: ssl.SSLContext | None = None
        if certificate:
            self._insider = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._insider.check_hostname, self._insider.verify_mode = False, ssl.CERT_NONE
            self._insider.load_cert_chain(certificate)

    @asynccontextmanager
    async def connection(
        self, *alpn: str, bare: bool = False
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, counted; errors while it is used are the proxy's answer to a flood. `bare`: without TLS all the same."""
        writer = None
        context = None if bare else self._insider
        if context is not None:
            context.set_alpn_protocols(list(alpn or ("http/1.1",)))
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port, ssl=context)
            self.opened += 1
            yield reader, writer
        except (OSError, asyncio.IncompleteReadError):
            self.closed += 1
        finally:
            if writer is not None:
                writer.transport.abort()

    def count(self, answer: bytes) -> None:
        """Note an HTTP/1 answer; nothing is a connection that was closed."""
        code = answer.split(b" ")[1].decode() if answer.startswith(b"HTTP/1") else "closed"
        self.answers[code] = self.answers.get(code, 0) + 1


async def _many(count: int, one: Callable[[asyncio.Event], Awaitable[None]], full: Callable[[], None]) -> None:
    """So many at once, opened a few hundred at a time; `full` is called when all stand."""
    gate, waiting = asyncio.Semaphore(200), [asyncio.Event() for _ in range(count)]

    async def opened(stands: asyncio.Event) -> None:
        await gate.acquire()
        stood = asyncio.ensure_future(stands.wait())
        stood.add_done_callback(lambda _: gate.release())
        try:
            await one(stands)
        finally:
            stands.set()

    tasks = [asyncio.ensure_future(opened(stands)) for stands in waiting]
    for stands in waiting:
        await stands.wait()
    full()
    await asyncio.gather(*tasks)


async def idle(target: Target, full: Callable[[], None]) -> None:
    """Thousands of connections that never say anything (100,000, scaled to what a process may open here)."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    async def one(stands: asyncio.Event) -> None:
        async with target.connection(bare=True) as (reader, _):
            stands.set()
            await reader.read(1)
            target.closed += 1

    await _many(min(4000, files // 4), one, full)


async def slowloris(target: Target, full: Callable[[], None]) -> None:
    """Requests whose headers never end: a byte a second."""

    async def one(stands: asyncio.Event) -> None:
        async with target.connection() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
            stands.set()
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    answer = await asyncio.wait_for(reader.read(1000), 1)
                    target.count(answer)
                    target.closed += 1
                    return

    await _many(500, one, full)


async def rapid_reset(target: Target, full: Callable[[], None]) -> None:
    """HTTP/2 requests that are taken back as soon as they are made, on connections that are opened again when closed."""

    async def one() -> None:
        while True:
            if target.closed == 20:
                full()
            async with target.connection("h2") as (reader, writer):
                writer.write(PREFACE)
                stream = 1
                while not (reader.at_eof() or writer.is_closing()):
                    for _ in range(100):
                        frame = HeadersFrame(stream, REQUEST, flags=["END_HEADERS", "END_STREAM"])
                        writer.write(frame.serialize() + RstStreamFrame(stream, error_code=8).serialize())
                        stream += 2
                        target.sent += 1
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):  # what it says is not of interest, but that it has closed
                        await asyncio.wait_for(reader.read(1 << 16), 0.001)
                target.closed += 1

    await asyncio.gather(*(one() for _ in range(4)))


async def header_bombs(target: Target, full: Callable[[], None]) -> None:
    """Headers without end, in HTTP/1 and HTTP/2: long, many, small on the wire and large when unpacked, cut into pieces."""
    while True:
        for bomb in (b"x: " + b"a" * 1_000_000, b"".join(b"x-%d: a\r\n" % at for at in range(20_000))):
            async with target.connection() as (reader, writer):
                writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n" + bomb + b"\r\n\r\n")
                target.count(await reader.read(1000))
        for block in (REQUEST + LARGE + AGAIN * 16_000, REQUEST + COOKIE + AGAIN * 16_000, REQUEST + b"\x00\x01y\x01a" * 3_000):
            await _pieces(target, block, ends=True)
        await _pieces(target, b"\x00\x01y\x01a" * 100_000, ends=False)
        if target.sent == 4:
            full()


async def _pieces(target: Target, block: bytes, *, ends: bool) -> None:
    async with target.connection("h2") as (reader, writer):
        parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        writer.write(PREFACE + HeadersFrame(1, parts[0], flags=["END_HEADERS"] if ends and len(parts) == 1 else []).serialize())
        for at, part in enumerate(parts[1:], 2):
            writer.write(ContinuationFrame(1, part, flags=["END_HEADERS"] if ends and at == len(parts) else []).serialize())
        await writer.drain()
        target.sent += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(-1), 0.2)
            target.closed += 1


async def frames(target: Target, full: Callable[[], None]) -> None:
    """HTTP/2 frames that cost their sender nothing: pings, settings, data without data."""
    opened = HeadersFrame(1, b"\x83\x86\x84\x01\x01a", flags=["END_HEADERS"])  # a POST that goes on
    kinds: list[tuple[bytes, Frame]] = [
        (b"", PingFrame(0, b"12345678")),
        (b"", SettingsFrame(0)),
        (opened.serialize(), DataFrame(1, b"")),
    ]

    async def one(first: bytes, frame: Frame) -> None:
        many = frame.serialize() * 500
        while True:
            if target.closed == 3:
                full()
            async with target.connection("h2") as (reader, writer):
                writer.write(PREFACE + first)
                while not (reader.at_eof() or writer.is_closing()):
                    writer.write(many)
                    target.sent += 500
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):  # what it says is not of interest, but that it has closed
                        await asyncio.wait_for(reader.read(1 << 16), 0.001)
                target.closed += 1

    await asyncio.gather(*(one(first, frame) for first, frame in kinds))


KINDS = {one.__name__: one for one in (idle, slowloris, rapid_reset, header_bombs, frames)}


async def _main(kind: str, host: str, port: str, certificate: str = "") -> None:
    target = Target(host, int(port), certificate)
    flood = asyncio.ensure_future(KINDS[kind](target, lambda: print(json.dumps({"at": "full"}), flush=True)))
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([flood, ended], return_when=asyncio.FIRST_COMPLETED)
    if flood.done():
        flood.result()
    counted = {"opened": target.opened, "closed": target.closed, "sent": target.sent, "answers": target.answers}
    flood.cancel()
    print(json.dumps(counted), flush=True)
    if not ended.done():
        await ended


class Flood:
    """One that runs. `counted` is there when it has ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.counted: dict[str, Any] = {}

    def spent(self) -> dict[str, Any]:
        """Wait until the proxy has closed all that the flood held."""
        self.counted = self._line()
        return self.counted

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the flood ended by a mistake of its own"
        found: dict[str, Any] = json.loads(line)
        return found

    def stand(self) -> None:
        """Wait until it is full."""
        assert self._line() == {"at": "full"}

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not self.counted:
            self.spent()
        self._process.wait(20)


@contextmanager
def flooding(kind: str, host: str, port: int, certificate: Path | None = None) -> Iterator[Flood]:
    """A flood that stands, until the block ends."""
    argv = [sys.executable, "-m", "tests.support.floods", kind, host, str(port), *([str(certificate)] if certificate else [])]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    flood = Flood(process)
    try:
        flood.stand()
        yield flood
        flood.stop()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
