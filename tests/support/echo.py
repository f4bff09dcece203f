"""The server behind every backend of the conformance suites: it answers with what reached it, as the Gateway API's own does.

One `Echo` is one pod: HTTP/1.1 and WebSocket (`http`), HTTP/2 and gRPC without TLS (`h2c`), both with TLS, lines of TCP and
datagrams of DNS. JSON tells path, host, method, proto, headers, namespace, service, pod and TLS details. `/status/NNN` answers
so; `?delay=1s` waits before; `/retry/...?uuid=U&succeedAfter=N` fails N times for each U (with `responseCode`, or else by a
reset, each time after `delayRetry`); `X-Echo-Set-Header: name:value,...` are headers of the answer.

    python -m tests.support.echo --pod echo-1 --http 3000 --h2c 3001
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import ssl
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from tests.support import echo_grpc
from tests.support.echo_h2 import Http2
from tests.support.echo_l4 import Datagrams, Lines
from tests.support.echo_tls import details

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Pod:
    """What a server says of itself."""

    name: str
    namespace: str = "default"
    service: str = ""


@dataclass(frozen=True)
class Request:
    """What reached a pod. Names of headers are as Go writes them (`X-Header-Set`); a header that came twice has two values."""

    path: str
    host: str = ""
    method: str = ""
    proto: str = ""
    headers: dict[str, list[str]] = field(default_factory=dict)
    tls: dict[str, Any] | None = None

    def first(self, name: str) -> str:
        """A header's first value, "" without."""
        return self.headers.get(name, [""])[0]


@dataclass(frozen=True)
class Response:
    """What it answers; status 0 is a connection that is reset. Trailers come only over HTTP/2."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()


def canonical(name: str) -> str:
    """`x-header-set` as `X-Header-Set`."""
    return "-".join(part.capitalize() for part in name.split("-"))


def seconds(duration: str) -> float:
    """`1s`, `200ms`; 0 where it is none."""
    found = re.fullmatch(r"([0-9.]+)(ms|s|m)", duration)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def set_headers(asked: list[str]) -> tuple[tuple[str, str], ...]:
    """Headers from `X-Echo-Set-Header`; the values of a name that is there twice are joined."""
    found: dict[str, str] = {}
    for pair in ",".join(asked).split(","):
        name, colon, value = pair.strip().partition(":")
        if colon:
            found[name] = f"{found[name]},{value.strip()}" if name in found else value
    return tuple(found.items())


class Echo:
    """One pod and its listeners; `seen` is every request that reached it, for tests of mirrors."""

    def __init__(self, pod: Pod, tls: ssl.SSLContext | None = None) -> None:
        self.pod, self.tls = pod, tls
        self.seen: list[Request] = []
        self._tries: Counter[str] = Counter()
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.DatagramTransport] = []

    async def answer(self, request: Request) -> Response:
        """The answer to one request of HTTP or gRPC."""
        self.seen.append(request)
        url = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        await asyncio.sleep(seconds(query.get("delay", "")))
        if request.first("Content-Type").startswith("application/grpc"):
            return echo_grpc.answer(self.pod, request)
        if found := re.fullmatch(r"/status/(\d\d\d)", url.path):
            return Response(int(found[1]))
        if "/retry/" in url.path and "succeedAfter" in query:
            self._tries[query.get("uuid", "")] += 1
            if self._tries[query.get("uuid", "")] <= int(query["succeedAfter"]):
                await asyncio.sleep(seconds(query.get("delayRetry", "")))
                return Response(int(query.get("responseCode", "0")))
        body = json.dumps({**self.about(request), "ingress": "", "sni": ""}, indent=1).encode()
        common = (("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff"))
        return Response(200, body, (*common, *set_headers(request.headers.get("X-Echo-Set-Header", []))))

    def about(self, request: Request) -> dict[str, Any]:
        """A request in the words of the conformance suite, with the pod's own."""
        said: dict[str, Any] = {"path": request.path, "host": request.host, "method": request.method, "proto": request.proto}
        said |= {"headers": request.headers, "namespace": self.pod.namespace, "service": self.pod.service, "pod": self.pod.name}
        return said | ({"tls": request.tls} if request.tls else {})

    async def start(
        self, host: str, *, http: int = 0, h2c: int = 0, https: int = 0, h2: int = 0, tcp: int = 0, tcp_tls: int = 0, udp: int = 0
    ) -> None:
        """Listen on the ports that are not 0. Of `https` and `h2` a pod has one: what ALPN offers is the context's."""
        loop = asyncio.get_running_loop()
        one = web.Server(self._http1)
        listeners: list[tuple[int, Any, bool, tuple[str, ...]]] = [
            (http, one, False, ()),
            (https, one, True, ("http/1.1",)),
            (h2c, lambda: Http2(self), False, ()),
            (h2, lambda: Http2(self), True, ("h2",)),
            (tcp, lambda: Lines(self.pod), False, ()),
            (tcp_tls, lambda: Lines(self.pod), True, ()),
        ]
        for port, protocol, encrypted, names in listeners:
            if not port:
                continue
            if encrypted and names and self.tls:
                self.tls.set_alpn_protocols(list(names))
            context = self.tls if encrypted else None
            self._servers.append(await loop.create_server(protocol, host, port, ssl=context, reuse_address=True))
        if udp:
            transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(self.pod), local_addr=(host, udp))
            self._datagrams.append(transport)

    def stop(self) -> None:
        """Listen no more."""
        for server in self._servers:
            server.close()
        for transport in self._datagrams:
            transport.close()

    async def _http1(self, request: web.BaseRequest) -> web.StreamResponse:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            if name.lower() != "host":
                headers.setdefault(canonical(name), []).append(value)
        socket = request.transport.get_extra_info("ssl_object") if request.transport else None
        version = f"HTTP/{request.version.major}.{request.version.minor}"
        seen = Request(request.raw_path, request.headers.get("Host", ""), request.method, version, headers, details(socket))
        if seen.first("Upgrade").lower() == "websocket":
            return await self._websocket(request, seen)
        await request.read()
        answer = await self.answer(seen)
        if not answer.status:
            if request.transport:
                request.transport.abort()
            return web.Response()
        return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))

    async def _websocket(self, request: web.BaseRequest, seen: Request) -> web.WebSocketResponse:
        self.seen.append(seen)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is web.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is web.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


async def _serve(arguments: argparse.Namespace) -> None:
    echo = Echo(Pod(arguments.pod, arguments.namespace, arguments.service))
    await echo.start(arguments.host, http=arguments.http, h2c=arguments.h2c, tcp=arguments.tcp, udp=arguments.udp)
    await asyncio.Event().wait()


def main() -> None:
    """One pod as a process."""
    parser = argparse.ArgumentParser()
    for name, default in (("pod", "echo"), ("namespace", "default"), ("service", ""), ("host", "127.0.0.1")):
        parser.add_argument(f"--{name}", default=default)
    for name in ("http", "h2c", "tcp", "udp"):
        parser.add_argument(f"--{name}", type=int, default=0)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
