"""Debian's redis-server, on a Unix socket in a folder; it can be ended and begun again."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

needed = pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server (make system)")


class RedisServer:
    """`url` is where it is, `port` (0: none) where it listens on the loopback."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.socket, self.port = folder / "redis.sock", port
        self.url = f"redis://127.0.0.1:{port}" if port else f"unix://{self.socket}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        self._process = await asyncio.create_subprocess_exec(
            "redis-server",
            *("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)),
            *("--save", "", "--appendonly", "no", "--dir", str(self.socket.parent)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(10):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(str(self.socket))
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.write(b"PING\r\n")
                said = await reader.readline()
                writer.close()
                if said == b"+PONG\r\n":
                    return

    async def stop(self) -> None:
        """It loses what it had."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
