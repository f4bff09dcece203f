"""A TCP proxy that loses what it is told to lose."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

_DATA = 80  # bytes: HTTP/2's own small frames (settings, pings, window updates) are no answers


class LossyProxy:
    """In front of `host:port`, on a port of its own: `async with LossyProxy(endpoint) as proxy`.

    `lose_next_answer()`: the next answer is not passed on, and its connection ends, though what was asked was done. `cut()`: all
    connections end and none is made, until `mend()`.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()
        self._armed = self._cut = False
        self.lost = 0

    async def __aenter__(self) -> LossyProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        self.cut()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def lose_next_answer(self) -> None:
        """Once."""
        self._armed = True

    def cut(self) -> None:
        """From now on nothing gets through."""
        self._cut = True
        for writer in self._writers:
            writer.close()

    def mend(self) -> None:
        """From now on everything does."""
        self._cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.close()
            return
        upstream_reader, upstream = await asyncio.open_connection(*self._target)
        self._writers |= {writer, upstream}
        try:
            await asyncio.gather(self._pipe(reader, upstream, False), self._pipe(upstream_reader, writer, True))
        finally:
            self._writers -= {writer, upstream}

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if answers and self._armed and len(data) > _DATA:
                    self._armed = False
                    self.lost += 1
                    break
                writer.write(data)
                await writer.drain()
        for one in list(self._writers) if answers and not self._armed and self.lost and not reader.at_eof() else [writer]:
            one.close()
