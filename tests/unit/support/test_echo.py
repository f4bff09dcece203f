"""The echo server, asked by clients that we did not write."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc.aio
import pytest

from tests.support import echo_grpc, echo_l4, echo_tls
from tests.support.apiserver import Ca
from tests.support.echo import Echo, Pod
from tests.support.mesh import free_port


@pytest.fixture
async def served() -> AsyncIterator[tuple[Echo, dict[str, int], Ca]]:
    """A pod that listens on everything."""
    ca = Ca()
    certificate, key = ca.issue("server", hosts=["abc.example.com"])
    echo = Echo(Pod("infra-1", "infra", "infra"), echo_tls.context(certificate, key, ca.pem))
    ports = {name: free_port() for name in ("http", "h2c", "https", "tcp", "tcp_tls", "udp")}
    await echo.start("127.0.0.1", **ports)
    yield echo, ports, ca
    echo.stop()


async def _get(url: str, **options: Any) -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, **options) as response:
        text = await response.text()
        return response.status, response.headers, json.loads(text) if text.startswith("{") else text


async def test_a_request_is_told(served: tuple[Echo, dict[str, int], Ca]) -> None:
    """No row of the suite could be judged."""
    echo, ports, _ = served
    headers = {"Host": "example.com:80", "x-header-set": "a", "X-Echo-Set-Header": "One:1, Two:2,One:3"}
    status, answered, body = await _get(f"http://127.0.0.1:{ports['http']}/a?b=c", headers=headers)
    assert (status, answered["One"], answered["Two"]) == (200, "1,3", "2")
    assert body["headers"]["X-Header-Set"] == ["a"]
    told = {name: body[name] for name in ("path", "host", "method", "proto", "namespace", "pod", "service")}
    assert list(told.values()) == ["/a?b=c", "example.com:80", "GET", "HTTP/1.1", "infra", "infra-1", "infra"]
    assert [one.path for one in echo.seen] == ["/a?b=c"]


async def test_statuses_delays_and_retries(served: tuple[Echo, dict[str, int], Ca]) -> None:
    """Rows of timeouts and retries would prove nothing."""
    _, ports, _ = served
    base = f"http://127.0.0.1:{ports['http']}"
    assert (await _get(f"{base}/status/418"))[0] == 418
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await _get(f"{base}/?delay=50ms"))[0] == 200
    assert loop.time() - began >= 0.05
    twice = f"{base}/retry/a?uuid=x&responseCode=503&succeedAfter=2"
    assert [(await _get(twice))[0] for _ in range(3)] == [503, 503, 200]
    with pytest.raises(aiohttp.ClientError):
        await _get(f"{base}/retry/a?uuid=y&succeedAfter=9")


async def test_tls_is_told(served: tuple[Echo, dict[str, int], Ca]) -> None:
    """A policy for TLS to backends would pass whatever the gateway sends."""
    _, ports, ca = served
    client = ssl.create_default_context(cadata=ca.pem.decode())
    mine, key = ca.issue("client")
    ca.load(client, mine, key)
    url = f"https://127.0.0.1:{ports['https']}/"
    _, _, body = await _get(url, ssl=client, server_hostname="abc.example.com")
    assert body["tls"]["serverName"] == "abc.example.com"
    assert [one.strip() for one in body["tls"]["peerCertificates"]] == [mine.decode().strip()]


async def test_websocket(served: tuple[Echo, dict[str, int], Ca]) -> None:
    """WebSocket's row would prove nothing."""
    _, ports, _ = served
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{ports['http']}/ws") as there:
        await there.send_str("hello")
        assert (await there.receive()).data == "hello"


async def test_h2c(served: tuple[Echo, dict[str, int], Ca]) -> None:
    """curl's HTTP/2 is understood without TLS, a body included."""
    _, ports, _ = served
    argv = ["curl", "-s", "--http2-prior-knowledge", "-d", "body", f"http://127.0.0.1:{ports['h2c']}/x"]
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    body = json.loads(out)
    assert (body["proto"], body["method"], body["path"]) == ("HTTP/2.0", "POST", "/x")


async def test_grpc(served: tuple[Echo, dict[str, int], Ca]) -> None:
    """grpcio gets the pod, its own metadata back, and the status of an unknown method."""
    _, ports, _ = served
    options = [("grpc.default_authority", "foo.bar.com")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['h2c']}", options=options) as channel:
        decode = echo_grpc.MESSAGES["EchoResponse"].FromString
        call = channel.unary_unary(f"/{echo_grpc.SERVICE}/Echo", response_deserializer=decode)
        said = (await call(b"", metadata=(("version", "two"),))).assertions
        assert (said.context.pod, said.authority) == ("infra-1", "foo.bar.com")
        assert ("version", "two") in [(one.key, one.value) for one in said.headers]
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary(f"/{echo_grpc.SERVICE}/EchoThree")(b"")
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_lines_and_datagrams(served: tuple[Echo, dict[str, int], Ca]) -> None:
    """TCP, TLS and UDP routes could not be followed to a pod."""
    _, ports, ca = served
    client = ssl.create_default_context(cadata=ca.pem.decode())
    for port, options in ((ports["tcp"], {}), (ports["tcp_tls"], {"ssl": client, "server_hostname": "abc.example.com"})):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)  # type: ignore[arg-type]
        writer.write(b"ping\n")
        assert json.loads(await reader.readline())["request"] == "ping"
        writer.close()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.connect(("127.0.0.1", ports["udp"]))
        await loop.sock_sendall(one, echo_l4.question("foo.bar.com", 7))
        assert echo_l4.answered(await loop.sock_recv(one, 512), 7) == "infra-1"
