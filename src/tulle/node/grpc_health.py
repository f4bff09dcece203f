"""One question to an application's gRPC health service (`grpc.health.v1.Health/Check`), over a connection that is made already.

gRPC opens its connections itself, and an application's network is not ours: so it opens a Unix socket, and what is said there is
passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from pathlib import Path

import grpc

from tulle.kit import wire

_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = 1


async def serving(application: socket.socket, service: str) -> bool:
    """Whether the health service says that `service` ("": the server) serves. It takes as long as the caller lets it."""
    inner = await asyncio.open_connection(sock=application)
    passing: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing.extend(asyncio.ensure_future(_pass(*pair)) for pair in ((reader, inner[1]), (inner[0], writer)))

    with tempfile.TemporaryDirectory(prefix="tulle-probe-") as folder:
        path = Path(folder) / "grpc.sock"
        server = await asyncio.start_unix_server(accept, path)
        try:
            async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
                check = channel.unary_unary(_CHECK)  # without serializers: messages are bytes
                answer = await check(wire.field(1, service.encode()) if service else b"")
            return dict(wire.fields(answer)).get(1) == _SERVING
        except (grpc.aio.AioRpcError, IndexError):  # NOT_FOUND is an unknown service, UNIMPLEMENTED no health service
            return False
        finally:
            server.close()
            for task in passing:
                task.cancel()
            inner[1].close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
