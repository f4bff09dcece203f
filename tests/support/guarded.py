"""A workload behind a real Envoy that follows a pipeline: policies are applied, and requests come as bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections import ChainMap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ads import Ads, serving
from tests.support.certificates import Roots
from tests.support.envoy import Proxy, running
from tests.support.mesh import free_port
from tests.unit.core.compile.mesh import changes, entry, obj, service
from tulle.api.object import Object
from tulle.core import type_urls
from tulle.core.encoded import Published
from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.core.envoy.secrets import encode_bundle, encode_certificate
from tulle.core.pipeline import Pipeline


def policy(name: str, spec: dict[str, Any], namespace: str = "default", **notes: str) -> Object:
    """An AuthorizationPolicy; `notes` are annotations of Istio (with `_` for `-`)."""
    annotations = {f"istio.io/{key.replace('_', '-')}": value for key, value in notes.items()}
    metadata = {"name": name, "namespace": namespace, "annotations": annotations}
    return obj({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec})


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An application that answers each request with its first line and headers; and anything else by its first bytes."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(head), head))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _answered(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status of an answer, and all of it."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(one[15:]) for one in head.lower().split(b"\r\n") if one.startswith(b"content-length:")), 0)
    return int(head.split(b" ")[1]), head + await reader.readexactly(length)


@dataclass
class Guarded:
    """The workload `web` with the ports `http` and `tcp`, PERMISSIVE."""

    pipeline: Pipeline
    ads: Ads
    proxy: Proxy
    roots: Roots
    scratch: Path
    http: int
    tcp: int
    proxy_id: str = "default/web"
    there: set[Any] = field(default_factory=set)
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[str, ...]:
        """What the proxy sees."""
        return self.pipeline.layers(self.proxy_id)

    async def apply(self, *objects: Object) -> None:
        """These objects beside the workload, instead of those before."""
        batch = changes(objects)
        gone = self.there - set(batch)
        self.there = set(batch)
        await self.take(self.pipeline.commit({**dict.fromkeys(gone), **batch}))

    async def take(self, published: Published) -> None:
        """What a commit changed, to Envoy; until it has it."""
        for url in type_urls.ORDER:
            names = [name for layer in self.layers for name in published.changed.get(layer, {}).get(url, {})]
            there = ChainMap(*(dict(self.pipeline.table(layer, url)) for layer in reversed(self.layers)))
            self.ads.put(there[name] for name in names if name in there)
        await self.ads.quiet()
        listeners = [one for layer in self.layers for one in self.pipeline.table(layer, type_urls.LISTENER).values()]
        wanted = {name for one in listeners for url, name in one.refs if url == type_urls.EXTENSION}
        await self.ads.until(lambda ads: wanted <= ads.subscribed[type_urls.EXTENSION])
        await self.ads.quiet()
        assert self.ads.nacks == [], self.ads.nacks

    def context(self, identity: str) -> ssl.SSLContext:
        """TLS as a sidecar of that identity does it."""
        if identity not in self.contexts:
            chain, key = self.roots.leaf(identity)
            file = self.scratch / f"client{len(self.contexts)}.pem"
            file.write_bytes(chain + key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(cadata=self.roots.pem.decode())
            context.load_cert_chain(file)
            context.set_alpn_protocols(["istio"])
            self.contexts[identity] = context
        return self.contexts[identity]

    async def connected(self, port: int, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(20):
            try:
                wait = 5.0 if context else None
                return await asyncio.open_connection("127.0.0.1", port, ssl=context, ssl_handshake_timeout=wait)
            except (ssl.SSLError, ConnectionError):
                # On a busy machine the hello comes after PERMISSIVE has stopped to wait for one, and is taken for plaintext.
                continue
        raise AssertionError(f"no handshake at port {port}")

    async def raw(self, request: bytes, identity: str = "", port: int = 0) -> tuple[int, bytes]:
        """Bytes to a port; the status of the answer (0: the connection was closed) and all of it."""
        reader, writer = await self.connected(port or self.http, self.context(identity) if identity else None)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                return await _answered(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""
        finally:
            writer.close()

    @asynccontextmanager
    async def caller(self, identity: str = "") -> AsyncIterator[Caller]:
        """Somebody who asks at the port `http`, as long as the block lasts."""
        caller = Caller(self, identity)
        try:
            yield caller
        finally:
            caller.close()

    async def answers(self, request: bytes) -> list[bytes]:
        """All that is answered to bytes in plaintext, until the proxy closes or is silent; told apart by their first lines."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.http)
        found = b""
        writer.write(request)
        with suppress(TimeoutError, ConnectionError):
            while data := await asyncio.wait_for(reader.read(65536), 2 if not found else 0.2):
                found += data
        writer.close()
        return [b"HTTP/1.1 " + one for one in found.split(b"HTTP/1.1 ") if one[:3].isdigit()]

    async def get(
        self, path: str = "/", identity: str = "", port: int = 0, *lines: str, method: str = "GET", host: str = "web"
    ) -> int:
        """The status of a request."""
        text = "\r\n".join((f"{method} {path} HTTP/1.1", f"host: {host}", *lines, "", ""))
        return (await self.raw(text.encode("latin-1"), identity, port))[0]


