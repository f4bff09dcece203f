"""The plainest HTTP/1.1 client over TLS, one request at a time on one connection: so that the server is what is measured."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any


class Connection:
    """One keep-alive connection to the API server."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        self.host, self.port, self._tls = host, port, tls
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> Connection:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, ssl=self._tls, limit=2**26)
        return self

    def close(self) -> None:
        """Let go."""
        self.writer.close()

    def send(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> None:
        """Send a request; `answer` reads what comes back."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nAccept: application/json\r\nUser-Agent: bench/1\r\n"
        if body:
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        self.writer.write(head.encode() + b"\r\n" + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and headers (names in lower case) of an answer."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, bytes]:
        """Status and body."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while chunk := await self.chunk():
                body += chunk
            return status, body
        return status, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def chunk(self) -> bytes:
        """The next chunk of a chunked answer; empty at its end."""
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:size]

    async def request(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """Send and read. RuntimeError where the server refuses."""
        self.send(method, path, body, content_type)
        status, answer = await self.answer()
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:500]!r}")
        return answer

    async def json(self, method: str, path: str) -> Any:
        """The answer, decoded."""
        return json.loads(await self.request(method, path))
