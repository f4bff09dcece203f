"""Calls into a workload → filter chains: who may come in which way, port by port.

STRICT: only mutual TLS. PERMISSIVE: mutual TLS from the mesh (told by ALPN), plaintext, and the application's own TLS passed on
as it is. DISABLE: whatever comes is the application's. Envoy's matching does not go back: once a destination port has chains
of its own, no chain without a port is tried for it. That is also why there is no default chain here: it would take what a
STRICT port has refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tulle.core.envoy import http, tls
from tulle.core.envoy.clusters import BLACK_HOLE, INBOUND_PASSTHROUGH, inbound_name
from tulle.core.envoy.sniffing import HTTP1, HTTP2, at, end_wait_inbound, look_for_http, look_for_tls, not_at
from tulle.core.envoy.source import socket, uint32
from tulle.core.envoy.tcp_routes import tcp
from tulle.core.model.service import Protocol
from tulle.core.model.workload import InboundPort, MtlsMode, Workload
from tulle.pb import pack
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from tulle.pb.envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2

_Chain = listener_components_pb2.FilterChain
_Match = listener_components_pb2.FilterChainMatch

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
    declared = [chain for port in workload.inbound for chain in _port(workload, port, port.port)]
    listener = listener_pb2.Listener(
        name="virtualInbound",
        address=socket(_ANY, workload.ports.inbound),
        traffic_direction=base_pb2.INBOUND,
        listener_filters=[_ORIGINAL_DST],
        filter_chains=[loop, *declared, *_undeclared(workload)],
    )
    _inspect(listener, workload.mtls, workload.inbound)
    return listener


def port_listener(workload: Workload, port: InboundPort) -> listener_pb2.Listener:
    """In `proxy` capture: a listener on the workload's address for one port."""
    listener = listener_pb2.Listener(
        name=f"{workload.address}_{port.port}",
        address=socket(workload.address, port.port),
        traffic_direction=base_pb2.INBOUND,
        filter_chains=list(_port(workload, port, None)),
    )
    _inspect(listener, port.mtls, (port,))
    return listener


def _inspect(listener: listener_pb2.Listener, others: MtlsMode, ports: Sequence[InboundPort]) -> None:
    """Look for TLS and HTTP where it is somebody's business; `others` is the mode of what `ports` does not list."""
    modes = {others, *(port.mtls for port in ports)}
    if modes != {MtlsMode.DISABLE}:
        exempt = [port.port for port in ports if port.mtls is MtlsMode.DISABLE]
        if others is MtlsMode.DISABLE:
            look_for_tls(listener, except_on=not_at([port.port for port in ports if port.mtls is not MtlsMode.DISABLE]))
        else:
            look_for_tls(listener, except_on=at(exempt) if exempt else None)
    sniffed = [port.port for port in ports if _sniffed(port)]
    if sniffed:
        look_for_http(listener, except_on=not_at(sniffed))
    if MtlsMode.PERMISSIVE in modes or sniffed:
        end_wait_inbound(listener)


def _sniffed(port: InboundPort) -> bool:
    """Whether plaintext may come there that nobody declared. What comes by mutual TLS is declared by the caller's sidecar."""
    return port.protocol is Protocol.AUTO and port.mtls is not MtlsMode.STRICT


def _port(workload: Workload, port: InboundPort, destination: int | None) -> Iterator[listener_components_pb2.FilterChain]:
    name = inbound_name(port)
    raw = tcp(name)
    spoken = http.inbound(f"inbound_{_ANY}_{port.port}", name)
    parsed = spoken if port.protocol.is_http else raw
    if _sniffed(port):
        transport = "" if port.mtls is MtlsMode.DISABLE else "raw_buffer"
        yield _chain(f"{name}plaintext-http", destination, spoken, transport, (*HTTP1, *HTTP2))
    if port.mtls is MtlsMode.DISABLE:
        yield _chain(f"{name}plaintext", destination, parsed)
        return
    strict = port.mtls is MtlsMode.STRICT
    if port.protocol is Protocol.AUTO:
        # The caller's sidecar knows what it sends.
        yield _chain(f"{name}mtls-http", destination, spoken, "tls", tls.MESH_HTTP, _mutual(workload, http_inside=True))
    told = () if strict else tuple(word for word in tls.MESH if port.protocol is not Protocol.AUTO or word not in tls.MESH_HTTP)
    yield _chain(f"{name}mtls", destination, parsed, "tls", told, _mutual(workload, http_inside=port.protocol.is_http))
    if not strict:
        yield _chain(f"{name}tls", destination, raw, "tls")
        yield _chain(f"{name}plaintext", destination, parsed, "raw_buffer")


def _undeclared(workload: Workload) -> Iterator[listener_components_pb2.FilterChain]:
    """Ports that no service declares: the bytes go where they were going, under the workload's own mode."""
    through = tcp(INBOUND_PASSTHROUGH)
    if workload.mtls is MtlsMode.DISABLE:
        yield _chain("virtualInbound-plaintext", None, through)
        return
    strict = workload.mtls is MtlsMode.STRICT
    yield _chain("virtualInbound-mtls", None, through, "tls", () if strict else tls.MESH, _mutual(workload, http_inside=False))
    if not strict:
        yield _chain("virtualInbound-tls", None, through, "tls")
        yield _chain("virtualInbound-plaintext", None, through, "raw_buffer")


def _chain(
    name: str,
    destination: int | None,
    network_filter: listener_components_pb2.Filter,
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
        filters=[network_filter],
        transport_socket=transport_socket,
    )


def _mutual(workload: Workload, *, http_inside: bool) -> base_pb2.TransportSocket:
    trust_domain = workload.identity.removeprefix("spiffe://").partition("/")[0]
    return tls.downstream(trust_domain, ("h2", "http/1.1") if http_inside else ("istio",))
