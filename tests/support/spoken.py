"""Programs that speak what a mesh carries, and callers that tell as JSON what they saw. A file of its own: workloads run it.

python tests/support/spoken.py serve-greeting 7625 v1     # the server speaks first, as with SMTP and MySQL
python tests/support/spoken.py greet mail 7625 20
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

_SERVICE = "spoken.Spoken"
MEGABYTE = 1 << 20


# -- servers --


async def serve_greeting(port: int, name: str, certificate: str = "") -> None:
    """Greets with its name before anything is said, then answers each line; in TLS where it has a certificate (with its key)."""
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"220 {name}\r\n".encode())
        while line := await reader.readline():
            writer.write(b"250 " + line)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", port, ssl=context) as server:
        await server.serve_forever()


async def serve_web(port: int) -> None:
    """HTTP/1.1: `/sum` digests a body, `/bytes` sends one, `/slow` drips one, `/ws` is a WebSocket that echoes."""
    from aiohttp import web

    async def digest(request: web.Request) -> web.Response:
        total, summed = 0, hashlib.sha256()
        async for chunk in request.content.iter_any():
            total += len(chunk)
            summed.update(chunk)
        seen = {"length": total, "sha256": summed.hexdigest(), "headers": dict(request.headers), "path": request.path_qs}
        return web.json_response(seen)

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
        await response.prepare(request)
        for _ in range(int(request.query["megabytes"])):
            await response.write(b"x" * MEGABYTE)
        return response

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(int(request.query["parts"])):
            await response.write(f"{number}\n".encode())
            await asyncio.sleep(float(request.query["pause"]))
        return response

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"echo {message.data}")
        return socket

    app = web.Application(client_max_size=0)
    app.router.add_get("/bytes", send)
    app.router.add_get("/slow", drip)
    app.router.add_get("/ws", echo)
    app.router.add_route("*", "/{any:.*}", digest)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def serve_grpc(port: int) -> None:
    """Unary and all streams of bytes; `Fail` gives the status that it is asked for, `Flaky` UNAVAILABLE twice for each name."""
    import grpc
    from grpc import aio

    tries: Counter[bytes] = Counter()

    async def unary(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-seen", context.peer()[:4]),))
        context.set_trailing_metadata((("x-trailer", "unary"),))
        return b"unary " + request

    async def many(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    async def collect(requests: AsyncIterator[bytes], _context: Any) -> bytes:
        return b",".join([one async for one in requests])

    async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for one in requests:
            yield b"re " + one
        context.set_trailing_metadata((("x-trailer", "chat"),))

    async def fail(request: bytes, context: Any) -> bytes:
        codes = {code.value[0]: code for code in grpc.StatusCode}
        context.set_trailing_metadata((("x-trailer", "fail"),))
        await context.abort(codes[int(request)], "as asked: 100%")
        return b""

    async def flaky(request: bytes, context: Any) -> bytes:
        tries[request] += 1
        if tries[request] <= 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return str(tries[request]).encode()

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Flaky": grpc.unary_unary_rpc_method_handler(flaky),
    }
    server = aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


# -- callers --


async def greet(host: str, port: int, times: int, names: str = "") -> Any:
    """Connect, hear the greeting, say something: how long until the greeting (seconds, sorted), who greeted, the last answer.

    With `names` (several after each other, with commas) in TLS, with these server names in turns.
    """
    waits, answer = [], b""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    greeted: Counter[str] = Counter()

    def secure(number: int) -> dict[str, Any]:
        words = names.split(",")
        return {"ssl": context, "server_hostname": words[number % len(words)]} if names else {}

    for number in range(times):
        began = time.monotonic()
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port, **secure(number)), 10)
        greeting = await asyncio.wait_for(reader.readline(), 10)
        waits.append(time.monotonic() - began)
        assert greeting.startswith(b"220 "), greeting
        greeted[greeting.decode().split()[1]] += 1
        writer.write(f"HELO {number}\r\n".encode())
        answer = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
    return {"waits": sorted(waits), "answer": answer.decode(), "greeted": greeted}


async def websocket(url: str, times: int) -> Any:
    """Messages of a WebSocket and their echoes."""
    import aiohttp

    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        seen = []
        for number in range(times):
            await socket.send_str(str(number))
            seen.append((await socket.receive(timeout=10)).data)
        await socket.close()
        return {"seen": seen, "closed": socket.close_code}


async def upload(url: str, megabytes: int, pause: float) -> Any:
    """POST a body chunk by chunk, with pauses; what the server says of it, and the digest that was sent."""
    import aiohttp

    summed = hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(megabytes):
            chunk = bytes([number % 251]) * MEGABYTE
            summed.update(chunk)
            yield chunk
            await asyncio.sleep(pause)

    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, data=chunks()) as response:
        return {"status": response.status, "said": await response.json(), "sent": summed.hexdigest()}


async def grpc_calls(target: str) -> Any:
    """Every kind of call, and what came of it."""
    import grpc
    from grpc import aio

    async def texts(*words: str) -> AsyncIterator[bytes]:
        for word in words:
            yield word.encode()

    def words(metadata: Any) -> dict[str, str]:
        return {str(name): str(value) for name, value in metadata or ()}

    async with aio.insecure_channel(target) as channel:
        unary = channel.unary_unary(f"/{_SERVICE}/Unary")(b"a", timeout=20)
        many = channel.unary_stream(f"/{_SERVICE}/Many")(b"1000", timeout=20)
        collect = channel.stream_unary(f"/{_SERVICE}/Collect")(texts("a", "b", "c"), timeout=20)
        chat = channel.stream_stream(f"/{_SERVICE}/Chat")(timeout=20)
        seen = []
        for word in ("x", "y"):  # in turns: nothing on the way may wait for the end of a stream
            await chat.write(word.encode())
            seen.append((await chat.read()).decode())
        await chat.done_writing()
        found: dict[str, Any] = {
            "unary": (await unary).decode(),
            "unary trailers": words(await unary.trailing_metadata()),
            "many": [one async for one in many][-1].decode(),
            "collect": (await collect).decode(),
            "chat": seen,
            "chat end": str(await chat.read()),
            "chat trailers": words(await chat.trailing_metadata()),
            "statuses": {},
        }
        for code in (3, 5, 7, 16):
            try:
                await channel.unary_unary(f"/{_SERVICE}/Fail")(str(code).encode(), timeout=20)
            except aio.AioRpcError as error:
                found["statuses"][code] = [error.code().value[0], error.details(), words(error.trailing_metadata())["x-trailer"]]
        try:
            found["flaky"] = (await channel.unary_unary(f"/{_SERVICE}/Flaky")(b"one", timeout=20)).decode()
        except grpc.RpcError as error:
            found["flaky"] = str(error)
        return found


def main(words: Iterator[str]) -> None:
    """One program: its name and arguments."""
    name, *said = words
    programs: dict[str, Any] = {
        "serve-greeting": lambda port, *more: serve_greeting(int(port), *more),
        "serve-web": lambda port: serve_web(int(port)),
        "serve-grpc": lambda port: serve_grpc(int(port)),
        "greet": lambda host, port, times, *names: greet(host, int(port), int(times), *names),
        "websocket": lambda url, times: websocket(url, int(times)),
        "upload": lambda url, megabytes, pause: upload(url, int(megabytes), float(pause)),
        "grpc": grpc_calls,
    }
    result = asyncio.run(programs[name](*said))
    if result is not None:
        print(json.dumps(result))


if __name__ == "__main__":
    main(iter(sys.argv[1:]))
