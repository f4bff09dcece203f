"""Workloads → listeners.

A captured connection arrives at `virtualOutbound` (15001) or `virtualInbound` (15006) and is told by where it was going. The
listeners for outbound ports (`0.0.0.0_9080`, `240.240.0.7_3306`) bind nothing: `virtualOutbound` hands connections to them, and
all sidecars of a namespace share them. In `proxy` capture nothing is redirected: the application calls a forward proxy, and each
of its ports has a listener of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tulle.core import type_urls
from tulle.core.encoded import Encoded, encode
from tulle.core.envoy import http
from tulle.core.envoy.clusters import BLACK_HOLE, PASSTHROUGH
from tulle.core.envoy.gateways import encode_gateway
from tulle.core.envoy.inbound import port_listener, virtual_inbound
from tulle.core.envoy.sniffing import HTTP1, end_wait_outbound, look_for_http, look_for_tls
from tulle.core.envoy.source import FALSE, TRUE, socket, uint32
from tulle.core.envoy.tcp_routes import chains, needs_names, tcp, tcp_filters
from tulle.core.model.route import RouteTableKey, WeightedDestination
from tulle.core.model.tcp_route import ANY_TLS, TcpMatch, TcpRoute
from tulle.core.model.workload import Capture, Outbound, OutboundTcp, Workload
from tulle.pb.envoy.config.core.v3 import base_pb2
from tulle.pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2

ANY = "0.0.0.0"  # noqa: S104 - inside a workload's network, where capture decides what arrives
LOOPBACK = "127.0.0.1"
ANY6 = "::"
_SIX = {ANY: ANY6, LOOPBACK: "::1"}

_Chain = listener_components_pb2.FilterChain
_Match = listener_components_pb2.FilterChainMatch


def encode_outbound(outbound: Outbound) -> tuple[Encoded, ...]:
    """The listeners that the sidecars of a namespace share: one for every HTTP port, one for every TCP service."""
    return _shared(outbound, tuple(service for service in outbound.tcp if ":" not in service.address))


def encode_outbound_six(outbound: Outbound) -> tuple[Encoded, ...]:
    """The same for calls by IPv6."""
    found = _shared(outbound, tuple(service for service in outbound.tcp if not service.address or ":" in service.address))
    return tuple(_at_six(one) for one in found)


def _at_six(encoded: Encoded) -> Encoded:
    """A listener for a port at all addresses, moved to those of IPv6."""
    listener = listener_pb2.Listener.FromString(encoded.value)
    if listener.address.socket_address.address != ANY:
        return encoded
    listener.address.socket_address.address = ANY6
    listener.name = f"[{ANY6}]_{listener.address.socket_address.port_value}"
    return encode(encoded.type_url, listener.name, listener.SerializeToString(deterministic=True), encoded.refs)


def _shared(outbound: Outbound, services: tuple[OutboundTcp, ...]) -> tuple[Encoded, ...]:
    told: dict[int, tuple[RouteTableKey | None, bool]] = {table.port: (table, False) for table in outbound.http}
    told |= {table.port: (table, True) for table in outbound.sniffed}
    others: dict[int, list[OutboundTcp]] = {}
    for service in services:
        if not service.address or "/" in service.address:
            others.setdefault(service.port, []).append(service)
    rest = BLACK_HOLE if outbound.registry_only else PASSTHROUGH
    return (
        *(_any_address(port, told.get(port, (None, False)), others.get(port, []), rest) for port in sorted({*told, *others})),
        *(_tcp_service(service, outbound) for service in services if service.address and "/" not in service.address),
    )


def encode_workload(workload: Workload) -> tuple[Encoded, ...]:
    """The listeners of one workload alone."""
    if workload.is_gateway:
        return encode_gateway(workload)
    if workload.capture is Capture.PROXY:
        table = RouteTableKey(port=0, namespace=workload.namespace, labels=workload.callers)
        return (
            _encode(_forward_proxy(workload.ports.outbound, table), table.name),
            *(_encode(port_listener(workload, port)) for port in workload.inbound),
        )
    captured = [_virtual_outbound(workload), virtual_inbound(workload)]
    for listener in captured if workload.ipv6 else ():
        bound = listener.address.socket_address
        listener.additional_addresses.add(address=socket(_SIX[bound.address], bound.port_value))
    return tuple(map(_encode, captured))


def _any_address(port: int, told: tuple[RouteTableKey | None, bool], services: list[OutboundTcp], rest: str) -> Encoded:
    """A port at all addresses that have no listener of their own: networks, server names of TLS, then HTTP and the rest.

    `told` is the table of HTTP and whether other things may come there, `rest` the cluster for what belongs to nobody.
    """
    table, sniffed = told
    name = f"{ANY}_{port}"
    listener = listener_pb2.Listener(
        name=name,
        address=socket(ANY, port),
        bind_to_port=FALSE,
        traffic_direction=base_pb2.OUTBOUND,
    )
    whole_port = table is None or sniffed
    routes = [route for service in services if service.address or service.names or whole_port for route in _routes(service)]
    listener.filter_chains.extend(chains(routes, beside_plaintext=sniffed))
    named = needs_names(routes)
    if named:
        look_for_tls(listener)
    if table is not None and sniffed:
        look_for_http(listener)
        listener.filter_chains.append(_http_among_others(name, table))
    if named or sniffed:
        end_wait_outbound(listener)
    if table is not None and not sniffed:
        whole = _Chain(filters=[http.outbound(f"outbound_{name}", table.name)])
        if named and not any(ANY_TLS in route.match.names for route in routes):  # TLS for another name is no HTTP
            listener.filter_chains.add(filter_chain_match=_Match(transport_protocol="tls"), filters=[tcp(rest)])
    else:
        owner = next((service.destination.cluster for service in services if not service.address and not service.names), rest)
        whole = _Chain(filters=[tcp(owner)])
    if listener.filter_chains:
        listener.default_filter_chain.CopyFrom(whole)
    else:
        listener.filter_chains.append(whole)
    return _encode(listener, table.name if table else "")


def _routes(service: OutboundTcp) -> Iterator[TcpRoute]:
    """A service's routes where other services are called at the same port: each only for what is the service's."""
    networks = (service.address,) if service.address else ()
    for route in service.routes:
        names = route.match.names
        if service.names:  # any TLS for the service is TLS for its names
            names = tuple(name for name in names if name != ANY_TLS) or service.names
        match = msgspec.structs.replace(route.match, names=names, networks=route.match.networks or networks)
        yield msgspec.structs.replace(route, match=match)
    if networks or service.names:
        yield TcpRoute(
            match=TcpMatch(service.names, networks), destinations=(WeightedDestination(service.destination),), told=service.told
        )


def _tcp_service(service: OutboundTcp, outbound: Outbound) -> Encoded:
    name = f"{service.address}_{service.port}"
    listener = listener_pb2.Listener(
        name=name,
        address=socket(service.address, service.port),
        bind_to_port=FALSE,
        traffic_direction=base_pb2.OUTBOUND,
    )
    if needs_names(service.routes):
        look_for_tls(listener)
        if not service.tls:
            end_wait_outbound(listener)
    rest = _Chain(filters=tcp_filters((WeightedDestination(service.destination),), told=service.told))
    if not service.sniffed:
        listener.filter_chains.extend(chains(service.routes))
        if not listener.filter_chains:
            listener.filter_chains.append(rest)
        elif all(route.match != TcpMatch() for route in service.routes):
            listener.default_filter_chain.CopyFrom(rest)
        return _encode(listener)
    table = RouteTableKey(service.port, outbound.namespace, labels=outbound.labels, service=service.destination.hostname)
    look_for_http(listener)
    end_wait_outbound(listener)
    listener.filter_chains.append(_http_among_others(name, table))
    listener.filter_chains.extend(chains(service.routes, beside_plaintext=True))
    listener.default_filter_chain.CopyFrom(rest)
    return _encode(listener, table.name)


def _http_among_others(name: str, table: RouteTableKey) -> listener_components_pb2.FilterChain:
    """The chain for HTTP/1 where anything may come. HTTP/2 stays bytes: clusters speak HTTP/1 to what is undeclared."""
    return _Chain(
        name="http",
        filter_chain_match=_Match(transport_protocol="raw_buffer", application_protocols=HTTP1),
        filters=[http.outbound(f"outbound_{name}", table.name)],
    )


def _virtual_outbound(workload: Workload) -> listener_pb2.Listener:
    port = workload.ports.outbound
    return listener_pb2.Listener(
        name="virtualOutbound",
        # In the host's own network only what its loopback redirects may come in.
        address=socket(LOOPBACK if workload.capture is Capture.CGROUP else ANY, port),
        use_original_dst=TRUE,
        traffic_direction=base_pb2.OUTBOUND,
        filter_chains=[
            # Called by its own number instead of by redirection, it would call itself for ever.
            _Chain(
                name="virtualOutbound-blackhole",
                filter_chain_match=_Match(destination_port=uint32(port)),
                filters=[tcp(BLACK_HOLE)],
            ),
            _Chain(name="virtualOutbound-catchall-tcp", filters=[tcp(BLACK_HOLE if workload.registry_only else PASSTHROUGH)]),
        ],
    )


def _forward_proxy(port: int, table: RouteTableKey) -> listener_pb2.Listener:
    name = f"{LOOPBACK}_{port}"
    return listener_pb2.Listener(
        name=name,
        address=socket(LOOPBACK, port),
        traffic_direction=base_pb2.OUTBOUND,
        filter_chains=[_Chain(filters=[http.forward(f"outbound_{name}", table.name)])],
    )


def _encode(listener: listener_pb2.Listener, table: str = "") -> Encoded:
    refs = ((type_urls.ROUTE, table),) if table else ()
    return encode(type_urls.LISTENER, listener.name, listener.SerializeToString(deterministic=True), refs)