@dataclass
class Caller:
    """Somebody who keeps his connection for the next request, as long as the proxy does."""

    web: Guarded
    identity: str
    stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def status(self, request: bytes) -> int:
        """The status of the answer to a request (0: the connection was closed, and a new one too)."""
        while True:
            kept = self.stream
            if kept is None:
                context = self.web.context(self.identity) if self.identity else None
                self.stream = await self.web.connected(self.web.http, context)
            assert self.stream is not None
            reader, writer = self.stream
            try:
                writer.write(request)
                async with asyncio.timeout(10):
                    status, answer = await _answered(reader)
                if b"\r\nconnection: close\r\n" in answer.lower():
                    self.close()
                return status
            except (asyncio.IncompleteReadError, ConnectionError):
                self.close()
                if kept is None:
                    return 0

    def close(self) -> None:
        """Ask over another connection from here on."""
        if self.stream is not None:
            self.stream[1].close()
        self.stream = None


Application = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def guarded(scratch: Path, application: Application = _answer) -> AsyncIterator[Guarded]:
    """The workload, its application and its Envoy."""
    server = await asyncio.start_server(application, "127.0.0.1", 0)
    app = int(server.sockets[0].getsockname()[1])
    http, tcp = free_port(), free_port()
    web = entry(
        "web",
        "127.0.0.1",
        {"app": "web"},
        account="web",
        ports={"http": http, "tcp": tcp},
        capture="proxy",
        app_ports=f'{{"{http}": {app}, "{tcp}": {app}}}',
        proxy_ports=f'{{"outbound": {free_port()}}}',
    )
    ports = ({"port": 80, "name": "http"}, {"port": 81, "name": "tcp", "appProtocol": "tcp"})
    try:
        async with _following(
            scratch, "default/web", [web, service("web", ports=ports, address="240.240.7.1")], http, tcp
        ) as one:
            yield one
    finally:
        server.close()


def _of_istio(kind: str, name: str, spec: dict[str, Any], namespace: str = "tulle-system") -> Object:
    metadata = {"name": name, "namespace": namespace}
    return obj({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec})


@asynccontextmanager
async def guarded_gateway(scratch: Path) -> AsyncIterator[Guarded]:
    """A gateway before an application. It knows its callers at the port `tcp` (mutual TLS of the mesh), and not at `http`."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    app = int(server.sockets[0].getsockname()[1])
    http, tcp = free_port(), free_port()
    servers = [
        {"port": {"number": http, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
        {"port": {"number": tcp, "name": "https", "protocol": "HTTPS"}, "tls": {"mode": "ISTIO_MUTUAL"}, "hosts": ["*"]},
    ]
    backend = {"host": "app.default.svc.cluster.local"}
    objects = [
        entry("gate", "127.0.0.1", {"istio": "ingressgateway"}, "tulle-system", "gate", capture="none"),
        service("app", ports=({"port": 80, "name": "http", "targetPort": app},), address="240.240.7.2"),
        _of_istio("WorkloadEntry", "app", {"address": "127.0.0.1", "labels": {"app": "app"}}, "default"),
        _of_istio("Gateway", "gate", {"selector": {"istio": "ingressgateway"}, "servers": servers}),
        _of_istio(
            "VirtualService", "all", {"hosts": ["*"], "gateways": ["gate"], "http": [{"route": [{"destination": backend}]}]}
        ),
    ]
    try:
        async with _following(scratch, "tulle-system/gate", objects, http, tcp) as one:
            yield one
    finally:
        server.close()


@asynccontextmanager
async def _following(scratch: Path, proxy_id: str, objects: list[Object], http: int, tcp: int) -> AsyncIterator[Guarded]:
    """An Envoy that has what a pipeline of these objects has for a proxy."""
    roots, pipeline = Roots(), Pipeline()
    pipeline.commit(changes(objects))
    namespace, _slash, name = proxy_id.partition("/")
    options = Options(
        node_id=proxy_id,
        cluster=f"{name}.{namespace}",
        xds_socket=str(scratch / "xds.sock"),
        admin_socket=str(scratch / "admin.sock"),
        health_port=0,
        metrics_port=0,
    )
    async with serving(scratch / "xds.sock") as ads:
        own = encode_certificate("default", *roots.leaf(f"spiffe://cluster.local/ns/{namespace}/sa/{name}"))
        ads.put([own, encode_bundle("ROOTCA", roots.pem)])
        tables = [pipeline.table(layer, url) for layer in pipeline.layers(proxy_id) for url in type_urls.ORDER]
        ads.put(one for table in tables for one in table.values() if one.type_url != type_urls.NAME)
        async with running(bootstrap(options), scratch) as proxy:
            await proxy.until("/ready", "LIVE")
            yield Guarded(pipeline, ads, proxy, roots, scratch, http, tcp, proxy_id)
