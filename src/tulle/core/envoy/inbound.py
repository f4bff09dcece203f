"""Calls into a workload → filter chains: who may come in which way, port by port.

STRICT: only mutual TLS. PERMISSIVE: mutual TLS from the mesh (told by ALPN), plaintext, and the application's own TLS passed on
as it is. DISABLE: whatever comes is the application's. Envoy's matching does not go back: once a destination port has chains
of its own, no chain without a port is tried for it. That is also why there is no default chain here: it would take what a
STRICT port has refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

from tulle.core.envoy import http, tls
from tulle.core.envoy.authorization import tcp_filters
from tulle.core.envoy.clusters import BLACK_HOLE, INBOUND_PASSTHROUGH, inbound_name
from tulle.core.envoy.connection_limits import connection_filters
from tulle.core.envoy.sniffing import HTTP1, HTTP2, at, end_wait_inbound, look_for_http, look_for_tls, not_at
from tulle.core.envoy.source import TRUE, socket, uint32
from tulle.core.envoy.tcp_routes import may_wait, tcp
from tulle.core.envoy.telemetry import Called
from tulle.core.model.gateway import ServerTls
from tulle.core.model.service import Protocol
from tulle.core.model.workload import InboundPort, MtlsMode, Workload
from tulle.core.networks import network
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from tulle.pb.envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2

_Chain = listener_components_pb2.FilterChain
_Match = listener_components_pb2.FilterChainMatch
_Filters = list[listener_components_pb2.Filter]

_ORIGINAL_DST = listener_components_pb2.ListenerFilter(
    name="envoy.filters.listener.original_dst", typed_config=pack(original_dst_pb2.OriginalDst())
)
_ANY = "0.0.0.0"  # noqa: S104 - inside a workload's network


def virtual_inbound(workload: Workload) -> listener_pb2.Listener:
    """`virtualInbound`: every captured connection into the workload, told by the port that it was going to."""
    loop = _Chain(
        name="virtualInbound-blackhole",
        filter_chain_match=_Match(destination_port=uint32(workload.ports.inbound)),
        filters=[tcp(BLACK_HOLE)],
    )
    declared = [_only_at(chain, port.at) for port in workload.inbound for chain in _port(workload, port, port.port)]
    listener = listener_pb2.Listener(
        name="virtualInbound",
        address=socket(_ANY, workload.ports.inbound),
        traffic_direction=base_pb2.INBOUND,
        listener_filters=[_ORIGINAL_DST],
        filter_chains=[loop, *declared, *_undeclared(workload)],
    )
    _inspect(listener, workload.mtls, workload.inbound)
    return listener


def _only_at(chain: listener_components_pb2.FilterChain, address: str) -> listener_components_pb2.FilterChain:
    """The same for connections to one address only ("": to any)."""
    if address and not ip_address(address).is_unspecified:
        one = network(address)
        chain.filter_chain_match.prefix_ranges.add(address_prefix=str(one.network_address), prefix_len=uint32(one.prefixlen))
    return chain


def port_listener(workload: Workload, port: InboundPort) -> listener_pb2.Listener:
    """Where nothing is captured (`proxy` capture, or a port that is bound): a listener on an address for one port."""
    address = port.bind or port.at or workload.address
    listener = listener_pb2.Listener(
        name=f"{address}_{port.port}",
        address=socket(address, port.port),
        traffic_direction=base_pb2.INBOUND,
        filter_chains=list(_port(workload, port, None)),
        # An address that comes later, or never, is no reason to refuse the rest.
        freebind=TRUE if address != workload.address else None,
    )
    _inspect(listener, None, (port,))
    return listener


def _inspect(listener: listener_pb2.Listener, others: MtlsMode | None, ports: Sequence[InboundPort]) -> None:
    """Look for TLS and HTTP where it is somebody's business; `others` is the mode of what `ports` does not list, if there is."""
    permissive = [port for port in ports if port.mtls is MtlsMode.PERMISSIVE]
    told = [port.port for port in ports if port.mtls is not MtlsMode.DISABLE or port.tls]
    if told or others not in (MtlsMode.DISABLE, None):
        exempt = [port.port for port in ports if port.port not in told]
        if others is MtlsMode.DISABLE:
            look_for_tls(listener, except_on=not_at(told))
        else:
            look_for_tls(listener, except_on=at(exempt) if exempt else None)
    sniffed = [port.port for port in ports if _sniffed(port)]
    if sniffed:
        look_for_http(listener, except_on=not_at(sniffed))
    undeclared = others is MtlsMode.PERMISSIVE
    if undeclared or permissive or sniffed:
        bytes_ = any(not port.protocol.is_http for port in permissive)
        end_wait_inbound(listener, server_first=undeclared or bool(sniffed) or bytes_)


def _sniffed(port: InboundPort) -> bool:
    """Whether plaintext may come there that nobody declared. What comes by mutual TLS is declared by the caller's sidecar."""
    return port.protocol is Protocol.AUTO and port.mtls is not MtlsMode.STRICT and port.tls is None


