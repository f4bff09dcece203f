"""What the samples' own programs do: `Hello version: v1` over HTTP, an echo by WebSocket, lines of TCP with a word before.

python hello.py WORD HTTP_PORT [TCP_PORT...]
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import WSMsgType, web


async def _http(request: web.Request) -> web.StreamResponse:
    if request.headers.get("upgrade", "").lower() != "websocket":
        return web.Response(text=f"Hello version: {sys.argv[1]}, path: {request.path}\n")
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(f"{sys.argv[1]} {message.data}")
    return socket


async def _tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(f"{sys.argv[1]} ".encode() + line)
    writer.close()


async def _serve() -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _http)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[2])).start()
    for port in sys.argv[3:]:
        await asyncio.start_server(_tcp, "127.0.0.1", int(port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
