"""A real Envoy as judge of what a request becomes: our listeners and virtual hosts, and an upstream that tells what it got."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import msgspec

from tests.support.ads import Ads, serving
from tests.support.envoy import Proxy, running
from tests.support.mesh import free_port
from tulle.core import type_urls
from tulle.core.encoded import Encoded, Published, encode
from tulle.core.envoy.bootstrap import Options, bootstrap
from tulle.core.envoy.speaking import HTTP2, OPTIONS
from tulle.core.evaluate import Request
from tulle.core.model.destination import DestinationKey
from tulle.core.model.route import RouteTableKey
from tulle.pb import pack
from tulle.pb.envoy.config.accesslog.v3 import accesslog_pb2
from tulle.pb.envoy.config.cluster.v3 import cluster_pb2
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_pb2
from tulle.pb.envoy.config.route.v3 import route_components_pb2, route_pb2
from tulle.pb.envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tulle.pb.envoy.service.auth.v3 import external_auth_pb2
from tulle.pb.envoy.type.v3 import range_pb2

# The share of a weighted route that a request takes is told by the request, so that both sides draw the same; likewise the lot by
# which it takes a route that holds for a part of the requests, in millionths.
DRAW = "x-draw"
LOT = "x-lot"
ASKED = "x-asked"
# What the authorizer adds to an answer.
AUTHORIZED = "x-authorized"
AUTHORIZER = DestinationKey("authorizer", 80)
# The same by Envoy's own protocol, which also knows what to answer to CONNECT.
AUTHORIZER_BY_GRPC = DestinationKey("authorizer", 90)
BY_GRPC = "grpc"
_TOLD = {"x-route": "%ROUTE_NAME%", "x-cluster": "%UPSTREAM_CLUSTER_RAW%"}


class Seen(msgspec.Struct, frozen=True):
    """What Envoy did: `route` and `cluster` by name; `asked` is what the upstream got, None where it got nothing."""

    status: int
    route: str
    cluster: str
    headers: tuple[tuple[str, str], ...]
    asked: dict[str, Any] | None = None


def lot_of(draw: int) -> float:
    """The lot of a request with that draw."""
    return draw * 7919 % 1000 / 1000


def _told() -> list[base_pb2.HeaderValueOption]:
    return [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=name, value=value),
            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            keep_empty_value=True,
        )
        for name, value in _TOLD.items()
    ]


def bound(listener: Encoded, port: int) -> Encoded:
    """One of our listeners at a port of this machine, whose own answers tell their route too; callers of all kinds have one."""
    message = listener_pb2.Listener.FromString(listener.value)
    message.name = f"{listener.name}#{port}"
    message.address.socket_address.address = "127.0.0.1"
    message.address.socket_address.port_value = port
    message.ClearField("bind_to_port")
    for chain in message.filter_chains:
        for one in chain.filters:
            manager = http_connection_manager_pb2.HttpConnectionManager()
            if not one.typed_config.Unpack(manager):
                continue
            for mapper in manager.local_reply_config.mappers:
                mapper.headers_to_add.extend(_told())
            always = accesslog_pb2.AccessLogFilter(not_health_check_filter=accesslog_pb2.NotHealthCheckFilter())
            manager.local_reply_config.mappers.append(
                http_connection_manager_pb2.ResponseMapper(filter=always, headers_to_add=_told())
            )
            one.typed_config.CopyFrom(pack(manager))
    return encode(type_urls.LISTENER, message.name, message.SerializeToString())


def telling(resource: Encoded) -> Encoded:
    """A table that tells route and cluster in each response; a virtual host whose routes draw by the request's word."""
    if resource.type_url == type_urls.ROUTE:
        table = route_pb2.RouteConfiguration.FromString(resource.value)
        table.response_headers_to_add.extend(_told())
        return encode(type_urls.ROUTE, resource.name, table.SerializeToString(), ((type_urls.VIRTUAL_HOST, resource.name),))
    if resource.type_url == type_urls.VIRTUAL_HOST:
        host = route_components_pb2.VirtualHost.FromString(resource.value)
        for route in host.routes:
            if route.route.HasField("weighted_clusters"):
                route.route.weighted_clusters.header_name = DRAW
            if route.match.HasField("runtime_fraction"):
                lots = range_pb2.Int64Range(start=0, end=route.match.runtime_fraction.default_value.numerator)
                route.match.ClearField("runtime_fraction")
                route.match.headers.add(name=LOT, range_match=lots)
        return encode(type_urls.VIRTUAL_HOST, resource.name, host.SerializeToString())
    return resource


def standing_in(cluster: str, port: int, *, http2: bool = False) -> Encoded:
    """A cluster of that name whose only endpoint is the upstream."""
    message = cluster_pb2.Cluster(name=cluster, type=cluster_pb2.Cluster.STATIC)
    if http2:
        message.typed_extension_protocol_options[OPTIONS].CopyFrom(HTTP2)
    message.load_assignment.cluster_name = cluster
    address = message.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = "127.0.0.1", port
    return encode(type_urls.CLUSTER, cluster, message.SerializeToString())


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, list[tuple[str, str]]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    return first, [(name.lower(), value.strip()) for name, _colon, value in (line.partition(":") for line in lines)]


