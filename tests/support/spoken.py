"""Programs that speak what a mesh carries, and callers that tell as JSON what they saw. A file of its own: workloads run it.

python tests/support/spoken.py serve-greeting 7625 v1     # the server speaks first, as with SMTP and MySQL
python tests/support/spoken.py greet mail 7625 20
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

_SERVICE = "spoken.Spoken"
MEGABYTE = 1 << 20

# A page that asks its server in the ways that pages do, and shows what it saw. It is loaded when its image is, which is held
# until all is seen.
PAGE = """<!doctype html><title>page</title><pre id="seen"></pre><img src="/held"><script>
(async () => {
  const seen = {};
  const answer = await fetch("/sum", {method: "POST", body: "x".repeat(100000)});
  seen.length = (await answer.json()).length;
  seen.protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  const socket = new WebSocket("wss://" + location.host + "/ws");
  seen.echo = await new Promise(done => {
    socket.onopen = () => socket.send("hello");
    socket.onmessage = message => done(message.data);
    socket.onerror = () => done("no WebSocket");
  });
  document.getElementById("seen").textContent = JSON.stringify(seen);
  fetch("/release");
})();
</script>"""

# Headers as an application and its server may send them: in any case, repeated, empty, and with what proxies tend to touch.
ASKED = """\
User-Agent: me/1.0 (of; my own)
Accept: */*
ACCEPT-ENCODING: gzip, br;q=0.5
accept-language: de, en;q=0.7
Authorization: Bearer a.b.c
Cache-Control: no-cache
Cookie: a=1; b="two"
Content-Type: text/plain; charset=utf-8
Content-Length: 2
Date: Tue, 15 Nov 1994 08:12:31 GMT
DNT: 1
Forwarded: for=192.0.2.43;proto=http
From: somebody@example.com
If-None-Match: "x", W/"y"
Origin: http://a.example
Range: bytes=0-9
Referer: http://a.example/b?c
Server: not a server
Via: 1.1 before
X-Forwarded-For: 192.0.2.1, 192.0.2.2
X-Forwarded-Host: a.example
X-Request-Id: 0b1e6a5c-1111-4222-8333-944444444444
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1
X-Two: one
X-Two: two, three
X_Under.Score~: !#$%&'*+
x-empty:
x-utf8: gr\u00fc\u00df
x-long: {long}""".format(long="y" * 20000)
ANSWERED = """\
Server: mine/1
Date: Thu, 01 Jan 1970 00:00:00 GMT
Content-Type: application/json
ETag: W/"x"
Set-Cookie: a=1; Path=/
Set-Cookie: b=2; HttpOnly
Cache-Control: no-store
Vary: accept, origin
Via: 1.0 behind
Location: http://127.0.0.1:1/a
Content-Encoding: identity
Access-Control-Allow-Origin: *
Strict-Transport-Security: max-age=1
X-Two: one
X-Two: two
X-CASE: As It Is
x-empty:"""


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


async def serve_proxy(port: int) -> None:
    """An HTTP proxy that knows CONNECT alone; to what asks for anything else it answers 405."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, *_version = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
        if method != b"CONNECT":
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            return
        host, _colon, number = target.decode().rpartition(":")
        far, near = await asyncio.open_connection(host, int(number))
        writer.write(b"HTTP/1.1 200 OK\r\nx-proxy: mine\r\n\r\n")
        await asyncio.gather(pass_on(reader, near), pass_on(far, writer), return_exceptions=True)

    async with await asyncio.start_server(talk, "127.0.0.1", port) as server:
        await server.serve_forever()


async def serve_web(port: int) -> None:
    """HTTP/1.1: `/sum` digests a body, `/bytes` sends one, `/slow` drips one, `/ws` echoes, `/page` is for browsers."""
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
            await (
                socket.close(code=4001, message=b"enough") if message.data == "bye" else socket.send_str(f"echo {message.data}")
            )
        return socket

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    released = asyncio.Event()

    async def held(_request: web.Request) -> web.Response:
        await released.wait()
        released.clear()
        return web.Response()

    async def release(_request: web.Request) -> web.Response:
        released.set()
        return web.Response()

    app = web.Application(client_max_size=0)
    app.router.add_get("/held", held)
    app.router.add_get("/release", release)
    app.router.add_get("/page", page)
    app.router.add_get("/bytes", send)
    app.router.add_get("/slow", drip)
    app.router.add_get("/ws", echo)
    app.router.add_route("*", "/{any:.*}", digest)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def serve_raw(port: int) -> None:
    """HTTP/1.1 by hand: answers `ANSWERED`, and in its body the lines of the request's head as they came."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            body = json.dumps(head.decode().split("\r\n")[:-2]).encode()
            lines = ["HTTP/1.1 200 Fine", *ANSWERED.split("\n"), f"Content-Length: {len(body)}", "", ""]
            writer.write("\r\n".join(lines).encode() + body)

    async with await asyncio.start_server(talk, "127.0.0.1", port, limit=MEGABYTE) as server:
        await server.serve_forever()


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


class _Named(asyncio.DatagramProtocol):
    """Answers each datagram with a name and what it said."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(self._name.encode() + b" " + data, addr)


async def serve_datagrams(port: int, name: str) -> None:
    """Answers datagrams by its name."""
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Named(name), local_addr=("0.0.0.0", port))
    await asyncio.Event().wait()


async def datagrams(host: str, port: int, clients: int) -> Any:
    """So many clients, each with one datagram: how many were answered by each name, and by nobody ("")."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = (await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM))[0][4]
    answered: Counter[str] = Counter()
    for number in range(clients):
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.setblocking(False)
            one.connect(address)
            await loop.sock_sendall(one, f"{number}".encode())
            try:
                name, said = (await asyncio.wait_for(loop.sock_recv(one, 1500), 5)).split()
                assert said == f"{number}".encode()
                answered[name.decode()] += 1
            except (TimeoutError, OSError):
                answered[""] += 1
    assert answered.keys() != {""}, "nobody answers"
    return answered


async def greet(host: str, port: int, times: int, names: str = "") -> Any:
    """Connect, hear the greeting, say something: how long until the greeting (seconds, sorted), who greeted, the last answer.

    With `names` (several after each other, with commas) in TLS, with these server names in turns. One after the
    other; ten at once where a thousand are counted.
    """
    waits, answer = [], b""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    greeted: Counter[str] = Counter()
    left = iter(range(times))

    def secure(number: int) -> dict[str, Any]:
        words = names.split(",")
        return {"ssl": context, "server_hostname": words[number % len(words)]} if names else {}

    async def caller() -> None:
        nonlocal answer
        for number in left:
            began = time.monotonic()
            reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port, **secure(number)), 10)
            greeting = await asyncio.wait_for(reader.readline(), 10)
            waits.append(time.monotonic() - began)
            assert greeting.startswith(b"220 "), greeting
            greeted[greeting.decode().split()[1]] += 1
            writer.write(f"HELO {number}\r\n".encode())
            answer = await asyncio.wait_for(reader.readline(), 10)
            writer.close()

    await asyncio.gather(*(caller() for _ in range(10 if times >= 1000 else 1)))
    return {"waits": sorted(waits), "answer": answer.decode(), "greeted": greeted}


async def silence(host: str, port: int) -> Any:
    """Connect, hear the greeting and say nothing: how long (seconds) until the connection is ended."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 10)
    await asyncio.wait_for(reader.readline(), 10)
    began = time.monotonic()
    rest = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return {"ended": time.monotonic() - began, "rest": rest.decode()}


async def raw(host: str, port: int) -> Any:
    """`ASKED` as it stands: the lines that arrived, and those of the answer's head."""
    reader, writer = await asyncio.open_connection(host, port, limit=MEGABYTE)
    asked = ["PUT /a%2Fb?q=%20&q=1;x HTTP/1.1", f"Host: {host}:{port}", *ASKED.split("\n"), "", "ok"]
    writer.write("\r\n".join(asked).encode())
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().split("\r\n")[:-2]
    (length,) = [int(line.partition(":")[2]) for line in head if line.lower().startswith("content-length:")]
    return {"arrived": json.loads(await reader.readexactly(length)), "answered": head}


def timed(times: int, *argv: str) -> Any:
    """Seconds that a command takes, sorted."""
    waits = []
    for _ in range(times):
        began = time.monotonic()
        subprocess.run(argv, check=True, capture_output=True)
        waits.append(time.monotonic() - began)
    return sorted(waits)


async def websockets_talk(url: str, address: str = "", roots: str = "") -> Any:
    """The library `websockets`: text, a megabyte, a ping, the server's close; through TLS where `roots` are given."""
    import websockets

    more: dict[str, Any] = {}
    if roots:
        host, _colon, port = address.partition(":")
        more = {"ssl": ssl.create_default_context(cafile=roots), "host": host, "port": int(port)}
    async with websockets.connect(url, max_size=4 * MEGABYTE, **more) as socket:
        await socket.send("hello")
        seen: dict[str, Any] = {"text": await socket.recv()}
        await socket.send("x" * MEGABYTE)
        seen["large"] = len(await socket.recv())
        seen["pong"] = await (await socket.ping()) < 10
        seen["extensions"] = [extension.name for extension in socket.protocol.extensions]
        await socket.send("bye")
        await socket.wait_closed()
    return {**seen, "closed": [socket.close_code, socket.close_reason]}


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
        "serve-proxy": lambda port: serve_proxy(int(port)),
        "serve-grpc": lambda port: serve_grpc(int(port)),
        "greet": lambda host, port, times, *names: greet(host, int(port), int(times), *names),
        "serve-datagrams": lambda port, name: serve_datagrams(int(port), name),
        "datagrams": lambda host, port, clients: datagrams(host, int(port), int(clients)),
        "silence": lambda host, port: silence(host, int(port)),
        "serve-raw": lambda port: serve_raw(int(port)),
        "raw": lambda host, port: raw(host, int(port)),
        "websockets": websockets_talk,
        "websocket": lambda url, times: websocket(url, int(times)),
        "upload": lambda url, megabytes, pause: upload(url, int(megabytes), float(pause)),
        "grpc": grpc_calls,
    }
    if name == "timed":
        print(json.dumps(timed(int(said[0]), *said[1:])))
        return
    result = asyncio.run(programs[name](*said))
    if result is not None:
        print(json.dumps(result))


if __name__ == "__main__":
    main(iter(sys.argv[1:]))
