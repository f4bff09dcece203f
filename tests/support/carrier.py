"""A real Envoy as judge of where a connection goes: our listeners, bound, and a server for each cluster that says its name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from tests.support.envoy import running
from tulle.core.encoded import Encoded
from tulle.core.evaluate.connections import Connection
from tulle.core.networks import VIRTUAL, inside
from tulle.pb import pack, pool
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from tulle.pb.envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from tulle.pb.google.protobuf import duration_pb2

HTTP = "HTTP"  # where requests would be routed
CLOSED = "closed"
_TIMEOUT = 20.0


def _message(encoded: Encoded) -> listener_pb2.Listener | None:
    """A listener that is called outright: where it stood behind another. None for an address that this machine has not."""
    message = listener_pb2.Listener.FromString(encoded.value)
    address = message.address.socket_address.address
    if any(inside(address, network) for network in VIRTUAL):
        return None
    message.ClearField("bind_to_port")
    if message.listener_filters:  # a slow machine's first bytes are not to be mistaken for silence
        message.listener_filters_timeout.CopyFrom(duration_pb2.Duration(seconds=10))
    for chain in (*message.filter_chains, message.default_filter_chain):
        _routed(chain)
    return message


def _routed(chain: listener_components_pb2.FilterChain) -> None:
    for one in chain.filters:
        if one.typed_config.type_url.endswith(".HttpConnectionManager"):
            one.name = "envoy.filters.network.tcp_proxy"
            one.typed_config.CopyFrom(pack(tcp_proxy_pb2.TcpProxy(stat_prefix=HTTP, cluster=HTTP)))


def _cluster(name: str, port: int) -> dict[str, Any]:
    """A cluster whose only endpoint is there; without one where `port` is 0."""
    place = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [place]}] if port else []}
    return {"name": name, "type": "STATIC", "connect_timeout": "10s", "load_assignment": assignment}


async def _says(stack: AsyncExitStack, name: str) -> int:
    """A server that answers a connection's first bytes with a name, at a port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(f"{name}\n".encode())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    stack.push_async_callback(server.wait_closed)
    stack.callback(server.close)
    port: int = server.sockets[0].getsockname()[1]
    return port


@asynccontextmanager
async def carrying(
    listeners: Iterable[Encoded], clusters: Iterable[str], empty: Sequence[str], scratch: Path
) -> AsyncIterator[frozenset[tuple[str, int]]]:
    """An Envoy with these listeners; the addresses and ports that they have. `empty` are clusters that lead nowhere."""
    async with AsyncExitStack() as stack:
        made = [message for one in listeners if (message := _message(one)) is not None]
        ports = {name: await _says(stack, name) for name in {HTTP, *clusters}}
        resources = {
            "listeners": [
                json_format.MessageToDict(one, preserving_proto_field_name=True, descriptor_pool=pool()) for one in made
            ],
            "clusters": [*(_cluster(*one) for one in ports.items()), *(_cluster(name, 0) for name in empty)],
        }
        admin = str(scratch / "admin.sock")
        bootstrap = {
            "node": {"id": "carrier", "cluster": "carrier"},
            "admin": {"address": {"pipe": {"path": admin}}},
            "static_resources": resources,
        }
        envoy = await stack.enter_async_context(running(bootstrap, scratch))
        await envoy.until("/ready", "LIVE")
        places = (one.address.socket_address for one in made)
        yield frozenset((place.address, place.port_value) for place in places)


async def ask(connection: Connection) -> str:
    """The cluster to which a connection is carried, `HTTP`, or `closed`."""
    reader, writer = await asyncio.open_connection(connection.address, connection.port, local_addr=(connection.source, 0))
    try:
        writer.write(_first_bytes(connection))
        async with asyncio.timeout(_TIMEOUT):
            return (await reader.readline()).decode().strip() or CLOSED
    except ConnectionError:
        return CLOSED
    finally:
        writer.close()


def _first_bytes(connection: Connection) -> bytes:
    if connection.sni is None:
        return b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" if connection.http else b"hello\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=connection.sni or None)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
