"""Certificates of a real gateway become others while it serves."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.gateways import ROOTS, Gateways, context, listener, number, object_, pem, route, secret, serial, shaken
from tests.support.mesh import free_port


def test_a_renewed_certificate_fails_no_request(gateways: Gateways) -> None:
    """Each renewal would cut connections, or need a restart of the gateway."""
    port = free_port()
    pairs = [ROOTS.server("shop.example") for _ in range(4)]
    gateways.apply(
        secret("shop", pem(pairs[0])),
        object_(
            "Gateway", "renewed", {"gatewayClassName": "tulle", "listeners": [listener("shop", port, "shop.example", "shop")]}
        ),
        route("renewed"),
    )
    asyncio.run(_renew(gateways, port, pairs))


async def _renew(gateways: Gateways, port: int, pairs: list[tuple[bytes, bytes]]) -> None:
    statuses: list[int | str] = []
    made: list[int] = []
    done = asyncio.Event()

    async def load(keep: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not keep, ssl=context())
        async with aiohttp.ClientSession(connector=connector, trace_configs=[counted(made)] if keep else []) as session:
            while not done.is_set():
                try:
                    url = f"https://127.0.0.1:{port}/static/bookinfo.css"
                    async with session.get(url, server_hostname="shop.example", headers={"host": "shop.example"}) as answer:
                        await answer.read()
                        statuses.append(answer.status)
                except (aiohttp.ClientError, OSError) as error:
                    statuses.append(repr(error))

    workers = [asyncio.create_task(load(keep)) for keep in (True, True, False, False)]
    try:
        for pair in pairs[1:]:
            before = len(statuses)
            await asyncio.to_thread(gateways.apply, secret("shop", pem(pair)))
            async with asyncio.timeout(60):
                while number(await shaken(port, "shop.example", context())) != serial(pair):
                    pass
                while len(statuses) < before + 200:
                    await shaken(port, "shop.example", context())
    finally:
        done.set()
        await asyncio.gather(*workers)
    assert set(statuses) == {200}, [one for one in statuses if one != 200][:5]
    assert len(statuses) > 600
    assert len(made) == 2, "connections that are kept outlive every renewal"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may look into. Those of pytest are not: each session that begins closes them all to others."""
    with tempfile.TemporaryDirectory(prefix="tulle-certificates-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_certificates_from_files(gateways: Gateways, folder: Path) -> None:
    """A certificate on the gateway's disk would not be served, or not the renewed one; a missing one would block the others."""
    port = free_port()

    def write(pair: tuple[bytes, bytes]) -> None:
        for name, data in zip(("tls.crt", "tls.key"), pair, strict=True):
            (folder / f"new-{name}").write_bytes(data)
            (folder / f"new-{name}").chmod(0o644)
            (folder / f"new-{name}").rename(folder / name)

    first, second = ROOTS.server("shop.example"), ROOTS.server("shop.example")
    write(first)
    servers = [
        {
            "port": {"number": port, "name": name, "protocol": "HTTPS"},
            "hosts": [host],
            "tls": {"mode": "SIMPLE", "serverCertificate": f"{where}/tls.crt", "privateKey": f"{where}/tls.key"},
        }
        for name, host, where in (("shop", "shop.example", folder), ("missing", "missing.example", "/nowhere"))
    ]
    http = [{"route": [{"destination": {"host": "productpage", "port": {"number": 9080}}}]}]
    gateways.apply(
        object_("Gateway", "files", {"selector": {"istio": "ingressgateway"}, "servers": servers}, "networking.istio.io"),
        object_(
            "VirtualService", "files", {"hosts": ["shop.example"], "gateways": ["files"], "http": http}, "networking.istio.io"
        ),
    )

    asyncio.run(_from_files(port, lambda: write(second), first, second))


async def _from_files(port: int, renew: Callable[[], None], first: tuple[bytes, bytes], second: tuple[bytes, bytes]) -> None:
    async with asyncio.timeout(60):
        while not await _open(port):  # noqa: ASYNC110 - Envoy waits a moment for the certificate that is missing
            await asyncio.sleep(0.05)
    assert number(await shaken(port, "shop.example", context())) == serial(first)
    made: list[int] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context()), trace_configs=[counted(made)]) as kept:
        await _get(kept, port)
        renew()
        async with asyncio.timeout(60):
            while number(await shaken(port, "shop.example", context())) != serial(second):
                await _get(kept, port)
        await _get(kept, port)
    assert len(made) == 1, "the renewal cut a connection"


async def _open(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def _get(session: aiohttp.ClientSession, port: int) -> None:
    """A request, which is answered."""
    url = f"https://127.0.0.1:{port}/static/bookinfo.css"
    async with session.get(url, server_hostname="shop.example", headers={"host": "shop.example"}) as answer:
        await answer.read()
        assert answer.status == 200


def counted(made: list[int]) -> aiohttp.TraceConfig:
    """Tells of each connection that a session makes."""
    traced = aiohttp.TraceConfig()

    async def one_more(*_: Any) -> None:
        made.append(1)

    traced.on_connection_create_end.append(one_more)
    return traced
