"""A client that writes bytes: for what no HTTP library would send."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.apiserver import Running


class Wire:
    """A TLS connection. `read` gives everything until the server closes, or `enough` is in it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: str | bytes) -> None:
        """Write and flush."""
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def read(self, enough: bytes = b"\0never\0", seconds: float = 15.0) -> bytes:
        """What comes; an abort counts as an end."""
        got = b""
        async with asyncio.timeout(seconds):
            try:
                while enough not in got and (more := await self.reader.read(65536)):
                    got += more
            except (ConnectionError, ssl.SSLError):
                return got
        return got


@asynccontextmanager
async def wire(served: Running, context: ssl.SSLContext | None = None, *, receive_buffer: int = 0) -> AsyncIterator[Wire]:
    """A connection; without `context` one that shows no certificate."""
    host, port = served.url.removeprefix("https://").split(":")
    raw = socket.socket()
    raw.setblocking(False)
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    reader, writer = await asyncio.open_connection(
        sock=raw, ssl=context or served.context(), server_hostname=host, limit=2**16 if not receive_buffer else 1024
    )
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