def _port(workload: Workload, port: InboundPort, destination: int | None) -> Iterator[listener_components_pb2.FilterChain]:
    name = inbound_name(port)
    _raw, spoken, parsed = _filters(workload, port, name, plaintext=False)
    raw_plain, spoken_plain, parsed_plain = _filters(workload, port, name, plaintext=True)
    if _sniffed(port):
        transport = "" if port.mtls is MtlsMode.DISABLE else "raw_buffer"
        yield _chain(f"{name}plaintext-http", destination, spoken_plain, transport, (*HTTP1, *HTTP2))
    if port.mtls is MtlsMode.DISABLE:
        if port.tls is None:
            yield _chain(f"{name}plaintext", destination, parsed_plain)
        else:
            yield _chain(f"{name}tls", destination, parsed_plain, "tls", (), _ended(workload, port.tls))
        return
    strict = port.mtls is MtlsMode.STRICT
    if port.protocol is Protocol.AUTO:
        # The caller's sidecar knows what it sends.
        mutual = _mutual(workload, http_inside=True)
        yield _cut(workload, _chain(f"{name}mtls-http", destination, spoken, "tls", tls.MESH_HTTP, mutual))
    told = () if strict else tuple(word for word in tls.MESH if port.protocol is not Protocol.AUTO or word not in tls.MESH_HTTP)
    mutual = _mutual(workload, http_inside=port.protocol.is_http)
    yield _cut(workload, _chain(f"{name}mtls", destination, parsed, "tls", told, mutual))
    if not strict and port.tls is not None:
        yield _chain(f"{name}tls", destination, parsed_plain, "tls", (), _ended(workload, port.tls))
    elif not strict:
        yield _chain(f"{name}tls", destination, raw_plain, "tls")
        yield _chain(f"{name}plaintext", destination, parsed_plain, "raw_buffer")


def _filters(workload: Workload, port: InboundPort, cluster: str, *, plaintext: bool) -> tuple[_Filters, _Filters, _Filters]:
    """The filters for bytes, for requests, and those of the two that the port's protocol asks for. Without mutual TLS nobody has
    an identity of the mesh: in plaintext none is shown, and certificates in TLS of the application's may be of any authority.
    """
    called, guard = Called(port.service, plaintext), port.guard.outside if plaintext else port.guard
    counted = [*connection_filters(port.connection_counters)]
    mutual = not plaintext and may_wait(port.carriage)
    carried = tcp(cluster, port.carriage, called, port.telemetry, mutual=mutual)
    raw = [*counted, *tcp_filters(guard, cluster if mutual else ""), carried]
    spoken = [
        *counted,
        http.inbound(f"inbound_{_ANY}_{port.port}", cluster, workload.limits, guard, called, port.telemetry, port.counter),
    ]
    return raw, spoken, spoken if port.protocol.is_http else raw


def _undeclared(workload: Workload) -> Iterator[listener_components_pb2.FilterChain]:
    """Ports that no service declares: the bytes go where they were going, under the workload's own mode."""
    told = workload.telemetry.server
    through = [
        *tcp_filters(workload.guard, INBOUND_PASSTHROUGH),
        tcp(INBOUND_PASSTHROUGH, called=Called(), telemetry=told, mutual=True),
    ]
    through_plain = [
        *tcp_filters(workload.guard.outside),
        tcp(INBOUND_PASSTHROUGH, called=Called(plaintext=True), telemetry=told),
    ]
    if workload.mtls is MtlsMode.DISABLE:
        yield _chain("virtualInbound-plaintext", None, through_plain)
        return
    strict = workload.mtls is MtlsMode.STRICT
    alpn, mutual = () if strict else tls.MESH, _mutual(workload, http_inside=False)
    yield _cut(workload, _chain("virtualInbound-mtls", None, through, "tls", alpn, mutual))
    if not strict:
        yield _chain("virtualInbound-tls", None, through_plain, "tls")
        yield _chain("virtualInbound-plaintext", None, through_plain, "raw_buffer")


def _chain(
    name: str,
    destination: int | None,
    filters: Sequence[listener_components_pb2.Filter],
    transport: str = "",
    alpn: Iterable[str] = (),
    transport_socket: base_pb2.TransportSocket | None = None,
) -> listener_components_pb2.FilterChain:
    return _Chain(
        name=name,
        filter_chain_match=_Match(
            destination_port=uint32(destination) if destination is not None else None,
            transport_protocol=transport,
            application_protocols=alpn,
        ),
        filters=filters,
        transport_socket=transport_socket,
        transport_socket_connect_timeout=tls.HANDSHAKE_WITHIN if transport_socket is not None else None,
    )


def _cut(workload: Workload, chain: listener_components_pb2.FilterChain) -> listener_components_pb2.FilterChain:
    return tls.cut(chain, workload.cut)


def _ended(workload: Workload, said: ServerTls) -> base_pb2.TransportSocket:
    return tls.gateway(said, workload.accepts, workload.handshake)


def _mutual(workload: Workload, *, http_inside: bool) -> base_pb2.TransportSocket:
    return tls.downstream(workload.accepts, ("h2", "http/1.1") if http_inside else ("istio",), workload.handshake)