async def _upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request with what it was, as JSON in a header (which also HEAD gets)."""
    try:
        while True:
            first, headers = await _read_head(reader)
            method, path, _version = first.split(" ")
            told = json.dumps({"method": method, "path": path, "headers": headers})
            # What was connected has no length.
            length = "" if method == "CONNECT" else "content-length: 0\r\n"
            writer.write(f"HTTP/1.1 200 OK\r\n{length}{ASKED}: {told}\r\n\r\n".encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _authorizer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lets everything pass, and says by which path it was asked."""
    try:
        while True:
            first, _headers = await _read_head(reader)
            asked = first.split(" ")[1].split("/")[1]
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{AUTHORIZED}: {asked}\r\n\r\n".encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _check(_request: Any, _context: Any) -> Any:
    """The same, asked by Envoy's own protocol: it says that it was."""
    answer = external_auth_pb2.CheckResponse()
    said = base_pb2.HeaderValue(key=AUTHORIZED, value=BY_GRPC)
    answer.ok_response.response_headers_to_add.add(header=said)
    return answer


@asynccontextmanager
async def _by_grpc() -> AsyncIterator[int]:
    """The port of that authorizer, while it is entered."""
    server = grpc.aio.server()
    check = grpc.unary_unary_rpc_method_handler(
        _check,
        request_deserializer=external_auth_pb2.CheckRequest.FromString,
        response_serializer=external_auth_pb2.CheckResponse.SerializeToString,
    )
    service = "envoy.service.auth.v3.Authorization"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Check": check}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@dataclass
class Judge:
    """Envoy with listeners by table. `take` gives it what a pipeline published, `ask` sends one request."""

    ads: Ads
    proxy: Proxy
    ports: dict[RouteTableKey, int]
    upstream: int
    clusters: set[str] = field(default_factory=set)

    async def take(self, published: Published, layers: Iterable[str]) -> None:
        """Hand on the virtual hosts that changed in these layers."""
        for layer in layers:
            hosts = published.changed.get(layer, {}).get(type_urls.VIRTUAL_HOST, {})
            new = [telling(one) for one in hosts.values() if one is not None]
            self.ads.resources[type_urls.VIRTUAL_HOST].update({one.name: one for one in new})
            gone = [name for name, one in hosts.items() if one is None]
            for name in gone:
                self.ads.resources[type_urls.VIRTUAL_HOST].pop(name, None)
            if new or gone:
                self.ads.send(type_urls.VIRTUAL_HOST, new, gone)
        await self.ads.quiet()
        assert self.ads.nacks == [], f"Envoy refuses what tulle sends: {self.ads.nacks}"

    async def put(self, resources: Iterable[Encoded]) -> None:
        """Hand on virtual hosts."""
        self.ads.put([telling(one) for one in resources])
        await self.ads.quiet()
        assert self.ads.nacks == [], f"Envoy refuses what tulle sends: {self.ads.nacks}"

    async def ask(self, table: RouteTableKey, requests: Iterable[tuple[Request, int]]) -> list[Seen]:
        """Send requests, each with its draw, one after the other over one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[table])
        found = []
        for request, draw in requests:
            target = request.authority if request.method == "CONNECT" else request.path
            lines = [f"{request.method} {target} HTTP/1.1", f"host: {request.authority}", f"{DRAW}: {draw}"]
            lines.append(f"{LOT}: {round(lot_of(draw) * 1_000_000)}")
            lines += [f"{name}: {value}" for name, value in request.headers]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            first, pairs = await asyncio.wait_for(_read_head(reader), 10)
            headers = dict(pairs)
            length = int(headers.get("content-length", "0"))
            if request.method != "HEAD" and not (request.method == "CONNECT" and ASKED in headers):
                await reader.readexactly(length)
            asked = json.loads(headers[ASKED]) if ASKED in headers else None
            route, cluster = ("" if headers.get(name) == "-" else headers.get(name, "") for name in _TOLD)
            found.append(Seen(int(first.split(" ")[1]), route, cluster, tuple(pairs), asked))
            # What was connected is no longer ours to ask over.
            if headers.get("connection") == "close" or request.method == "CONNECT":
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[table])
        writer.close()
        return found


@asynccontextmanager
async def judging(
    scratch: Path, resources: Iterable[Encoded], tables: Iterable[RouteTableKey], clusters: Iterable[str]
) -> AsyncIterator[Judge]:
    """An Envoy with the listeners for these tables out of `resources`, and their virtual hosts; `clusters` are stood in for."""
    server = await asyncio.start_server(_upstream, "127.0.0.1", 0)
    upstream = int(server.sockets[0].getsockname()[1])
    ports = {table: free_port() for table in tables}
    kept = []
    for one in resources:
        if one.type_url == type_urls.LISTENER:
            kept += [bound(one, ports[table]) for table in ports if (type_urls.ROUTE, table.name) in one.refs]
        elif one.type_url in (type_urls.ROUTE, type_urls.VIRTUAL_HOST):
            kept.append(telling(one))
    kept += [standing_in(name, upstream) for name in clusters]
    authorizer = await asyncio.start_server(_authorizer, "127.0.0.1", 0)
    kept.append(standing_in(AUTHORIZER.cluster, int(authorizer.sockets[0].getsockname()[1])))
    options = Options(
        node_id="default/judge",
        cluster="judge.default",
        xds_socket=str(scratch / "xds.sock"),
        admin_socket=str(scratch / "admin.sock"),
        health_port=0,
        metrics_port=0,
    )
    try:
        async with _by_grpc() as asked, serving(scratch / "xds.sock") as ads:
            ads.put([*kept, standing_in(AUTHORIZER_BY_GRPC.cluster, asked, http2=True)])
            async with running(bootstrap(options), scratch) as proxy:
                await proxy.until("/ready", "LIVE")
                yield Judge(ads, proxy, ports, upstream)
    finally:
        authorizer.close()
        server.close()
