"""Mutual TLS as a real Envoy does it with these resources: one sidecar in `proxy` capture calls itself through the mesh."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.support.ads import Ads, serving
from tests.support.certificates import Roots
from tests.support.envoy import Proxy, running
from tests.support.mesh import free_port
from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.core.envoy.clusters import encode_cluster, encode_workload_clusters
from tulle.core.envoy.endpoints import encode_endpoints
from tulle.core.envoy.listeners import encode_workload
from tulle.core.envoy.routes import encode_host, encode_table
from tulle.core.envoy.secrets import encode_bundle, encode_certificate
from tulle.core.model.destination import Destination, DestinationKey, Endpoint, EndpointSet, Transport
from tulle.core.model.route import Abort, Delay, Route, RouteTableKey, VirtualHost, WeightedDestination
from tulle.core.model.service import Protocol
from tulle.core.model.workload import Capture, InboundPort, MtlsMode, ProxyPorts, Workload

IDENTITY = "spiffe://cluster.local/ns/default/sa/a"
SERVICE = DestinationKey("a.default.svc.cluster.local", 80)
TABLE = RouteTableKey(0, "default")


@dataclass
class Sidecar:
    """A workload, its proxy and what serves it."""

    workload: Workload
    ads: Ads
    proxy: Proxy
    roots: Roots

    async def call(self, url: str) -> tuple[int, str]:
        """As the application would, with `http_proxy` set."""
        through = f"http://127.0.0.1:{self.workload.ports.outbound}"
        async with aiohttp.ClientSession() as session, session.get(url, proxy=through) as reply:
            return reply.status, await reply.text()

    async def plaintext(self) -> tuple[int, str]:
        """As somebody without a sidecar."""
        port = self.workload.inbound[0].port
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/direct") as reply:
            return reply.status, await reply.text()

    async def handshake(self, roots: Roots, identity: str, alpn: list[str], scratch: Path) -> ssl.SSLObject:
        """As a TLS client with a certificate of `roots`; raises where it is refused."""
        chain, key = roots.leaf(identity)
        (scratch / "client.pem").write_bytes(chain + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.roots.pem.decode())
        context.load_cert_chain(scratch / "client.pem")
        context.set_alpn_protocols(alpn)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.workload.inbound[0].port, ssl=context)
        # In TLS 1.3 a refusal of the client's certificate comes after the client's handshake.
        writer.write(b"GET /tls HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        writer.close()
        assert status.startswith(b"HTTP/1.1 200"), status
        return found


@asynccontextmanager
async def sidecar(mode: MtlsMode, transport: Transport, scratch: Path, *, http2: bool = False) -> AsyncIterator[Sidecar]:
    async def echo(request: web.Request) -> web.StreamResponse:
        if request.path == "/websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(f"heard {message.data}")
            return socket
        return web.Response(text=f"{request.path} {request.headers.get('x-forwarded-client-cert', 'nobody')}")

    application = web.Application()
    application.router.add_get("/{path:.*}", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    app_port = free_port()
    await web.TCPSite(runner, "127.0.0.1", app_port).start()
    port = free_port()
    roots = Roots()
    workload = Workload(
        id="default/a",
        namespace="default",
        name="a",
        identity=IDENTITY,
        address="127.0.0.1",
        capture=Capture.PROXY,
        ports=ProxyPorts(outbound=free_port()),
        inbound=(InboundPort(port, app_port, Protocol.HTTP, mode),),
    )
    endpoint = Endpoint("127.0.0.1", port, "default/a", mtls=transport is not Transport.PLAINTEXT)
    try:
        async with serving(scratch / "xds.sock") as ads:
            ads.put(
                [
                    *encode_workload(workload),
                    *encode_workload_clusters(workload),
                    encode_cluster(Destination(SERVICE, True, http2, transport=transport, identities=(IDENTITY,))),
                    encode_endpoints(EndpointSet(SERVICE, (endpoint,))),
                    encode_table(TABLE),
                    encode_host(TABLE, VirtualHost("a", ("a", "a:80"), (Route(destinations=(WeightedDestination(SERVICE),)),))),
                    encode_certificate("default", *roots.leaf(IDENTITY)),
                    encode_bundle("ROOTCA", roots.pem),
                ]
            )
            options = Options(
                node_id="default/a",
                cluster="a.default",
                xds_socket=str(scratch / "xds.sock"),
                admin_socket=str(scratch / "admin.sock"),
                health_port=0,
                metrics_port=0,
            )
            async with running(bootstrap(options), scratch) as proxy:
                await proxy.until("/ready", "LIVE")
                yield Sidecar(workload, ads, proxy, roots)
            assert ads.nacks == []
    finally:
        await runner.cleanup()


async def test_strict(tmp_path: Path) -> None:
    """Broken: the mesh would not encrypt, plaintext or strangers would get in, or the application not know its caller."""
    async with sidecar(MtlsMode.STRICT, Transport.MTLS, tmp_path) as one:
        status, text = await one.call("http://a/mesh")
        assert (status, text.split()[0]) == (200, "/mesh")
        assert f"URI={IDENTITY}" in text
        stats = await one.proxy.admin("/stats?filter=ssl.handshake|downstream_cx_total")
        assert "ssl.handshake: " in stats
        with pytest.raises(aiohttp.ClientError):
            await one.plaintext()
        seen = await one.handshake(one.roots, "spiffe://cluster.local/ns/b/sa/b", [], tmp_path)
        assert dict(seen.getpeercert() or {})["subjectAltName"] == (("URI", IDENTITY),)
        assert seen.version() == "TLSv1.3"
        for roots, identity in (
            (Roots(), "spiffe://cluster.local/ns/b/sa/b"),
            (one.roots, "spiffe://elsewhere/ns/b/sa/b"),
            (one.roots, "spiffe://cluster.local/node/host"),
        ):
            with pytest.raises((OSError, AssertionError)):
                await one.handshake(roots, identity, ["istio"], tmp_path)


async def test_permissive(tmp_path: Path) -> None:
    """Broken: callers without a sidecar would be cut off, or callers with one would fall back to plaintext."""
    async with sidecar(MtlsMode.PERMISSIVE, Transport.MIXED, tmp_path) as one:
        assert f"URI={IDENTITY}" in (await one.call("http://a/mesh"))[1]
        assert await one.plaintext() == (200, "/direct nobody")
        seen = await one.handshake(one.roots, "spiffe://cluster.local/ns/b/sa/b", ["istio"], tmp_path)
        assert dict(seen.getpeercert() or {})["subjectAltName"] == (("URI", IDENTITY),)


async def test_disabled(tmp_path: Path) -> None:
    """Broken: a workload that opted out could not be called."""
    async with sidecar(MtlsMode.DISABLE, Transport.PLAINTEXT, tmp_path) as one:
        assert (await one.call("http://a/mesh"))[1] == "/mesh nobody"
        assert (await one.plaintext())[0] == 200


async def test_another_service_is_not_believed(tmp_path: Path) -> None:
    """Broken: whoever has any certificate of the mesh could answer for a service."""
    async with sidecar(MtlsMode.STRICT, Transport.MTLS, tmp_path) as one:
        other = Destination(SERVICE, http=True, transport=Transport.MTLS, identities=(IDENTITY + "-other",))
        one.ads.put(
            [
                encode_cluster(other),
                encode_endpoints(EndpointSet(SERVICE, (Endpoint("127.0.0.1", one.workload.inbound[0].port),))),
            ]
        )
        await one.ads.quiet()
        await one.proxy.until("/config_dump", IDENTITY + "-other")
        assert (await one.call("http://a/mesh"))[0] == 503


async def test_certificates_rotate_under_load(tmp_path: Path) -> None:
    """Broken: a rotation would fail requests, or the new certificate never be shown."""
    async with sidecar(MtlsMode.STRICT, Transport.MTLS, tmp_path) as one:
        before = await one.handshake(one.roots, IDENTITY, [], tmp_path)
        done = asyncio.Event()

        async def load() -> set[int]:
            seen = set()
            while not done.is_set():
                seen.add((await one.call("http://a/mesh"))[0])
            return seen

        loading = asyncio.create_task(load())
        for _ in range(5):
            one.ads.put([encode_certificate("default", *one.roots.leaf(IDENTITY))])
            await one.ads.quiet()
        after = await one.handshake(one.roots, IDENTITY, [], tmp_path)
        done.set()
        assert await loading == {200}
        assert before.getpeercert(binary_form=True) != after.getpeercert(binary_form=True)


async def test_unknown_hosts_hear_why(tmp_path: Path) -> None:
    """Broken: an application whose `http_proxy` is the sidecar would get an empty 404 for a mistyped name."""
    async with sidecar(MtlsMode.STRICT, Transport.MTLS, tmp_path) as one:
        status, text = await one.call("http://nowhere.example/")
        assert status == 502
        assert "nowhere.example has no route in this mesh" in text
        one.ads.put([encode_host(TABLE, VirtualHost("allow_any", ("*",), passthrough=True))])
        await one.ads.quiet()
        status, text = await one.call("http://nowhere.example/")
        assert status == 502
        assert "nowhere.example is not a service of this mesh" in text


async def test_faults(tmp_path: Path) -> None:
    """Broken: fault injection would not happen, or happen to everybody."""
    async with sidecar(MtlsMode.STRICT, Transport.MTLS, tmp_path) as one:
        to = (WeightedDestination(SERVICE),)
        for fault, status, least in (
            (Route(destinations=to, abort=Abort(555)), 555, 0.0),
            (Route(destinations=to, delay=Delay(0.3)), 200, 0.3),
            (Route(destinations=to, delay=Delay(0.3, 0.0), abort=Abort(555, 0.0)), 200, 0.0),
        ):
            one.ads.put([encode_host(TABLE, VirtualHost("a", ("a",), (fault,)))])
            await one.ads.quiet()
            begun = asyncio.get_running_loop().time()
            assert (await one.call("http://a/mesh"))[0] == status
            # Envoy counts from when it last looked at the clock, which may be a few milliseconds before the request.
            assert asyncio.get_running_loop().time() - begun >= least - 0.02


async def test_websockets_cross_the_mesh(tmp_path: Path) -> None:
    """Broken: an upgrade would be lost in the HTTP/2 between the sidecars."""
    async with sidecar(MtlsMode.STRICT, Transport.MTLS, tmp_path) as one:
        through = f"http://127.0.0.1:{one.workload.ports.outbound}/websocket"
        async with aiohttp.ClientSession() as session, session.ws_connect(through, headers={"Host": "a"}) as socket:
            await socket.send_str("me")
            assert (await socket.receive(timeout=5)).data == "heard me"
