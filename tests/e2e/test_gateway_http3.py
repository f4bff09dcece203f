"""HTTP/3 at a real gateway, with a real client of it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.support.gateways import ROOTS, Gateways, curl, listener, object_, pem, route, secret, serial
from tests.support.http3 import http3
from tests.support.mesh import free_port

HOSTS = ("shop.example", "pay.example")


def test_http3(gateways: Gateways, tmp_path: Path) -> None:
    """Who asked for HTTP/3 would not be told of it, or not get it, or with another host's certificate, or an old one."""
    port, without = free_port(), free_port()
    pairs = {host: ROOTS.server(host) for host in HOSTS}
    listeners = [listener(host.partition(".")[0], port, host, host) for host in HOSTS]
    asks = object_("Gateway", "h3", {"gatewayClassName": "tulle", "listeners": listeners})
    asks["metadata"]["annotations"] = {"tulle.dev/http3": "true"}
    plain = {"gatewayClassName": "tulle", "listeners": [listener("shop", without, "shop.example", "shop.example")]}
    gateways.apply(
        *(secret(host, pem(pair)) for host, pair in pairs.items()),
        asks,
        route("h3"),
        object_("Gateway", "plain", plain),
        route("plain"),
    )
    roots = tmp_path / "roots.pem"
    roots.write_bytes(ROOTS.pem)
    at = ["--cacert", str(roots), "--connect-to", "::127.0.0.1:", "-o", "/dev/null", "-D", "-"]
    for version in ("--http1.1", "--http2"):
        for path in ("/productpage", "/nowhere"):
            assert f'alt-svc: h3=":{port}"; ma=86400' in curl(*at, version, f"https://shop.example:{port}{path}")
    assert "alt-svc" not in curl(*at, f"https://shop.example:{without}/productpage")
    with socket.socket(type=socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", without))  # nobody asked for it, and nobody listens
    asyncio.run(_by_http3(gateways, port, pairs))
    asyncio.run(_policies(gateways, port))


async def _policies(gateways: Gateways, port: int) -> None:
    """Policies hold for what comes by QUIC: hosts, paths in every form, headers, and where it comes from."""
    rules = [
        {"to": [{"operation": {"hosts": ["pay.example"], "paths": ["/productpage"]}}]},
        {"when": [{"key": "request.headers[x-role]", "values": ["admin"]}]},
        {"from": [{"source": {"notRemoteIpBlocks": ["127.0.0.1"]}}]},
        {"from": [{"source": {"principals": ["*"]}}]},
    ]
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "h3"}
    spec = {"targetRefs": [target], "action": "DENY", "rules": rules}
    policy = object_("AuthorizationPolicy", "h3", spec, "security.istio.io")
    await asyncio.to_thread(gateways.apply, policy)
    async with http3(port, "pay.example", ROOTS.pem) as client:
        forms = ("/productpage", "//productpage", "/%2fproductpage", "/./productpage", "/x/../productpage", "/PRODUCTPAGE")
        assert [(await client.get("pay.example", path))[0][":status"] for path in forms] == ["403"] * len(forms)
        assert (await client.get("PAY.example:443", "/productpage"))[0][":status"] == "403"
        assert (await client.get("pay.example", "/static/nothing"))[0][":status"] == "404"
    async with http3(port, "shop.example", ROOTS.pem) as client:
        assert (await client.get("shop.example", "/productpage"))[0][":status"] == "200"
        asked = {"x-role": "admin"}
        assert (await client.get("shop.example", "/productpage", **asked))[0][":status"] == "403"


async def _by_http3(gateways: Gateways, port: int, pairs: dict[str, tuple[bytes, bytes]]) -> None:
    for host, pair in pairs.items():
        async with http3(port, host, ROOTS.pem) as client:
            assert client.serial == serial(pair)
            headers, body = await client.get(host, "/productpage")
            assert headers[":status"] == "200"
            assert b"Comedy of Errors" in body
            assert (await client.get(next(one for one in HOSTS if one != host), "/productpage"))[0][":status"] == "421"
    async with http3(port, "shop.example", ROOTS.pem) as kept:
        assert kept.serial == serial(pairs["shop.example"])
        renewed = ROOTS.server("shop.example")
        await asyncio.to_thread(gateways.apply, secret("shop.example", pem(renewed)))
        async with http3(port, "shop.example", ROOTS.pem) as client:
            assert client.serial == serial(renewed)
        assert (await kept.get("shop.example", "/productpage"))[0][":status"] == "200", "the renewal cut it"
    with pytest.raises(ConnectionError):
        async with http3(port, "other.example", ROOTS.pem, silence=2.0):
            pass
