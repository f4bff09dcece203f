"""Clients for a Gateway's ports: HTTP/1 (aiohttp), HTTP/2 (curl), gRPC (grpcio), WebSocket, lines of TCP and TLS, DNS."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import grpc.aio
from yarl import URL

from tests.conformance.gateway_api.judge import Got
from tests.support import echo_grpc, echo_l4
from tests.support.apiserver import Ca

HOST = "127.0.0.1"
_PATIENCE = 5.0


def trusting(authority: Ca, certificate: tuple[bytes, bytes] | None = None) -> ssl.SSLContext:
    """A client's TLS: the chain is verified; the name is not, for the suite's certificates do not have every host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.pem.decode())
    if certificate:
        authority.load(context, *certificate)
    return context


async def http(
    port: int, method: str, path: str, headers: Mapping[str, str], tls: ssl.SSLContext | None = None, sni: str = ""
) -> Got:
    """One request of HTTP/1.1 on a connection of its own."""
    url = URL(f"{'https' if tls else 'http'}://{HOST}:{port}{path}", encoded=True)
    options: dict[str, Any] = {"ssl": tls, "server_hostname": sni or None} if tls else {}
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=_PATIENCE)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, url, headers=headers, allow_redirects=False, **options) as response,
        ):
            text = await response.read()
            return Got(response.status, list(response.headers.items()), _echo(text))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Got(0, error=type(error).__name__)


def _echo(text: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(text)
    except ValueError:
        return None
    return body if isinstance(body, dict) and "pod" in body else None


async def http2(port: int, path: str, host: str, *, tls: bool = False, sni: str = "") -> Got:
    """One GET of HTTP/2: with prior knowledge, or by ALPN."""
    name = sni or "localhost"
    argv = ["curl", "-s", "-S", "-i", "-m", str(_PATIENCE), "-H", f"Host: {host}", "--connect-to", f"{name}:{port}:{HOST}:{port}"]
    argv += (
        ["--http2", "-k", f"https://{name}:{port}{path}"] if tls else ["--http2-prior-knowledge", f"http://{name}:{port}{path}"]
    )
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await child.communicate()
    if child.returncode:
        return Got(0, error=err.decode().strip())
    head, _, body = out.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Got(int(first.split()[1]), pairs, _echo(body))


async def websocket(port: int, path: str) -> str:
    """What comes back for a word over WebSocket; what went wrong otherwise."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE)) as session,
            session.ws_connect(f"ws://{HOST}:{port}{path}") as there,
        ):
            await there.send_str("word")
            return str((await there.receive(_PATIENCE)).data)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return type(error).__name__


async def grpc_call(port: int, method: str, authority: str, metadata: Mapping[str, str]) -> tuple[str, Any]:
    """A unary call: the name of its status, and the assertions of the pod that answered."""
    options = [("grpc.default_authority", authority)] if authority else []
    request = tuple((name.lower(), value) for name, value in metadata.items())
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=options) as channel:
        call = channel.unary_unary(
            f"/{echo_grpc.SERVICE}/{method}", response_deserializer=echo_grpc.MESSAGES["EchoResponse"].FromString
        )
        try:
            answer = await call(b"", metadata=request, timeout=_PATIENCE)
        except grpc.aio.AioRpcError as error:
            return error.code().name, None
        return "OK", answer.assertions


async def line(port: int, tls: ssl.SSLContext | None = None, sni: str = "") -> dict[str, Any]:
    """What the pod behind TCP or TLS says to one line; `{error: ...}` where nobody does."""
    options: dict[str, Any] = {"ssl": tls, "server_hostname": sni} if tls else {}
    writer = None
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(HOST, port, **options)
            writer.write(b"word\n")
            answer = await reader.readline()
    except (OSError, TimeoutError) as error:
        return {"error": type(error).__name__}
    finally:
        if writer is not None:
            writer.close()
    return _echo(answer) or {"error": "closed" if not answer else "no echo"}


async def datagram(port: int) -> str:
    """The pod that answers a DNS question over UDP; "" where none does in a second."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.connect((HOST, port))
        try:
            async with asyncio.timeout(1):
                await loop.sock_sendall(one, echo_l4.question("foo.bar.com", 7))
                return echo_l4.answered(await loop.sock_recv(one, 512), 7) or ""
        except (OSError, TimeoutError):
            return ""
